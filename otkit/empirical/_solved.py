r"""One transport problem solved, exactly or with entropy, with its bounds: the work behind `otkit.empirical.solve`.

The costs that come are relative, :math:`M = s\, C + m` with C between 0 and 1, so that no scale over- or underflows;
the results are in the units of M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import require_count, require_positive
from otkit.empirical._bounds import lower_bound, upper_bound, upper_bound_of_rows
from otkit.empirical._costs import Costs, PointCosts, over_blocks, row_transform
from otkit.empirical._coupling import Coupling
from otkit.empirical._simplex import DENSE, couple
from otkit.empirical._sinkhorn import (
    entropic_potentials,
    entropic_potentials_of_points,
    point_gradients,
    require_method,
    require_reg_above_rounding,
    soft_c_transform,
)

_LARGEST_EXPONENT = np.log(np.finfo(float).max) - 1


class Options(NamedTuple):
    """How to solve."""

    reg: float | None
    tol: float
    max_iter: int | None
    method: str
    progress: Any

    def checked(self) -> Options:
        require_method(self.method)
        reg = None if self.reg is None else require_positive("reg", self.reg)
        max_iter = None if self.max_iter is None else require_count("max_iter", self.max_iter)
        return self._replace(reg=reg, tol=require_positive("tol", self.tol), max_iter=max_iter)


class Solved(NamedTuple):
    """One problem solved, in the units that came; what does not apply is None."""

    f: np.ndarray
    g: np.ndarray
    value: float
    cost: float
    lower: float
    upper: float
    error: float
    n_iter: int
    converged: bool
    coupling: Coupling | None = None
    plan: np.ndarray | None = None
    points: tuple[np.ndarray | None, ...] = ()
    length: float = 1.0


def exact_transport(
    costs: Costs, a: Tensor, b: Tensor, scale: float, low: float, options: Options, *, keep_plan: bool = False
) -> Solved:
    """Exact transport with costs scale·C + low."""
    a_, b_ = a.numpy(force=True), b.numpy(force=True)
    mass, other = float(a_.sum()), float(b_.sum())
    if abs(other - mass) > 2e-16 * (len(a_) + len(b_)) * mass:
        # Between weights as they came, with fewer digits than float64's, there is no plan, and no cost to bound.
        b_ = b_ * (mass / other)
    found = couple(a_, b_, costs, options.max_iter, keep_plan=keep_plan)
    upper, error = upper_bound(costs, a_, b_, found)
    lower = lower_bound(costs, a_, b_, found.f) if found.gap is None else upper - found.gap
    # Bounds may cross by their rounding; the smaller of the two is a lower bound in any case.
    lower = min(lower, upper)
    rounding = 4 * np.finfo(float).eps * sum(costs.shape) * mass
    cost = scale * float(found.mass @ costs.at(found.rows, found.columns)) + low * float(found.mass.sum())
    return Solved(
        f=scale * found.f + low / 2,
        g=scale * found.g + low / 2,
        value=cost,
        cost=cost,
        lower=scale * lower + low * mass,
        upper=scale * upper + low * mass,
        error=error / mass,
        n_iter=found.n_iter,
        converged=found.optimal and upper - lower <= rounding,
        coupling=found,
    )


def entropic_transport(
    costs: Costs, a: Tensor, b: Tensor, reg: float, scale: float, low: float, options: Options, *, keep_plan: bool
) -> Solved:
    """Entropic transport with costs scale·C + low and a reg in their units."""
    given, reg = reg, reg / scale if scale > 0 else np.inf
    if reg == np.inf:
        raise ValueError(
            f"reg is {given:g} beside a largest cost of {scale:g}, and their quotient is more than float64 "
            "holds; expected larger costs, or a smaller reg"
        )
    mass = float(a.sum())
    weights = _normalised(a), _normalised(b)
    rows, columns = weights[0] > 0, weights[1] > 0
    whole = bool(rows.all() and columns.all())
    inner = costs if whole else costs.within(rows, columns)
    largest = max(over_blocks(inner, lambda _, block: float(block.max())))
    require_reg_above_rounding(given, scale * largest)
    a_, b_ = weights[0][rows], weights[1][columns]
    limits: dict[str, Any] = {"tol": options.tol, "progress": options.progress}
    if options.max_iter is not None:
        limits["max_iter"] = options.max_iter
    if isinstance(inner, PointCosts):
        # In the units of the costs; about a centre, as dividing rounds points.
        x, y = (((points - inner.x[0]) / inner.s).numpy(force=True) for points in (inner.x, inner.y))
        found = entropic_potentials_of_points(x, y, a_, b_, inner.p, reg, **limits)
    else:
        M = inner.block(0, inner.shape[0])
        found = entropic_potentials(M, a_, b_, reg, method=options.method, **limits)
    lower = lower_bound(inner, a_, b_, row_transform(inner, found.g))
    f, g = found.f, found.g
    if not whole:
        f, g = np.empty(len(rows)), np.empty(len(columns))
        f[rows], g[columns] = found.f, found.g
        if not rows.all():
            f[~rows] = _soft_transform(costs.within(~rows, columns), b_, found.g, reg)
        if not columns.all():
            g[~columns] = _soft_transform(costs.within(rows, ~columns).T, a_, found.f, reg)
    plan = _entropic_plan(weights[0], weights[1], f, g, reg)
    rounded = upper_bound_of_rows(costs, weights[0], weights[1], plan)
    dense = None
    if keep_plan or costs.shape[0] * costs.shape[1] <= DENSE:
        dense = mass * np.concatenate(over_blocks(costs, plan))
    centre = (found.f.mean() - found.g.mean()) / 2  # as in `couple`
    # One of f and g is a soft c-transform: the mass of the plan is one, and no other term is left of the dual.
    dual = float(f @ weights[0] + g @ weights[1])
    return Solved(
        f=scale * (f - centre) + low / 2,
        g=scale * (g + centre) + low / 2,
        value=mass * (scale * dual + low),
        cost=mass * (scale * rounded.cost + low * rounded.mass),
        lower=mass * (scale * min(lower, rounded.bound) + low),
        upper=mass * (scale * rounded.bound + low),
        error=rounded.error,
        n_iter=found.n_iter,
        converged=bool(found.converged) and rounded.error <= options.tol,
        plan=dense,
    )


def _entropic_plan(
    a: np.ndarray, b: np.ndarray, f: np.ndarray, g: np.ndarray, reg: float
) -> Callable[[int, np.ndarray], np.ndarray]:
    def plan(low: int, block: np.ndarray) -> np.ndarray:
        span = slice(low, low + len(block))
        P = np.add.outer(f[span], g)
        P -= block
        P /= reg
        # Only the weights bound it from above: between two points of weight 0 it may overflow, where the plan is 0.
        np.minimum(P, _LARGEST_EXPONENT, out=P)
        np.exp(P, out=P)
        P *= a[span, None]
        P *= b
        return P

    return plan


def _soft_transform(costs: Costs, b: np.ndarray, g: np.ndarray, reg: float) -> np.ndarray:
    """The entropic potential at the rows, from that of the columns and their weights."""
    return np.concatenate(over_blocks(costs, lambda low, block: soft_c_transform(g, b, block, reg)))


def gradients_in_points(
    measures: tuple[Tensor, Tensor, Tensor, Tensor],
    solved: Solved,
    reg: float,
    p: float,
    length: float,
    needed: Sequence[bool],
) -> tuple[np.ndarray | None, ...]:
    """The envelope gradients in x (n, d) and in y (m, d), None where one is not needed, found in units of a length."""
    x, y, a, b = measures
    scale, mass = length**p, a.sum()
    f, g = (torch.as_tensor(each / scale).to(x) for each in (solved.f, solved.g))
    points = (x - x[0]) / length, (y - x[0]) / length
    found = point_gradients(*points, a / mass, b / b.sum(), f, g, p, reg / scale, needed)
    return tuple(each if each is None else (mass * scale / length * each).numpy(force=True) for each in found)


def _normalised(weights: Tensor) -> np.ndarray:
    return (weights / weights.sum()).numpy(force=True)
