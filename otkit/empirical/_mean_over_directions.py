"""The mean of a cost over directions, its standard error and its gradients, in pieces that memory holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from otkit._arguments import Restore
from otkit._derivatives import attach, needs_gradient
from otkit._root import root
from otkit._units import in_units

_LARGEST = 2**21
"""The most projected points at a time, 16 MB of them."""


class Estimate(NamedTuple):
    """A Monte-Carlo mean, or a function of one, and its standard error, which carries no gradient."""

    value: Any
    standard_error: Any


class Means(NamedTuple):
    """Means over directions (...), in units of a length to the power p, their standard errors, and the way back."""

    mean: Tensor
    error: Tensor
    length: Tensor
    p: float
    return_error: bool
    restore: Restore

    def cost(self) -> Any:
        """The mean, for the caller; an `Estimate` where the error is asked for."""
        value = self.restore(in_units(self.mean, self.length, self.p))
        return Estimate(value, self.restore(in_units(self.error, self.length, self.p))) if self.return_error else value

    def distance(self) -> Any:
        """Its root, likewise."""
        p, value = self.p, self.restore(root(self.mean, self.p) * self.length)
        if not self.return_error:
            return value
        mean = self.mean.detach()
        slope = torch.where(mean > 0, torch.where(mean > 0, mean, 1.0) ** (1 / p - 1) / p, 0.0)
        return Estimate(value, self.restore(self.error * slope * self.length))


def mean_over(
    along: Callable[..., Tensor],
    directions: Tensor,
    inputs: tuple[Tensor | None, ...],
    return_error: bool,
    block: int,
) -> tuple[Tensor, Tensor]:
    """The mean of ``along(directions, *inputs)``, piece by piece, with gradients in the inputs, and its standard error.

    The error is that of independent blocks of directions, and 0 where it is not asked for.
    """
    count = len(directions)
    blocks = count // block
    if return_error and blocks < 2 and directions.shape[-1] > 1:
        raise ValueError(f"{count} directions have no standard error; expected at least 2 (raise n_projections)")
    wide = sum(t.numel() // t.shape[-1] for t in inputs[:2] if t is not None and t.numel())
    pieces = directions.split(max(1, _LARGEST // max(1, wide)))
    present = [t for t in inputs if t is not None]
    if len(pieces) == 1 or not needs_gradient(*present):
        costs = torch.cat([along(piece, *inputs) for piece in pieces], -1)
        mean = costs.mean(-1)
    else:
        costs, mean = _mean_with_gradient(along, pieces, inputs)
    costs = costs.detach()
    error = torch.zeros_like(mean.detach())
    if return_error and blocks > 1 and costs.numel():  # at an empty batch torch would warn
        parts = costs.split(block, -1)
        error = torch.stack([part.mean(-1) for part in parts], -1).std(-1) / blocks**0.5
    return mean, error


def _mean_with_gradient(
    along: Callable[..., Tensor], pieces: tuple[Tensor, ...], inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor]:
    """Costs and their mean; each piece is differentiated at once and forgotten, so memory does not add up."""
    costs: list[Tensor] = []
    gradients: tuple[Tensor, ...] = ()
    for piece in pieces:
        cost, parts = value_and_gradients(lambda *leaves, piece=piece: along(piece, *leaves), inputs)
        costs.append(cost)
        gradients = tuple(g + part for g, part in zip(gradients, parts, strict=True)) if gradients else parts
    joined = torch.cat(costs, -1)
    gradients = tuple(gradient / joined.shape[-1] for gradient in gradients)
    return joined, attach(joined.mean(-1), requiring_gradient(inputs), gradients, refuse=_NO_SECOND)


def value_and_gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The value, and the gradients of its sum in the inputs that require one, all without history."""
    leaves = [None if t is None else t.detach().requires_grad_(t.requires_grad) for t in inputs]
    with torch.enable_grad():
        value = function(*leaves)
        gradients = torch.autograd.grad(value.sum(), requiring_gradient(tuple(leaves)))
    return value.detach(), gradients


def requiring_gradient(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    return tuple(t for t in inputs if t is not None and t.requires_grad)


_NO_SECOND = (
    "second derivatives of sliced transport are kept only while all projections fit in one piece of memory; take fewer "
    "points or directions"
)
