r"""Conjugate gradients for linear systems whose unknown is a matrix, batched, each problem stopping on its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from otkit._convergence import warn
from otkit._units import power_of_two


def conjugate_gradients(operator: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """The solution X (..., d, d) of a batch of positive semidefinite systems, to 1e-13 of the right-hand sides."""
    unit = power_of_two(right.abs().amax((-2, -1), keepdim=True))  # so that no square over- or underflows
    right = right / unit
    X, residual, direction = torch.zeros_like(right), right, right
    square = residual.square().sum((-2, -1), keepdim=True)
    stop = 1e-26 * square
    for _ in range(10 * right.shape[-1] ** 2 + 100):
        active = square > stop
        if not bool(active.any()):
            return unit * X
        image = operator(direction)
        curvature = (direction * image).sum((-2, -1), keepdim=True)
        step = torch.where(active & (curvature > 0), square / curvature, 0.0)
        X, residual = X + step * direction, residual - step * image
        previous, square = square, residual.square().sum((-2, -1), keepdim=True)
        direction = residual + torch.where(active, square / previous, 0.0) * direction
    warn(
        "the linear system of a gradient was not solved to 1e-13, its residual is "
        f"{(square / (1e26 * stop)).sqrt().nan_to_num().max().item():.1e} of the right-hand side; a small multiple of "
        "the identity added to the covariances makes it better conditioned"
    )
    return unit * X
