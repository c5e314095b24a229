"""Pictures of a trained model: reconstructions, samples, and the map of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from otkit_vae._files import replacing
from otkit_vae.evaluation import encode
from otkit_vae.model import VAE
from otkit_vae.report._codes import map_of
from otkit_vae.report._figures import ellipse, scatter
from otkit_vae.report._images import Painter

PAIRS, SAMPLES, PER_ROW = 20, 60, 10
"""How many reconstructions and samples are shown, and how many observations in a row."""


def reconstructions(model: VAE, x: Tensor, path: Path) -> None:
    """Originals, and below each its reconstruction from the posterior mean."""
    x = x[:PAIRS]
    parts = (x.split(PER_ROW), model.reconstruct(x).split(PER_ROW))
    _sheet(list(chain(*zip(*parts, strict=True))), path, "held-out originals, and reconstructions below them")


def samples(model: VAE, path: Path, *, seed: int = 0) -> None:
    """Means of p(x|z) for codes drawn from the prior."""
    drawn = model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed))
    grid(drawn, path, title="samples: decoded from z ~ p(z)")


def grid(x: Tensor, path: Path, *, title: str) -> None:
    """Observations (n, *event), row after row."""
    _sheet(x.split(PER_ROW), path, title)


def side_by_side(rows: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Observations (n, *event) of several sources, a row for each under one title, with the names at the left."""
    _sheet(list(rows.values()), path, title, list(rows))


def _sheet(rows: Sequence[Tensor], path: Path, title: str, names: Sequence[str] = ()) -> None:
    """Observations (n, *event) in rows, all on one scale, each a unit wide and high in one pair of axes.

    (Drawing a pair of axes for each takes ten times as long.)
    """
    columns, painter = max(map(len, rows)), Painter.of(torch.cat(list(rows)))
    tall = 1.0 if painter.image is None else painter.image.height / painter.image.width
    figure = Figure(figsize=(columns * 0.8 + 2.2 * bool(names), len(rows) * 0.8 * tall + 0.6), layout="constrained")
    figure.suptitle(title)
    ax = figure.subplots()
    (_draw_curves if painter.image is None else _draw_images)(ax, rows, painter)
    ax.set(xlim=(0, columns), ylim=(len(rows), 0))
    ax.axis("off")
    for row, name in enumerate(names):
        ax.text(-0.1, row + 0.5, name, ha="right", va="center", parse_math=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as file:
        # Tight, as no layout makes room for names beside axes of a fixed shape.
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")


def _draw_images(ax: Axes, rows: Sequence[Tensor], painter: Painter) -> None:
    columns, (height, width, *channels) = max(map(len, rows)), painter.pixels(rows[0][0]).shape
    gap = max(1, round(0.06 * max(height, width)))
    sheet = np.full((len(rows), height + gap, columns, width + gap, *channels), 255, dtype=np.uint8)
    for row, observations in enumerate(rows):
        for column, x in enumerate(observations):
            sheet[row, :height, column, :width] = painter.pixels(x)
    pixels = sheet.reshape(len(rows) * (height + gap), columns * (width + gap), *channels)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(0, columns, len(rows), 0))
    ax.set_aspect((height + gap) / (width + gap))


def _draw_curves(ax: Axes, rows: Sequence[Tensor], painter: Painter) -> None:
    for row, observations in enumerate(rows):
        for column, x in enumerate(observations):
            y = painter.heights(x)
            ax.plot(column + np.linspace(0.05, 0.95, len(y)), row + 0.95 - 0.9 * y, linewidth=1, color="tab:blue")


@torch.no_grad()
def latent_map(model: VAE, x: Tensor, labels: np.ndarray | None, path: Path) -> None:
    """Posterior means in their two main directions, coloured by label, over the prior in the same directions."""
    found = map_of(encode(model, x), model.prior)
    n, k = found.points.shape
    # Codes of one dimension are a line.
    points = np.column_stack([found.points, np.zeros((n, 2 - k))])
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    ax = figure.subplots()
    loc, cov = (np.pad(part, (0, 2 - k)) for part in found.prior)
    for radius in (1, 2):
        ax.add_patch(ellipse(loc, cov, radius, linestyle="--", edgecolor="grey", linewidth=1))
    drawn = scatter(ax, points, None if labels is None else labels[:n], s=9, alpha=0.9)
    if drawn:
        # Given by hand, as matplotlib leaves out names that begin with "_"; and those with a $ are no formulas.
        names = [str(each.get_label()) for each in drawn]
        for text in ax.legend(drawn, names, title="label", loc="center left", bbox_to_anchor=(1, 0.5)).get_texts():
            text.set_parse_math(False)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="first direction", ylabel="second direction")
    ax.set_title("posterior means, and one and two standard deviations of the prior (dashed)", fontsize=10)
    _save(figure, path)
