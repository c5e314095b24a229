"""What kernel penalties share: squared distances, a kernel of distances, coordinates in which the prior is N(0, I)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from otkit._derivatives import attach
from otkit_vae.distributions import GaussianForm
from otkit_vae.precision import single


def squares_of_pairs(x: Tensor) -> Tensor:
    """The squared distances of the n(n - 1)/2 pairs of different points of x (n, d): what a U-statistic averages over.

    The derivative is 0 where two points coincide, as that of the square is.
    """
    return torch.pdist(single(x)).square().double()


BLOCK = 8192
"""How many distances a kernel is computed of at a time: what fits into a core's cache with one number a scale."""


def mean_multiquadric(distances: Tensor, size: Tensor, scales: Sequence[float]) -> Tensor:
    r"""The mean over distances r of the multiquadric :math:`k = \sum_c a / (a + r^2)`, :math:`a = c \cdot \text{size}`.

    Value and derivatives come of one pass over the distances, in blocks: with the history of each scale's matrix of
    the batch the time would go into memory. The kernel knows :math:`r^2 / \text{size}` only, so that

    .. math:: \frac{\partial k}{\partial r} = -2 r \sum_c \frac{a}{(a + r^2)^2}, \qquad
              \frac{\partial k}{\partial\, \text{size}} = -\frac{r}{2\, \text{size}} \frac{\partial k}{\partial r} .
    """
    n = distances.numel()
    with torch.no_grad():
        a = size * size.new_tensor(scales)
        slopes = torch.empty_like(distances)
        total, moment = size.new_zeros(2)
        for r, slope in zip(distances.flatten().split(BLOCK), slopes.view(-1).split(BLOCK), strict=True):
            squares = r.to(a.dtype).square()
            u = torch.add(squares, a[:, None]).reciprocal_()
            total += (a @ u).sum()
            in_square = a @ u.square_()
            moment += in_square @ squares
            slope.copy_(in_square.mul_(r).mul_(-2 / n))
    return attach(
        total / n,
        (distances, size),
        (slopes, moment / (n * size.detach())),
        refuse="second derivatives of the penalty mmd are not implemented",
    )


def whitened(z: Tensor, form: GaussianForm) -> Tensor:
    """The codes (N, d) in coordinates in which a Gaussian prior is N(0, I)."""
    if form.is_diagonal:
        return (z - form.loc) / form.scale
    return torch.linalg.solve_triangular(form.scale, (z - form.loc).mT, upper=False).mT
