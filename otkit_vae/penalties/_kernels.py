"""What kernel penalties share: squared distances, by differences, and coordinates in which the prior is N(0, I)."""

from __future__ import annotations

import torch
from torch import Tensor

from otkit_vae.distributions import GaussianForm


def squares_of_pairs(x: Tensor) -> Tensor:
    """The squared distances of the n(n - 1)/2 pairs of different points of x (n, d): what a U-statistic averages over.

    The derivative is 0 where two points coincide, as that of the square is.
    """
    return torch.pdist(x).square().double()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """The squared distances of points (n, d) and (m, d), with shape (n, m)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().double()


def whitened(z: Tensor, form: GaussianForm) -> Tensor:
    """The codes (N, d) in coordinates in which a Gaussian prior is N(0, I)."""
    if form.is_diagonal:
        return (z - form.loc) / form.scale
    return torch.linalg.solve_triangular(form.scale, (z - form.loc).mT, upper=False).mT
