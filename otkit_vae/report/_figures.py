"""The figures of a report, each an SVG element with a text that says what is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from otkit_vae.report._svg import FIRST, INK, MUTED, SECOND, drawing, to_svg

PANEL = (3.0, 2.1)
"""Inches of a panel: about what a phone shows without making the text smaller."""

COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#d4a518", "#ff6f91", "#8a8f98",
)  # fmt: skip
"""Colours of labels and of penalties, to be told apart on light and on dark."""

DASHES = ("solid", "dashed", "dotted")
"""How lines are drawn where there are more of them than colours."""


def curves(title: str, unit: str, parts: Mapping[str, Mapping[int, float]], null: float | None = None) -> Markup:
    """A quantity over the epochs, on the training batches and on held-out data.

    Args:
        title: What it is.
        unit: Its unit; empty where it has none.
        parts: The values by their epochs, by the part of the data.
        null: The value where codes follow the prior, if it has one.
    """
    said = []
    with drawing(*PANEL) as (figure, ax):
        for (part, values), colour, width in zip(parts.items(), (SECOND, FIRST), (1.1, 1.7), strict=False):
            _over_epochs(ax, values, color=colour, linewidth=width, label=part)
            numbers = list(values.values())
            said.append(f"{part} from {numbers[0]:.4g} to {numbers[-1]:.4g}")
        if null is not None:
            ax.axhline(null, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="at q = p")
            said.append(f"{null:.4g} where codes follow the prior")
        _frame(ax, title, "epoch", unit)
        ax.legend(loc="best", fontsize=8)
        n = max(max(values) for values in parts.values())
        return to_svg(figure, f"{title} over {n} epoch{'s' * (n > 1)}: {'; '.join(said)}")


def lines(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour for the line of each name, and how it is dashed."""
    n = len(COLOURS)
    return {name: (COLOURS[k % n], DASHES[k // n % len(DASHES)]) for k, name in enumerate(names)}


def overlay(
    title: str, unit: str, parts: Mapping[str, Sequence[Mapping[int, float]]], styles: Mapping[str, tuple[str, str]]
) -> Markup:
    """A quantity over the epochs for each penalty: the mean over its runs, and a band from the least to the largest.

    Args:
        title: What it is.
        unit: Its unit.
        parts: For each penalty, the values of each run by their epochs.
        styles: The colour and the dashes of each penalty, of `lines`.
    """
    with drawing(4.2, 2.8) as (figure, ax):
        for name, runs in parts.items():
            colour, dash = styles[name]
            epochs = [epoch for epoch in runs[0] if all(epoch in run for run in runs)]
            values = np.array([[run[epoch] for epoch in epochs] for run in runs])
            _over_epochs(ax, dict(zip(epochs, values.mean(0), strict=True)), color=colour, linestyle=dash)
            if len(runs) > 1:
                ax.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        _frame(ax, title, "epoch", unit)
        last = ", ".join(
            f"{name} {np.mean([list(run.values())[-1] for run in runs]):.4g}" for name, runs in parts.items()
        )
        return to_svg(figure, f"{title} over the epochs, a line for each penalty; at the end: {last}")


def marginal(unit: int, q: np.ndarray, p: np.ndarray, w2: float) -> Markup:
    """One coordinate of the codes of held-out data, a draw of each posterior, over that of prior samples."""
    low, high = np.quantile(np.concatenate([q, p]), [0.002, 0.998])
    edges = np.linspace(low, high, 41) if high > low else np.array([low - 0.5, low + 0.5])
    with drawing(1.75, 1.35) as (figure, ax):
        for values, colour, filled in ((q, FIRST, True), (p, SECOND, False)):
            # A share of all, so that what lies outside the range is not made up for.
            density = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
            ax.stairs(density, edges, color=colour, fill=filled, alpha=0.55 if filled else 1, linewidth=1.3)
        _frame(ax, f"z{unit}, W2 {w2:.3g}", "", "")
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.set_major_locator(MaxNLocator(2))
        ax.title.set_fontsize(8)
        ax.tick_params(labelsize=7.5)
        return to_svg(figure, f"marginal of unit {unit}: codes against the prior, W2 {w2:.3g}")


class Kind(NamedTuple):
    """How the points of a label, a number or a name, are drawn."""

    label: Any
    colour: str
    marker: str


def legend(labels: Sequence[Any]) -> list[Kind]:
    """A colour for each label, and beyond the colours another marker; none for more than can be told apart."""
    n = len(COLOURS)
    if len(labels) > 2 * n:
        return []
    return [Kind(label, COLOURS[k % n], "o" if k < n else "^") for k, label in enumerate(labels)]


def latent_map(
    points: np.ndarray,
    labels: np.ndarray | None,
    prior: tuple[np.ndarray, np.ndarray],
    axes: Sequence[str],
) -> Markup:
    """Posterior means in two directions, coloured by label, over the prior.

    Args:
        points: The means, with shape (n, 2).
        labels: Their labels, numbers or names, with shape (n,), or None.
        prior: The mean and the covariance of the prior in the two directions.
        axes: What the two directions are.
    """
    with drawing(3.7, 3.5) as (figure, ax):
        for k in (1, 2):
            ax.add_patch(ellipse(*prior, k, edgecolor=MUTED, linestyle=(0, (4, 3)), linewidth=1))
        scatter(ax, points, labels, s=7, linewidths=0, rasterized=True, alpha=0.85)
        ax.set_aspect("equal", adjustable="datalim")
        _frame(ax, "", *axes)
        by = "" if labels is None else f", coloured by {len(np.unique(labels))} labels"
        return to_svg(
            figure, f"map of {len(points)} posterior means{by}, with the prior's one and two standard deviations"
        )


def scatter(ax: Axes, points: np.ndarray, labels: np.ndarray | None, **style: Any) -> list[PathCollection]:
    """Points (n, 2), coloured as `legend` says by their labels (n,), or on a scale where these are too many for it.

    Returns:
        The points of each label, for a legend; none where there are no labels or too many.
    """
    if labels is None:
        ax.scatter(*points.T, color=COLOURS[0], **style)
        return []
    classes, ranks = np.unique(labels, return_inverse=True)
    drawn = [
        ax.scatter(*points[labels == kind.label].T, color=kind.colour, marker=kind.marker, label=kind.label, **style)
        for kind in legend(classes.tolist())
    ]
    if len(classes) > 2 * len(COLOURS):
        named = labels.dtype.kind == "U"
        shown = ax.scatter(*points.T, c=ranks if named else labels, cmap="viridis", **style)
        said = "label, in alphabetical order" if named else "label"  # names may be longer than the scale
        ax.figure.colorbar(shown, ax=ax, label=said, shrink=0.7)
    return drawn


def spreads(t: np.ndarray, geodesic: np.ndarray, line: np.ndarray) -> Markup:
    """The spread of codes on the way between two posteriors, along the geodesic and along straight lines."""
    with drawing(*PANEL) as (figure, ax):
        ax.plot(t, geodesic, color=FIRST, label="Gaussian geodesic")
        ax.plot(t, line, color=SECOND, linestyle=(0, (4, 2)), label="lines between draws")
        ax.set_ylim(0, 1.6 * max(geodesic.max(), line.max()))
        _frame(ax, "spread of the codes on the way", "t", "rms standard deviation")
        ax.legend(loc="upper center", ncols=1, fontsize=8)
        return to_svg(
            figure,
            f"spread of codes from t = 0 to 1: along the geodesic {geodesic[len(t) // 2]:.3g} in the middle, along "
            f"straight lines between independent draws {line[len(t) // 2]:.3g}",
        )


def _over_epochs(ax: Axes, values: Mapping[int, float], **style: Any) -> None:
    few = len(values) < 8
    ax.plot(list(values), list(values.values()), marker="o" if few else None, markersize=3, **style)


def _frame(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, loc="left", fontsize=9.5, color=INK)
    ax.set(xlabel=x, ylabel=y)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=x == "epoch", steps=[1, 2, 5, 10]))


def ellipse(mean: np.ndarray, cov: np.ndarray, k: float, **style: Any) -> Ellipse:
    """The points k standard deviations from the mean (2,) in every direction, by the covariance (2, 2)."""
    values, vectors = np.linalg.eigh(cov)
    width, height = 2 * k * np.sqrt(np.maximum(values, 0))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    return Ellipse((mean[0], mean[1]), width, height, angle=angle, fill=False, **style)
