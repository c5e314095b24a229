"""What the report across the runs of a comparison shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from torch import Tensor

from otkit_vae.config import TrainConfig
from otkit_vae.report import _figures
from otkit_vae.report._images import Painter
from otkit_vae.report._run import number, options, read_metrics, titled

if TYPE_CHECKING:
    from otkit_vae.compared import Comparison, Row

CURVES = {
    "reconstruction": ("reconstruction, −log p(x|z)", "nats"),
    "weighted": ("penalty times its weight", "nats"),
    "loss": ("loss", "nats"),
    "posterior_scale": ("posterior scale, mean σ of q(z|x)", "units of z"),
}


def content(
    comparison: Comparison, configs: Sequence[TrainConfig], shown: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Any]:
    """All that the page shows, by the names of its template.

    Args:
        comparison: What was found.
        configs: The options of each run.
        shown: Observations of the first seed, by "samples", "mixture" and "reconstructions", a row for each penalty.
    """
    penalties = list(dict.fromkeys(config.penalty for config in configs))
    styles = _figures.lines(penalties)
    seeds = sorted({config.seed for config in configs})
    first = configs[0]
    originals = shown["reconstructions"]["originals"]
    painter = Painter.of(originals)
    head, *rows = comparison.cells()
    return {
        "title": f"{first.data if '/' not in first.data else Path(first.data).stem} · {len(penalties)} penalties",
        "facts": [
            f"{len(configs)} trainings, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
            f"{first.latent_dim} latent dimension{'s' * (first.latent_dim > 1)}, {first.posterior} posterior, "
            f"{first.prior} prior",
            f"{first.network}, {first.likelihood} likelihood",
            f"{first.epochs} epoch{'s' * (first.epochs > 1)}, batches of {first.batch_size}",
        ],
        "head": head,
        "rows": rows,
        "n_seeds": len(seeds),
        "curves": curves(configs, styles),
        "styles": styles,
        "painter": painter,
        "strips": {
            part: {name: painter.tiles(x) for name, x in by_penalty.items()} for part, by_penalty in shown.items()
        },
        "measures": measures(comparison, penalties),
        "penalties": penalties,
        "runs": [f"{config.penalty}-{config.seed}" for config in configs],
        "config": {
            name: value
            for name, value in options(first).items()
            if name not in ("penalty", "penalty_options", "weight", "seed", "out", "progress")
        },
        "missing": {},
    }


def curves(configs: Sequence[TrainConfig], styles: Mapping[str, tuple[str, str]]) -> list[Markup]:
    """Each quantity over the epochs, on held-out data, all penalties in one figure."""
    runs: dict[str, list[dict[str, dict[int, float]]]] = {}
    for config in configs:
        metrics = read_metrics(Path(str(config.out)))
        found = {name.removeprefix("held_out_"): values for name, values in metrics.items()}
        if {"loss", "reconstruction"} <= found.keys():
            weighted = {epoch: loss - found["reconstruction"][epoch] for epoch, loss in found["loss"].items()}
            runs.setdefault(config.penalty, []).append(found | {"weighted": weighted})
    panels = []
    for name, (title, unit) in CURVES.items():
        lines = {penalty: [run[name] for run in found if name in run] for penalty, found in runs.items()}
        lines = {penalty: found for penalty, found in lines.items() if found}
        if any(any(values.values()) for found in lines.values() for values in found):
            panels.append(_figures.overlay(title, unit, lines, styles))
    return panels


def measures(comparison: Comparison, penalties: Sequence[str]) -> list[dict[str, Any]]:
    """All measures, a row each, with a cell for each penalty; in brackets the null values, where each has its own."""
    found = []
    for key in dict.fromkeys(row.measure for row in comparison.rows):
        rows = {row.penalty: row for row in comparison.rows if row.measure == key}
        nulls = {row.null for row in rows.values()}
        own = len(nulls) > 1
        found.append({
            "key": key,
            "title": titled(key, next(iter(rows.values())).title),
            "null": "in brackets" if own else number(nulls.pop()),
            "cells": [_cell(rows[name], own) if name in rows else "–" for name in penalties],
        })  # fmt: skip
    return found


def _cell(row: Row, own_null: bool) -> str:
    spread = "" if row.sd is None else f" ± {number(row.sd, 2)}"
    return number(row.mean) + spread + (f" ({number(row.null)})" if own_null else "")
