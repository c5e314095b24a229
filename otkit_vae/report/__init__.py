"""Reports: one HTML file for a run, or across the runs of a comparison, that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from otkit_vae.config import TrainConfig
from otkit_vae.evaluation import Evaluation, FullEvaluation
from otkit_vae.report import _comparison, _run
from otkit_vae.report._page import REPORT as REPORT
from otkit_vae.report._page import write_page
from otkit_vae.runs import SavedRun

if TYPE_CHECKING:
    from otkit_vae.compared import Comparison

SECTIONS = {
    "curves": "Curves",
    "reconstructions": "Reconstructions",
    "samples": "Samples",
    "map": "Map of the codes",
    "interpolations": "Interpolations",
    "marginals": "q(z) against p(z)",
    "numbers": "Numbers",
    "config": "Config",
}
"""The sections of a run's report, by their anchors."""

COMPARED = {
    "table": "Penalties",
    "curves": "Curves",
    "samples": "Samples of the prior",
    "mixture": "Samples of a mixture",
    "reconstructions": "Reconstructions",
    "measures": "All measures",
    "config": "Config",
}
"""The sections of a comparison's report."""


def write_report(run: SavedRun, evaluation: Evaluation | FullEvaluation | None = None) -> Path:
    """Write report.html into the folder of a run.

    Args:
        run: The run, of `otkit_vae.runs.open_run`.
        evaluation: Its numbers; by default those of evaluation.json, and without it those that a training ends with.

    Returns:
        The file.

    Raises:
        ValueError: evaluation.json is not one of this version.
    """
    return write_page(run.folder, "run.html", contents=SECTIONS, **_run.content(run, evaluation))


def write_comparison(
    comparison: Comparison, configs: Sequence[TrainConfig], shown: Mapping[str, Mapping[str, Tensor]]
) -> Path:
    """Write report.html into the folder of a comparison.

    Args:
        comparison: What was found.
        configs: The options of each run, whose folders are in that of the comparison.
        shown: Observations (n, *event) of the first seed: "samples", "mixture" and "reconstructions", with a row for
            each penalty; the last begins with the "originals".

    Returns:
        The file.
    """
    content = _comparison.content(comparison, configs, shown)
    return write_page(comparison.folder, "comparison.html", contents=COMPARED, **content)
