"""What a comparison found: every measure of every penalty, and tables of them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from otkit_vae._files import write_text

COLUMNS = {
    "squared_error": "squared error",
    "log_likelihood_bound": "log p(x) ≥",
    "moments_w2": "W2(q, p) moments",
    "w2": "W2(q, p) samples",
    "active_units": "active units",
    "posterior_scale": "posterior scale",
    "prior_frechet": "Fréchet, prior",
    "mixture_frechet": "Fréchet, mixture",
    "prior_precision": "precision, prior",
    "prior_recall": "recall, prior",
    "augmented_accuracy": "augmented accuracy",
}
"""The measures of the table, by their headings; the files have them all."""


class Row(NamedTuple):
    """One measure of one penalty over the seeds.

    Attributes:
        penalty: The penalty.
        measure: The key of the measure.
        title: What it is, in words.
        mean: The mean over the seeds.
        sd: The standard deviation over the seeds; None for a single one.
        null: The mean of its null values; None where it has none.
        better: "lower" or "higher"; None where neither is better.
        n_seeds: The number of seeds.
    """

    penalty: str
    measure: str
    title: str
    mean: float
    sd: float | None
    null: float | None
    better: str | None
    n_seeds: int


class Cell(NamedTuple):
    """A cell of the table, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: its folder, and a row for each penalty and measure."""

    folder: Path
    rows: tuple[Row, ...]

    def write(self) -> None:
        """Write comparison.csv and comparison.json, with all measures, and comparison.md, with those of the table."""
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([Row._fields, *self.rows])
        rows = [row._asdict() for row in self.rows]
        write_text(self.folder / "comparison.csv", lines.getvalue())
        write_text(self.folder / "comparison.json", json.dumps(rows, indent=2, ensure_ascii=False))
        write_text(self.folder / "comparison.md", self.markdown() + "\n")

    def markdown(self) -> str:
        """The table of all penalties and, where `kl` is among several, that of the winners against it."""
        penalties = {row.penalty for row in self.rows}
        return self.table() + (f"\n\n{self.winners()}" if "kl" in penalties and len(penalties) > 1 else "")

    def table(self) -> str:
        """The cells in Markdown; the best means are bold."""
        return _aligned([[f"**{text}**" if best else text for text, best in line] for line in self.cells()])

    def cells(self) -> list[list[Cell]]:
        """A heading, and a row for each penalty, mean ± standard deviation over the seeds.

        The last row has the null values: where codes follow the prior, or training data stand for samples.
        """
        cells = {(row.penalty, row.measure): row for row in self.rows}
        penalties = list(dict.fromkeys(row.penalty for row in self.rows))
        keys = [key for key in COLUMNS if any(row.measure == key for row in self.rows)]
        best = {key: _best([row for row in self.rows if row.measure == key]) for key in keys}

        def cell(penalty: str, key: str) -> Cell:
            row = cells.get((penalty, key))
            if row is None:
                return Cell("–")
            text = f"{row.mean:.4g}" if row.sd is None else f"{row.mean:.4g} ± {row.sd:.2g}"
            return Cell(text, penalty == best[key])

        def null(key: str) -> Cell:
            values = [row.null for row in self.rows if row.measure == key and row.null is not None]
            return Cell(f"{np.mean(values):.4g}" if values else "")

        lines = [[Cell("penalty"), *(Cell(COLUMNS[key]) for key in keys)]]
        lines += [[Cell(penalty), *(cell(penalty, key) for key in keys)] for penalty in penalties]
        return [*lines, [Cell("null value"), *(null(key) for key in keys)]]

    def winners(self) -> str:
        """A table of the best penalty by each measure that has one, and how it differs from `kl`."""
        lines = [["measure", "best", "mean", "kl", "difference"]]
        for key, heading in COLUMNS.items():
            rows = {row.penalty: row for row in self.rows if row.measure == key}
            name = _best(list(rows.values()))
            if name is None or "kl" not in rows:
                continue
            best, base = rows[name].mean, rows["kl"].mean
            relative = f" ({best / base - 1:+.0%})" if min(best, base) > 0 else ""
            lines.append([heading, name, f"{best:.4g}", f"{base:.4g}", f"{best - base:+.3g}{relative}"])
        return _aligned(lines)


def rows_of(evaluations: Mapping[tuple[str, int], dict[str, Any]]) -> list[Row]:
    """The measures of each penalty, over its seeds."""
    rows = []
    for penalty in dict.fromkeys(name for name, _ in evaluations):
        parts = [content["measures"] for (name, _), content in evaluations.items() if name == penalty]
        for key in dict.fromkeys(key for part in parts for key in part):
            found = [part[key] for part in parts if key in part]
            values = [measure["value"] for measure in found]
            nulls = [measure["null"] for measure in found if measure["null"] is not None]
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            null = float(np.mean(nulls)) if nulls else None
            rows.append(
                Row(penalty, key, found[0]["title"], float(np.mean(values)), sd, null, found[0]["better"], len(values))
            )
    return rows


def _best(rows: Sequence[Row]) -> str | None:
    """The penalty with the best finite mean; None where neither direction is better, or there is no single best."""
    rows = [row for row in rows if math.isfinite(row.mean)]
    if len(rows) < 2 or rows[0].better is None:
        return None
    best = (min if rows[0].better == "lower" else max)(row.mean for row in rows)
    first, *others = (row.penalty for row in rows if row.mean == best)
    return None if others else first


def _aligned(lines: list[list[str]]) -> str:
    """A table in Markdown, whose first line is the headings."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], ["-" * width for width in widths], *lines[1:]]
    )
