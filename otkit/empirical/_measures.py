r"""Discrete measures: points with weights, their checks, and problems between them side by side.

A measure :math:`\alpha = \sum_i a_i \delta_{x_i}` is a set of points x (n, d) and weights a (n,), uniform by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack

from otkit._arguments import allowance, require_broadcast, require_finite, shape, working_precision
from otkit._units import farthest

Result = TypeVar("Result")

SMALLEST_MASS = 1e-290
"""What a mass and its inverse must exceed, so that weights can be normalised."""


class Measures(NamedTuple):
    """A batch of pairs of measures: points x (..., n, d) and y (..., m, d), weights a (..., n) and b (..., m)."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor

    def flat(self) -> Measures:
        """The same with one batch dimension: x (k, n, d), y (k, m, d), a (k, n), b (k, m)."""
        x, y, a, b = self
        (n, d), m = x.shape[-2:], y.shape[-2]
        return Measures(x.reshape(-1, n, d), y.reshape(-1, m, d), a.reshape(-1, n), b.reshape(-1, m))

    def problems(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The pairs of the batch, one by one: x (n, d), y (m, d), a (n,), b (m,)."""
        return list(zip(*self.flat(), strict=True))


def pair_of_measures(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    *,
    p: float = 2,
    eps: float,
    validate: bool,
    line: bool = False,
) -> Measures:
    """Check the arguments, fill in uniform weights, broadcast the batch dimensions, and go to float64.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        a: The weights of x, with shape (..., n).
        b: The weights of y, with shape (..., m).
        p: The exponent of the costs, which have to be finite at points of weight zero too.
        eps: The rounding of the weights as they came.
        validate: Whether to check values; that the masses are finite and positive is always checked.
        line: Whether points are numbers, x (..., n) and y (..., m).
    """
    refuse_transforms(TransformType.Vmap)
    given = {"x": x, "y": y}
    if line:
        x, y = x.unsqueeze(-1), y.unsqueeze(-1)
    for name, points in (("x", x), ("y", y)):
        if points.ndim < 2:
            raise ValueError(
                f"{name} has shape {shape(points)}; expected points (..., n, d) "
                f"(for n points in one dimension, {name}[:, None])"
            )
        if points.shape[-2] == 0 or points.shape[-1] == 0:
            raise ValueError(f"{name} has shape {shape(points)}; expected n >= 1 points in d >= 1 dimensions")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"y has shape {shape(y)}, points in {y.shape[-1]} dimensions; "
            f"expected {x.shape[-1]}, as x has shape {shape(x)}"
        )
    n, m, uniform = x.shape[-2], y.shape[-2], a is None and b is None
    a, b = _weights("a", a, n, "point of x", x), _weights("b", b, m, "point of y", y)
    batch = require_broadcast(x=x.shape[:-2], y=y.shape[:-2], a=a.shape[:-1], b=b.shape[:-1])
    if validate:
        for name, points in given.items():
            require_finite(name, points)
    if not uniform:
        a, b = _checked_weights(a, b, eps=eps, validate=validate)
    x, y = (working_precision(t).expand(*batch, *t.shape[-2:]) for t in (x, y))
    everywhere = uniform or (bool((a > 0).all()) and bool((b > 0).all()))
    a, b = a.expand(*batch, n), b.expand(*batch, m)
    return Measures(*((x, y) if everywhere else _within_reach(x, y, a, b, p)), a, b)


def refuse_transforms(*kinds: TransformType) -> None:
    """Raise inside a `torch.func` transform of these kinds, or of any, which cannot look into a solver."""
    active = [level.key() for level in get_interpreter_stack() or ()]
    if refused := [kind for kind in active if not kinds or kind in kinds]:
        raise NotImplementedError(
            f"torch.func.{refused[0].name.lower()} of this function of otkit.empirical is not implemented; batches are "
            "leading dimensions, and backward() or torch.autograd.grad give the gradients"
        )


def _within_reach(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The points, those of weight zero moved so near that float64 holds their powers beside those of the others.

    No value depends on where they are; their derivatives in the weight are those at a place on the way, subgradients.
    """
    points, held = torch.cat([x, y], -2), (torch.cat([a, b], -1) > 0).unsqueeze(-1)
    with torch.no_grad():
        low = torch.where(held, points, math.inf).amin(-2, keepdim=True)
        high = torch.where(held, points, -math.inf).amax(-2, keepdim=True)
        extent = (high - low).amax(-1, keepdim=True)
        # If all are in one place: its coordinates, and one at the origin.
        extent = torch.where(extent > 0, extent, high.abs().amax(-1, keepdim=True))
        reach = farthest(p) * torch.where(extent > 0, extent, 1.0)
    near = torch.where(held, points, points.clamp(low - reach, high + reach))
    return near[..., : x.shape[-2], :], near[..., x.shape[-2] :, :]


def matrix_and_weights(
    M: Tensor, a: Tensor | None, b: Tensor | None, *, eps: float, validate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for costs M (..., n, m) in place of points; their values are not checked."""
    refuse_transforms()
    if M.ndim < 2 or 0 in M.shape[-2:]:
        raise ValueError(f"M has shape {shape(M)}; expected costs (..., n, m) between n >= 1 and m >= 1 points")
    n, m = M.shape[-2:]
    a, b = _weights("a", a, n, "row of M", M), _weights("b", b, m, "column of M", M)
    batch = require_broadcast(M=M.shape[:-2], a=a.shape[:-1], b=b.shape[:-1])
    a, b = _checked_weights(a, b, eps=eps, validate=validate)
    return working_precision(M).expand(*batch, n, m), a.expand(*batch, n), b.expand(*batch, m)


def _weights(name: str, weights: Tensor | None, n: int, each: str, like: Tensor) -> Tensor:
    if weights is None:
        return like.new_full((n,), 1 / n, dtype=working_precision(like).dtype)
    if weights.ndim < 1 or weights.shape[-1] != n:
        raise ValueError(f"{name} has shape {shape(weights)}; expected (..., {n}), a weight for each {each}")
    return weights


def _checked_weights(a: Tensor, b: Tensor, *, eps: float, validate: bool) -> tuple[Tensor, Tensor]:
    if validate:
        require_finite("a", a)
        require_finite("b", b)
        _require_same_mass(a, b, eps)
    a, b = working_precision(a), working_precision(b)
    for name, weights in (("a", a), ("b", b)):
        mass = weights.sum(-1)
        held = (mass > SMALLEST_MASS) & (mass < 1 / SMALLEST_MASS)
        if not bool(held.all()):
            raise ValueError(f"{name} has a sum of {mass[~held][0].item():.6g}; expected a positive, finite mass")
    return a, b


def require_mass(name: str, weights: Tensor) -> None:
    """Raise unless no weight is negative, and their sum is not zero."""
    if bool((weights < 0).any()):
        raise ValueError(f"{name} must not be negative; got a smallest weight of {weights.min().item():.6g}")
    if bool((weights.sum(-1) <= 0).any()):
        raise ValueError(f"{name} has weights that are all zero; expected a positive sum")


def _require_same_mass(a: Tensor, b: Tensor, eps: float) -> None:
    # Infinite sums are left to the check that always runs.
    require_mass("a", a)
    require_mass("b", b)
    mass_a, mass_b = torch.broadcast_tensors(a.double().sum(-1), b.double().sum(-1))
    allowed = allowance(4 * (a.shape[-1] + b.shape[-1]), eps) * mass_a
    off = (mass_a - mass_b).abs()
    if not bool((off <= allowed).all()):
        worst = int((off - allowed).argmax())
        raise ValueError(
            f"a and b must have the same sum; got {mass_a.flatten()[worst].item():.12g} for a "
            f"and {mass_b.flatten()[worst].item():.12g} for b (normalise them: a / a.sum())"
        )


def in_parallel(solve: Callable[..., Result], problems: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Solve independent problems on the cores that torch may use; POT releases the GIL while it works."""
    workers = min(len(problems), torch.get_num_threads())
    if workers <= 1:
        return [solve(*problem) for problem in problems]
    step = max(1, len(problems) // (8 * workers))  # handing out small problems one by one costs as much as they do
    parts = [problems[low : low + step] for low in range(0, len(problems), step)]
    with ThreadPoolExecutor(workers) as pool:
        return [
            result for part in pool.map(lambda part: [solve(*problem) for problem in part], parts) for result in part
        ]
