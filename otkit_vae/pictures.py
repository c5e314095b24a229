"""Pictures of a trained model: reconstructions, samples, and the map of codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from otkit_vae.evaluation import encode
from otkit_vae.model import VAE
from otkit_vae.report._codes import map_of


def reconstructions(model: VAE, x: Tensor, path: Path, *, pairs: int = 20, per_row: int = 10) -> None:
    """Originals, and below each its reconstruction from the posterior mean."""
    x = x[:pairs]
    rows = math.ceil(len(x) / per_row)
    figure = Figure(figsize=(per_row * 0.8, rows * 2 * 0.85 + 0.5), layout="constrained")
    figure.suptitle("held-out originals, and reconstructions below them")
    axes = figure.subplots(2 * rows, min(per_row, len(x)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, (original, reconstruction) in enumerate(zip(x, model.reconstruct(x), strict=True)):
        row, column = divmod(i, per_row)
        _show(axes[2 * row, column], original)
        _show(axes[2 * row + 1, column], reconstruction)
    figure.savefig(path, dpi=120)


def samples(model: VAE, path: Path, *, n: int = 60, per_row: int = 10, seed: int = 0) -> None:
    """Means of p(x|z) for codes drawn from the prior."""
    drawn = model.sample(n, generator=torch.Generator().manual_seed(seed))
    grid(drawn, path, title="samples: decoded from z ~ p(z)", per_row=per_row)


def grid(x: Tensor, path: Path, *, title: str, per_row: int = 10) -> None:
    """Observations (n, *event), row after row."""
    rows = math.ceil(len(x) / per_row)
    figure = Figure(figsize=(per_row * 0.8, rows * 0.85 + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, per_row, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, observation in zip(axes.flat, x, strict=False):
        _show(ax, observation)
    figure.savefig(path, dpi=120)


def side_by_side(rows: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Observations (n, *event) of several sources, a row each under one title, the names at the left."""
    n = max(len(x) for x in rows.values())
    figure = Figure(figsize=(n * 0.8 + 2.2, len(rows) * 0.85 + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(rows), n, squeeze=False)
    for line, (name, x) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.axis("off")
        for ax, observation in zip(line, x, strict=False):
            _show(ax, observation)
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    figure.savefig(path, dpi=120)


@torch.no_grad()
def latent_map(model: VAE, x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Posterior means in their two main directions, coloured by label, over the prior in the same directions."""
    found = map_of(encode(model, x), model.prior)
    n, k = found.points.shape
    # Codes of one dimension are a line.
    points = np.column_stack([found.points, np.zeros((n, 2 - k))])
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    ax = figure.subplots()
    ellipses = [prior_ellipse(found.prior, radius) for radius in (1, 2)]
    for ellipse in ellipses:
        ax.plot(*ellipse.T, linestyle="--", color="grey", linewidth=1)
    if labels is None:
        ax.scatter(*points.T, s=9, alpha=0.8)
    else:
        shown = ax.scatter(*points.T, c=labels[:n].numpy(), s=9, cmap="tab10", alpha=0.9)
        ax.legend(*shown.legend_elements(), title="label", loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(title="posterior means, two main directions", xlabel="first direction", ylabel="second direction")
    x_low, y_low = ellipses[-1][ellipses[-1][:, 1].argmin()]
    said = "dashed: one and two standard deviations of the prior"
    ax.text(x_low, y_low, said, ha="center", va="top", color="grey", fontsize=8)
    figure.savefig(path, dpi=120)


def prior_ellipse(moments: tuple[np.ndarray, np.ndarray], radius: float) -> np.ndarray:
    """The points (200, 2) that are some standard deviations from the mean, by the mean and covariance in the plane.

    A mixture has those of all its parts together; of one dimension there are the two ends, on a line.
    """
    loc, cov = moments
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])[:, : len(loc)]
    points = loc + radius * circle @ np.linalg.cholesky(cov).T
    return np.column_stack([points, np.zeros((len(points), 2 - len(loc)))])


def _show(ax: Axes, x: Tensor) -> None:
    """One observation: a grey or colour image by its shape, and a curve otherwise."""
    array = x.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3):
        low, high = float(array.min()), float(array.max())
        # Data in [0, 1] keep their scale, so that a faint reconstruction looks faint.
        low, high = min(low, 0.0), max(high, 1.0)
        ax.imshow((array - low) / (high - low), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        ax.plot(array.reshape(-1), linewidth=1)
