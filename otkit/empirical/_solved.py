r"""One transport problem solved, exactly or with entropy, with its bounds: the work behind `otkit.empirical.solve`.

The costs that come are relative, :math:`M = s\, C + m` with C between 0 and 1, so that no scale over- or underflows;
what goes out is in the units of M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from otkit._arguments import require_count, require_positive
from otkit.empirical._bounds import lower_bound, upper_bound, upper_bound_of_rows
from otkit.empirical._costs import Costs, PointCosts, over_blocks, row_transform
from otkit.empirical._coupling import Coupling
from otkit.empirical._simplex import DENSE, couple
from otkit.empirical._sinkhorn import (
    entropic_potentials,
    entropic_potentials_of_points,
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
    points: tuple[np.ndarray, ...] = ()
    length: float = 1.0


def exact_transport(
    costs: Costs, a: Tensor, b: Tensor, scale: float, low: float, options: Options, *, keep_plan: bool = False
) -> Solved:
    """Exact transport with costs scale·C + low."""
    a_, b_ = a.numpy(force=True), b.numpy(force=True)
    mass = float(a_.sum())
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
    costs: Costs,
    a: Tensor,
    b: Tensor,
    scale: float,
    low: float,
    options: Options,
    *,
    points: tuple[Tensor, Tensor, float] | None = None,
    keep_plan: bool = False,
) -> Solved:
    """Entropic transport with costs scale·C + low; the points are those of the relative costs."""
    largest = max(over_blocks(costs, lambda _, block: float(block.max())))
    require_reg_above_rounding(options.reg or 0.0, scale * largest)
    reg = (options.reg or 0.0) / scale if scale > 0 else np.inf
    if reg == np.inf:
        raise ValueError(
            f"reg is {options.reg:g} beside a largest cost of {scale:g}, and their quotient is more than float64 "
            "holds; expected larger costs, or a smaller reg"
        )
    mass = float(a.sum())
    weights = _normalised(a), _normalised(b)
    rows, columns = weights[0] > 0, weights[1] > 0
    whole = bool(rows.all() and columns.all())
    inner = costs if whole else costs.within(rows, columns)
    a_, b_ = weights[0][rows], weights[1][columns]
    limits: dict[str, Any] = {"tol": options.tol, "progress": options.progress}
    if options.max_iter is not None:
        limits["max_iter"] = options.max_iter
    if isinstance(inner, PointCosts) and points is not None:
        x, y = inner.x.numpy(force=True), inner.y.numpy(force=True)
        found = entropic_potentials_of_points(x, y, a_, b_, points[2], reg, **limits)
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
    centre = (f.mean() - g.mean()) / 2
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
        converged=bool(found.converged),
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
        # Weights alone bound it from above: between two points of weight 0 it may overflow, where the plan is 0.
        np.minimum(P, _LARGEST_EXPONENT, out=P)
        np.exp(P, out=P)
        P *= a[span, None]
        P *= b
        return P

    return plan


def _soft_transform(costs: Costs, b: np.ndarray, g: np.ndarray, reg: float) -> np.ndarray:
    """The entropic potential at the rows, from that of the columns and their weights."""
    return np.concatenate(over_blocks(costs, lambda low, block: soft_c_transform(g, b, block, reg)))


def point_gradients(
    costs: Costs,
    a: Tensor,
    b: Tensor,
    solved: Solved,
    options: Options,
    length: float,
    x: Tensor,
    y: Tensor,
    p: float,
) -> tuple[np.ndarray, np.ndarray]:
    r"""The envelope gradients :math:`\sum_j P_{ij}\, p\, |x_i - y_j|^{p-2} (x_i - y_j)`, and those in y, by blocks."""
    scale, mass = length**p, float(a.sum())
    reg = (options.reg or 0.0) / scale
    plan = _entropic_plan(_normalised(a), _normalised(b), solved.f / scale, solved.g / scale, reg)
    # W 1 x_i - W y_j subtracts positions: about their mean, that is harmless far from the origin.
    centre = 0.5 * (x.mean(0) + y.mean(0))
    x_, y_ = (x - centre).numpy(force=True), (y - centre).numpy(force=True)

    def of_block(low: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        W = plan(low, block)
        if p != 2:
            W *= np.power(block, 1 - 2 / p, out=np.zeros_like(block), where=block > 0)
        part = x_[low : low + len(block)]
        return W.sum(1)[:, None] * part - W @ y_, W.sum(0)[:, None] * y_ - W.T @ part

    grad_x, grad_y = zip(*over_blocks(costs, of_block), strict=True)
    factor = mass * p * scale / length
    return factor * np.concatenate(grad_x), factor * sum(grad_y, np.zeros_like(y_))


def _normalised(weights: Tensor) -> np.ndarray:
    return (weights / weights.sum()).numpy(force=True)
