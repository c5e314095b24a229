r"""The exact transport cost between two measures, with envelope gradients.

For :math:`\alpha = \sum_i a_i \delta_{x_i}` and :math:`\beta = \sum_j b_j \delta_{y_j}`, Kantorovich's linear
programme and its dual are

.. math:: W_p^p(\alpha, \beta) = \min_{P \ge 0,\; P 1 = a,\; P^\top 1 = b} \sum_{ij} P_{ij} |x_i - y_j|^p
          = \max_{f_i + g_j \le |x_i - y_j|^p} \langle f, a \rangle + \langle g, b \rangle ,

and the network simplex solves both. At an optimum the derivative of the value is the derivative of the
objective with the optimal variables held (the envelope theorem): the plan in the costs, the potentials in the weights,

.. math:: \frac{\partial W_p^p}{\partial x_i} = \sum_j P_{ij}\, p\, |x_i - y_j|^{p-2} (x_i - y_j), \qquad
          \frac{\partial W_p^p}{\partial a} = f + \text{constant} .

The constant is free, as only changes of a that keep its sum have a meaning; here the potentials are centred so
that :math:`\langle f, 1 \rangle / n = \langle g, 1 \rangle / m` over the points of positive weight. The plan is sparse
(at most n + m - 1 entries), so the value is summed over its entries only and autograd through that sum is the envelope
gradient.

References:
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, eqs. (2.11), (2.20) and section 9.1.
    Bonneel et al., 2011. *Displacement interpolation using Lagrangian mass transport* (the solver in POT).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import Array, Restore, as_tensors, require_count, require_exponent
from otkit._convergence import warn
from otkit._derivatives import attach, needs_gradient
from otkit._root import root
from otkit._units import MODERATE, SMALLEST_POWER, in_units
from otkit.empirical._costs import GROUP_BYTES, Costs, costs_between, costs_of_batch
from otkit.empirical._coupling import Coupling
from otkit.empirical._measures import Measures, in_parallel, pair_of_measures, refuse_transforms
from otkit.empirical._quantile import relative_cost_1d
from otkit.empirical._simplex import couple, require_memory


def transport_cost(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    max_iter: int | None = None,
    validate: bool = True,
) -> Array:
    r"""The exact transport cost :math:`W_p^p(\alpha, \beta)` between weighted point sets.

    Gradients in x, y, a and b are the envelope gradients above. Where the plan, or the pair of potentials, is not
    unique the cost has a kink, and the gradient is one of many: in the weights that is so whenever some weights of x
    sum to the mass of some of y, as equal ones may. Where matched points coincide the convention is 0 for p other
    than 2. Second derivatives in x and y are those of the plan held, which is locally constant; in the weights they are
    refused. Points of weight zero are legal, however far away (beyond 1e72 times the extent of the others, or less
    where p > 2, they count as that far), and so are weights of any common sum, to which the value is proportional.

    Points far away from the others take no digits from them (`otkit.empirical._refined`).

    Cost: O(nm) memory and about O(n³) time at worst (near n² in practice); a batch is solved on all torch threads.
    Beyond nm = 2048², and from 700² on where few arcs of each point matter, as in many dimensions, the simplex runs on
    short lists of them (`otkit.empirical._columns`). Beyond 1 GiB costs are computed in blocks and not held, with
    O(n + m) memory: 8 kB for each point.
    In one dimension `transport_cost_1d` takes over, in O(n log n) time and O(n) memory; its potentials have their own
    constant, and second derivatives in the weights are defined.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the Euclidean distance, :math:`1 \le p < \infty`.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        max_iter: The most pivots of a run of the simplex; by default 1000·(n + m), and 10⁶ at least.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        :math:`W_p^p \ge 0`, with the broadcast batch shape (...), in units of the data to the power p.

    Raises:
        ValueError: Empty sets, shapes that do not fit, NaN, negative weights, unequal sums, p < 1 or p = inf; a p so
            large that costs of matched points, relative to the longest distance, underflow.
        MemoryError: So many points that the lists of arcs would take more memory than they may.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The simplex stopped at max_iter, and the value is not the cost; or costs differ so much in
            magnitude, as for a large p, that the plan found may not be optimal.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0]])
        >>> print(transport_cost(x, x + np.array([3.0, 4.0]), p=2))
        25.0
    """
    power, length, p, restore = _relative_cost(x, y, p, a, b, max_iter, validate)
    return restore(in_units(power, length, p))


def wasserstein(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    max_iter: int | None = None,
    validate: bool = True,
) -> Array:
    r"""The exact Wasserstein distance :math:`W_p = (W_p^p)^{1/p}`, in units of the data.

    Arguments, cost, warnings and errors are those of `transport_cost`. At identical measures the value is 0 and
    the gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0]])
        >>> print(wasserstein(x, x + 0.5, p=1), wasserstein(x, x[:1] + 2.0, p=1))
        0.5 1.5
    """
    power, length, p, restore = _relative_cost(x, y, p, a, b, max_iter, validate)
    return restore(root(power, p) * length)


def _relative_cost(
    x: Array, y: Array, p: float, a: Array | None, b: Array | None, max_iter: int | None, validate: bool
) -> tuple[Tensor, Tensor, float, Restore]:
    r"""The cost in units of a length s, :math:`W_p^p / s^p`, and s, without a derivative, both with the batch shape."""
    p, max_iter = require_exponent(p), max_iter if max_iter is None else require_count("max_iter", max_iter)
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    measures = pair_of_measures(*tensors, p=p, eps=restore.eps, validate=validate)
    if measures.x.shape[-1] == 1:
        return *relative_cost_1d(measures, p), p, restore
    refuse_transforms()
    batch = measures.x.shape[:-2]
    require_memory(measures.x.shape[-2], measures.y.shape[-2])
    solved = _solve(measures, p, max_iter)
    stopped = sum(not coupling.optimal for coupling, _ in solved)
    if stopped:
        warn(
            f"the network simplex stopped at max_iter in {stopped} of {len(solved)} problems, "
            "before a plan was optimal or even complete; the value is not the cost (raise max_iter)"
        )
    # (At a moderate p such costs are those of measures that are equal but for rounding, whose plan is known.)
    elif p > MODERATE and (uncertain := sum(not coupling.certain for coupling, _ in solved)):
        warn(
            f"p is {p:g}, and costs |x - y|^p are of such different magnitude that the plan is not known to be optimal "
            f"in {uncertain} of {len(solved)} problems; the value is no less than the cost (take a smaller p; solve "
            "gives bounds)"
        )
    lengths = torch.from_numpy(np.array([length for _, length in solved]).reshape(batch)).to(measures.x.device)
    return envelope([coupling for coupling, _ in solved], lengths, measures, p), lengths, p, restore


def _solve(measures: Measures, p: float, max_iter: int | None) -> list[tuple[Coupling, float]]:
    """The couplings of a batch and their units of length: small problems in groups, with the costs found at once."""
    x, y, a, b = (part.detach() for part in measures.flat())
    size = max(1, GROUP_BYTES // (8 * a.shape[-1] * b.shape[-1]))
    a_, b_ = a.numpy(force=True), b.numpy(force=True)

    def solve(at: int, costs: Costs, length: float) -> tuple[Coupling, float]:
        return couple(a_[at], b_[at], costs, max_iter), length

    if size == 1:
        return in_parallel(lambda at: solve(at, *costs_between(x[at], y[at], p)), [(at,) for at in range(len(x))])
    solved = []
    for low in range(0, len(x), size):
        costs = costs_of_batch(x[low : low + size], y[low : low + size], p)
        solved += in_parallel(solve, [(low + k, *each) for k, each in enumerate(costs)])
    return solved


def envelope(couplings: Sequence[Coupling], lengths: Tensor, measures: Measures, p: float) -> Tensor:
    """The relative values of a batch of couplings, with the envelope gradients attached.

    Args:
        couplings: One for each problem of the batch.
        lengths: The units of length, with the batch shape.
        measures: The problems.
        p: The exponent.
    """
    x, y, a, b = measures
    if not couplings:
        return x.sum((-2, -1)) + y.sum((-2, -1)) + a.sum(-1) + b.sum(-1)  # nothing, with a history
    n, m, d, count = a.shape[-1], b.shape[-1], x.shape[-1], len(couplings)
    rows, columns, mass = map(np.concatenate, list(zip(*couplings, strict=True))[:3])
    problem = np.arange(count).repeat([len(coupling.mass) for coupling in couplings])
    parts = problem, n * problem + rows, m * problem + columns, mass
    problem, rows, columns, mass = (torch.from_numpy(part).to(x.device) for part in parts)
    # Not by brackets, which take longer, in the backward pass as well.
    difference = x.reshape(-1, d).index_select(0, rows) - y.reshape(-1, d).index_select(0, columns)
    difference = difference / lengths.reshape(-1, 1).index_select(0, problem)
    if p == 2:
        costs = difference.square().sum(-1)
    else:
        # Powers of a norm have no derivative at 0, or none of second order: 0 is kept out of the graph.
        zero = (difference == 0).all(-1)
        distance = torch.linalg.vector_norm(difference + zero.unsqueeze(-1).to(difference), dim=-1)
        costs = torch.where(zero, 0 * distance, distance**p)
    value = x.new_zeros(count).index_add(0, problem, mass * costs).reshape(x.shape[:-2])
    if value.min().item() <= SMALLEST_POWER * a.sum().item():  # which problem it is, only then
        small = value <= SMALLEST_POWER * a.sum(-1)
        _require_no_underflow(difference.detach()[small.reshape(-1)[problem] & (mass > 0)], p)
    if needs_gradient(a, b):
        f, g = (np.stack([getattr(coupling, name) for coupling in couplings]) for name in ("f", "g"))
        f, g = torch.as_tensor(f).to(a).reshape(a.shape), torch.as_tensor(g).to(b).reshape(b.shape)
        value = attach(value, (a, b), (f, g), refuse=_NO_SECOND)
    return value


def _require_no_underflow(difference: Tensor, p: float) -> None:
    """Raise unless matched points, (k, d) apart in units of the longest distance, all coincide: costs are lost in 0."""
    # By the largest coordinate, as squares underflow too.
    matched = float(difference.abs().max()) if len(difference) else 0.0
    if matched > 0:
        raise ValueError(
            f"p is {p:g}, and costs underflow: the farthest points that were matched are {matched:.3g} of the longest "
            f"distance apart, and {matched:.3g}^{p:g} is lost in 0, so that no plan is known to be optimal; expected "
            f"more than {SMALLEST_POWER:g} (take a smaller p, or leave out points that are far from all others)"
        )


_NO_SECOND = (
    "second derivatives of transport_cost in the weights a and b are not defined: the cost is piecewise linear "
    "in them; detach the weights, or take sinkhorn_cost"
)
