"""What kernel penalties share: squared distances, and averages over pairs of different points."""

from __future__ import annotations

import torch
from torch import Tensor

from otkit_vae.distributions import GaussianForm


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """The squared distances of points (n, d) and (m, d), with shape (n, m); smooth where points coincide.

    By products, in float64 and about a common centre: what rounding leaves of a distance is 1e-16 of the spread.
    """
    centre = x.detach().mean(0)
    x, y = x - centre, y - centre
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.mT
    # At a distance of 0 rounding may be negative; the derivative is that of the square, which is 0 there.
    return squares + (squares.detach().clamp(min=0) - squares.detach())


def mean_of_pairs(kernel: Tensor) -> Tensor:
    r"""The U-statistic :math:`\frac{1}{n(n-1)} \sum_{i \ne j} k_{ij}` of a matrix (n, n)."""
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))


def whitened(z: Tensor, form: GaussianForm) -> Tensor:
    """The codes (N, d) in coordinates in which a Gaussian prior is N(0, I)."""
    if form.is_diagonal:
        return (z - form.loc) / form.scale
    return torch.linalg.solve_triangular(form.scale, (z - form.loc).mT, upper=False).mT
