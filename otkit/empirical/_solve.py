r"""Transport solved and certified: the plan, the potentials, and two bounds of the exact cost.

`solve` takes points and `solve_matrix` costs. Without reg the problem is Kantorovich's linear programme; with it,

.. math:: \min_{P 1 = a,\; P^\top 1 = b} \sum_{ij} P_{ij} M_{ij} + \varepsilon\, \mathrm{KL}(P \mid a \otimes b) ,

whose value is given by the dual. Both come with the bounds of `otkit.empirical._bounds` for the exact cost, so that an
entropic or unfinished solution still says where the exact cost lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from otkit._arguments import Array, Restore, as_tensors, require_exponent, require_finite
from otkit._convergence import warn
from otkit._derivatives import attach, needs_gradient, refuse_gradient
from otkit._units import MODERATE
from otkit.empirical._costs import LARGEST_UNIT, MatrixCosts, costs_between, extremes
from otkit.empirical._coupling import Coupling, plans_of
from otkit.empirical._exact import envelope
from otkit.empirical._measures import in_parallel, matrix_and_weights, pair_of_measures, refuse_transforms
from otkit.empirical._simplex import DENSE, require_memory
from otkit.empirical._sinkhorn import MATRICES, require_method, solve_each
from otkit.empirical._solved import Options, Solved, entropic_transport, exact_transport, gradients_in_points
from otkit.empirical._transport import Transport


def solve(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    reg: float | None = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    method: str = "auto",
    progress: Any = None,
    validate: bool = True,
) -> Transport[Array]:
    r"""Solve transport between weighted point sets with costs :math:`|x_i - y_j|^p`, exactly or with entropy.

    Gradients of the value in x, y, a and b are the envelope gradients of `transport_cost` and `sinkhorn_cost`, in the
    weights up to a constant.

    Cost: as `transport_cost` or `sinkhorn_cost`, and a few passes over the nm costs for the bounds. Costs beyond 1 GiB
    (0.5 GiB with reg) are computed in blocks and not held.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the Euclidean distance, :math:`1 \le p < \infty`.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in the units of the cost; None for exact transport.
        tol: The L1 error of the marginals, relative to the mass, at which Sinkhorn's iterations stop.
        max_iter: The most pivots of a run of the simplex, or the most iterations of Sinkhorn's algorithm.
        method: The Sinkhorn method, by name, as in `sinkhorn_cost`.
        progress: What Sinkhorn's algorithm reports its progress to, as in `sinkhorn_cost`.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        What was found, with the broadcast batch shape (...): a `Transport`.

    Raises:
        ValueError: Empty sets, shapes that do not fit, NaN, negative weights, unequal sums, p < 1, p = inf or reg <= 0;
            a method that is not known, underflows, or needs costs that are not held; costs that float64 cannot hold, as
            they are too large or, between matched points and in units of the longest distance, underflow.
        MemoryError: So many points that exact transport would take more memory than it may, or plans of a batch that do
            not fit.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: Not converged; the bounds hold all the same.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
        >>> found = solve(x, x + np.array([3.0, 4.0]))
        >>> print(found.cost, found.converged, found.plan.tolist())
        25.0 True [[0.5, 0.0], [0.0, 0.5]]
        >>> rough = solve(x, x + np.array([3.0, 4.0]), reg=1.0)
        >>> print(f"{rough.value:.4f} {rough.lower_bound:.4f} {rough.upper_bound:.4f}")
        25.3799 25.0000 25.2689
    """
    p = require_exponent(p)
    options = Options(reg, tol, max_iter, method, progress).checked()
    reg = options.reg
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    measures = pair_of_measures(*tensors, p=p, eps=restore.eps, validate=validate)
    refuse_transforms()
    x_, y_, a_, b_ = measures
    batch, n, m = x_.shape[:-2], x_.shape[-2], y_.shape[-2]
    _require_room(batch, n, m, reg)
    if reg is not None:
        require_method(method, n, m)

    def one(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Solved:
        with torch.no_grad():
            costs, length = costs_between(x, y, p, matrices=1 if reg is None else MATRICES)
            if reg is None:
                exact = exact_transport(costs, a, b, _largest(length, p), 0.0, options)
                known = p <= MODERATE or (exact.coupling is not None and exact.coupling.certain)
                return exact._replace(length=length, converged=exact.converged and known)
            solved = entropic_transport(costs, a, b, reg, _largest(length, p), 0.0, options, keep_plan=bool(batch))
            if not any(needed):
                return solved
            return solved._replace(points=gradients_in_points((x, y, a, b), solved, reg, p, length, needed))

    needed = needs_gradient(x_), needs_gradient(y_)
    problems = measures.problems()
    solved = in_parallel(one, problems) if reg is None else solve_each(one, problems, method, progress)
    if reg is None:
        lengths = _stacked(x_, batch, [s.length for s in solved])
        value = envelope([s.coupling for s in solved if s.coupling], lengths, measures, p) * lengths**p
        return _transport(solved, value, measures, restore, options)
    value = _stacked(x_, batch, [s.value for s in solved])
    if needs_gradient(*measures):
        parts = [(a_, [s.f for s in solved]), (b_, [s.g for s in solved])]
        parts += [(t, [s.points[i] for s in solved]) for i, t in enumerate((x_, y_)) if needed[i]]
        value = _attached(value, parts, _NO_SECOND)
    return _transport(solved, value, measures, restore, options)


def _largest(length: float, p: float) -> float:
    """The largest cost, length^p, if float64 holds it."""
    try:
        return length**p
    except OverflowError:
        raise ValueError(
            f"p is {p:g}, and points of x and y are up to {length:.3g} apart, to the power p more than float64 holds; "
            "expected finite costs (divide x and y by that length, or take wasserstein, which needs no power)"
        ) from None


def solve_matrix(
    M: Array,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float | None = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    method: str = "auto",
    progress: Any = None,
    validate: bool = True,
) -> Transport[Array]:
    r"""Solve transport for given costs, exactly or with entropy.

    Gradients of the value: the plan in M, the potentials (up to a constant) in a and b. Any finite costs are legal,
    negative ones included.

    Cost: as `transport_cost` or `sinkhorn_cost` with as many points, and a few passes over M for the bounds.

    Args:
        M: The costs :math:`M_{ij}`, with shape (..., n, m).
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in the units of M; None for exact transport.
        tol: The L1 error of the marginals, relative to the mass, at which Sinkhorn's iterations stop.
        max_iter: The most pivots of a run of the simplex, or the most iterations of Sinkhorn's algorithm.
        method: The Sinkhorn method, by name, as in `sinkhorn_cost`.
        progress: What Sinkhorn's algorithm reports its progress to, as in `sinkhorn_cost`.
        validate: Whether to check values (finite costs, non-negative weights of equal sum).

    Returns:
        What was found, with the broadcast batch shape (...): a `Transport`.

    Raises:
        ValueError: Empty costs, shapes that do not fit, NaN, negative weights, unequal sums or reg <= 0; a method that
            is not known or underflows.
        MemoryError: Plans of a batch that do not fit.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: Not converged; the bounds hold all the same.

    Example:
        >>> import numpy as np
        >>> M = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> print(solve_matrix(M, np.array([0.75, 0.25]), np.array([0.5, 0.5])).cost)
        0.25
    """
    options = Options(reg, tol, max_iter, method, progress).checked()
    reg = options.reg
    tensors, restore = as_tensors(M=M, a=a, b=b, optional=("a", "b"))
    M_, a_, b_ = matrix_and_weights(*tensors, eps=restore.eps, validate=validate)
    batch, (n, m) = M_.shape[:-2], M_.shape[-2:]
    _require_room(batch, n, m, reg)
    problems = list(zip(*(t.reshape(-1, *t.shape[len(batch) :]) for t in (M_, a_, b_)), strict=True))

    def one(M: Tensor, a: Tensor, b: Tensor) -> Solved:
        with torch.no_grad():
            entries = M.numpy(force=True)
            low, high = extremes(entries)
            if validate and not (math.isfinite(low) and math.isfinite(high)):
                require_finite("M", tensors[0])
            largest = high - low or 1.0
            if not largest < math.inf:
                raise ValueError(f"M has costs from {low:g} to {high:g}; expected a difference that float64 holds")
            exponent = math.frexp(largest)[1]
            if exponent <= 1023:
                largest = math.ldexp(1.0, exponent)  # a power of two, which does not round
            entries = entries - low if low else entries
            ordinary = reg is None and 1 <= largest <= LARGEST_UNIT  # of which no copy is made
            costs = MatrixCosts(entries, largest) if ordinary else MatrixCosts(entries / largest)
            if reg is None:
                return exact_transport(costs, a, b, largest, low, options, keep_plan=not batch)
            return entropic_transport(costs, a, b, reg, largest, low, options, keep_plan=gradient or bool(batch))

    gradient = needs_gradient(M_)
    solved = in_parallel(one, problems) if reg is None else solve_each(one, problems, method, progress)
    if reg is None and gradient:
        values = [_linear(s.coupling, M) for s, (M, _, _) in zip(solved, problems, strict=True) if s.coupling]
        value = torch.stack(values).reshape(batch) if values else M_.sum((-2, -1))
    else:
        value = _stacked(M_, batch, [s.value for s in solved])
    parts: list[tuple[Tensor, Sequence[Any]]] = [(a_, [s.f for s in solved]), (b_, [s.g for s in solved])]
    if reg is not None and gradient:
        parts.append((M_, [s.plan for s in solved]))
    if needs_gradient(M_, a_, b_):
        value = _attached(value, parts, _NO_SECOND_EXACT if reg is None else _NO_SECOND)
    return _transport(solved, value, (M_, a_, b_), restore, options)


_NO_SECOND = "second derivatives of an entropic value are not implemented, and are refused rather than wrong"
_NO_SECOND_EXACT = (
    "second derivatives of the exact cost in the weights a and b are not defined: it is piecewise linear in them; "
    "detach the weights, or take a reg"
)
_NO_COST = (
    "the cost <P, M> of an entropic plan has no envelope gradient; differentiate value, which is the regularised cost"
)


def _linear(coupling: Coupling, M: Tensor) -> Tensor:
    rows, columns, mass = (torch.as_tensor(part, device=M.device) for part in coupling[:3])
    return mass.to(M) @ M[rows, columns]


def _stacked(like: Tensor, shape: Sequence[int], parts: Sequence[Any]) -> Tensor:
    """The results of a batch as one tensor of a shape."""
    return torch.as_tensor(np.array(parts)).to(like).reshape(tuple(shape))


def _attached(value: Tensor, parts: Sequence[tuple[Tensor, Sequence[Any]]], refuse: str) -> Tensor:
    inputs = tuple(t for t, _ in parts)
    return attach(value, inputs, tuple(_stacked(t, t.shape, part) for t, part in parts), refuse=refuse)


def _require_room(batch: Sequence[int], n: int, m: int, reg: float | None) -> None:
    """Refuse what memory cannot hold, before any work."""
    if reg is None:
        require_memory(n, m)
    size = 8 * n * m * math.prod(batch)
    if batch and size > PLAN_BYTES:
        raise MemoryError(
            f"dense plans for a batch of shape {tuple(batch)} with n = {n} and m = {m} take "
            f"{size / 2**30:.3g} GiB; expected at most {PLAN_BYTES / 2**30:.3g} GiB (solve the batch in parts, or "
            "one by one, where large plans are sparse; transport_cost and sinkhorn_cost hold no plans)"
        )


PLAN_BYTES = 2**31
"""How much memory the dense plans of a batch may take."""


def _transport(
    solved: list[Solved], value: Tensor, inputs: tuple[Tensor, ...], restore: Restore, options: Options
) -> Transport[Any]:
    a, b = inputs[-2:]
    batch, n, m = a.shape[:-1], a.shape[-1], b.shape[-1]
    failed = [s for s in solved if not s.converged]
    if failed:
        warn(_advice(failed, len(solved), options))

    def field(name: str) -> Any:
        return restore(_stacked(a, batch, [getattr(s, name) for s in solved]))

    cost = value
    if options.reg is not None:
        cost = refuse_gradient(_stacked(a, batch, [s.cost for s in solved]), inputs, _NO_COST)
    f = restore(_stacked(a, a.shape, [s.f for s in solved]))
    g = restore(_stacked(b, b.shape, [s.g for s in solved]))
    return Transport(
        cost=restore(cost),
        value=restore(value),
        plan=_plan(solved, a, n, m, restore, options),
        potentials=(f, g),
        lower_bound=field("lower"),
        upper_bound=field("upper"),
        marginal_error=field("error"),
        n_iter=max((s.n_iter for s in solved), default=0),
        converged=not failed,
    )


def _plan(solved: list[Solved], a: Tensor, n: int, m: int, restore: Restore, options: Options) -> Any:
    batch = a.shape[:-1]
    large = n * m > DENSE and not batch
    if options.reg is not None:
        return None if large else restore(_stacked(a, (*batch, n, m), [s.plan for s in solved]))
    couplings = [s.coupling for s in solved if s.coupling]
    if large:
        rows, columns, mass = couplings[0][:3]
        if not restore.to_torch:
            kind = np.float32 if restore.dtype == torch.float32 else np.float64
            return sparse.coo_array((mass.astype(kind), (rows, columns)), shape=(n, m))
        index = torch.as_tensor(np.stack([rows, columns]))
        values = torch.as_tensor(mass).to(restore.dtype)
        return torch.sparse_coo_tensor(index, values, (n, m), device=a.device, check_invariants=False).coalesce()
    if not batch and couplings[0].dense is not None:
        return restore(torch.as_tensor(couplings[0].dense).to(a.device))
    return restore(torch.as_tensor(plans_of(couplings, n, m)).to(a.device).reshape(*batch, n, m))


def _advice(failed: list[Solved], count: int, options: Options) -> str:
    worst = max(failed, key=lambda s: s.upper - s.lower)
    bounds = f"in {len(failed)} of {count} problems; the exact cost is certain only between {worst.lower:.6g} and "
    bounds += f"{worst.upper:.6g}"
    if options.reg is not None:
        error = max(s.error for s in failed)
        return (
            f"Sinkhorn's marginals are off by {error:.1e} in L1, above tol = {options.tol:.1e}, {bounds}; "
            "raise max_iter or tol, or take a larger reg"
        )
    if all(s.coupling is not None and s.coupling.optimal for s in failed):
        return f"the gap of the simplex's plan is not at rounding {bounds}; costs of closer magnitude may be needed"
    return f"the network simplex stopped at max_iter {bounds}; raise max_iter"
