r"""The entropically regularised transport cost, with envelope gradients.

.. math:: \mathrm{OT}_\varepsilon(\alpha, \beta) = \min_{P 1 = a,\; P^\top 1 = b} \sum_{ij} P_{ij} |x_i - y_j|^p
          + \varepsilon\, \mathrm{KL}(P \mid a \otimes b), \qquad
          \mathrm{KL}(P \mid Q) = \sum_{ij} P_{ij} \log \frac{P_{ij}}{Q_{ij}} - P_{ij} + Q_{ij} .

The dual is unconstrained; with :math:`M_{ij} = |x_i - y_j|^p`,

.. math:: D(f, g) = \langle f, a \rangle + \langle g, b \rangle
          - \varepsilon \sum_{ij} a_i b_j \bigl(e^{(f_i + g_j - M_{ij}) / \varepsilon} - 1\bigr) ,

and maximising in f for fixed g is the soft c-transform

.. math:: f_i = -\varepsilon \log \sum_j b_j e^{(g_j - M_{ij}) / \varepsilon} ,

after which the last term is 0 and every row of the plan :math:`P_{ij} = a_i b_j e^{(f_i + g_j - M_{ij})/\varepsilon}`
sums to :math:`a_i`. The value returned is :math:`D(f, g)` there: with the relative entropy to :math:`a \otimes b` its
gradient in the weights is f and g (envelope theorem), and in the points it is that of :math:`\langle P, M \rangle`
with P held:

.. math:: \frac{\partial\, \mathrm{OT}_\varepsilon}{\partial x_i}
          = \sum_j P_{ij}\, p\, |x_i - y_j|^{p - 2} (x_i - y_j) .

References:
    Cuturi, 2013. *Sinkhorn distances: lightspeed computation of optimal transport*, eq. (2).
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, eqs. (4.2), (4.30) and proposition 4.6.
    Feydy et al., 2019. *Interpolating between optimal transport and MMD using Sinkhorn divergences*, eq. (1) and
    section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, require_count, require_exponent, require_positive
from otkit._convergence import warn
from otkit._derivatives import refuse_second
from otkit.empirical._costs import are_held, cost_matrix
from otkit.empirical._measures import Measures, pair_of_measures, refuse_transforms
from otkit.empirical._sinkhorn._batch import solve_each
from otkit.empirical._sinkhorn._points import entropic_potentials_of_points
from otkit.empirical._sinkhorn._potentials import MATRICES, Entropic, entropic_potentials, require_method
from otkit.empirical._sinkhorn._watch import Progress

_TILE = 2**18
"""The most entries of a plan that are held at a time in the backward pass: 2 MB, about what a core's cache holds."""


def sinkhorn_cost(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    reg: float,
    a: Array | None = None,
    b: Array | None = None,
    tol: float = 1e-6,
    max_iter: int = 10_000,
    method: str = "auto",
    progress: Progress = None,
    validate: bool = True,
) -> Array:
    r"""The regularised cost :math:`\mathrm{OT}_\varepsilon(\alpha, \beta)`, its entropy term included.

    This is neither :math:`\langle P, M\rangle` alone nor a distance: between equal measures it is not 0 (that is
    `sinkhorn_divergence`). It decreases to the exact `transport_cost` as reg does.

    Gradients in x, y, a and b are the envelope gradients above, exact up to the marginal error; in the weights up to a
    constant. Second derivatives are refused.
    For weights of a common sum m other than one, the value is m times that of the normalised weights.

    Cost: O(nm) memory, two matrices of n x m, and from some twenty products with one of them at reg = 0.1 to some
    thousand at reg = 10⁻⁴ of the mean cost; beyond n·m = 2²⁶ (0.5 GB a matrix), O(n + m) memory, the entries
    being computed anew for each product. The problems of a batch are solved on all torch threads.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the Euclidean distance, :math:`1 \le p < \infty`.
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in the units of the cost.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform by default.
        tol: The L1 error of both marginals together, relative to the mass, at which to stop.
        max_iter: The most iterations, each of a product with the kernel and one with its transpose.
        method: "auto", Newton's method along a path of decreasing regularisations, or one of POT's solvers by its name:
            "sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling", "greenkhorn".
        progress: True for a line on the screen, or a function that is called with the iteration and the marginal error.
            Whoever watches may stop: Ctrl-C then ends the iterations and gives the best result so far (in a batch, as
            its problems are then solved one after the other, those of one problem). Without, it raises as anywhere.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        :math:`\mathrm{OT}_\varepsilon`, with the broadcast batch shape (...).

    Raises:
        ValueError: Empty sets, shapes that do not fit, NaN, negative weights, unequal sums, p < 1, reg <= 0 or lost
            in the rounding of the costs, a method that is not known or underflows.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The marginal error was above tol after max_iter iterations, or at Ctrl-C with progress; the
            value is then a lower bound, up to rounding: the dual value that was reached.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
        >>> print(f"{sinkhorn_cost(x, y, reg=0.01):.4f}")  # 0.5, and 0.01 log 2 of entropy
        0.5069
    """
    options = Options.checked(p, reg, tol, max_iter, method, progress)
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    measures = pair_of_measures(*tensors, p=options.p, eps=restore.eps, validate=validate)
    measures, mass = normalised(measures)
    value, solved = unit_cost(measures, options)
    warn_unless_converged(solved, options)
    return restore(mass * value)


class Options(NamedTuple):
    """What is solved, and how."""

    p: float
    reg: float
    tol: float
    max_iter: int
    method: str
    progress: Progress

    @classmethod
    def checked(cls, p: float, reg: float, tol: float, max_iter: int, method: str, progress: Progress) -> Options:
        """The options, if they are legal."""
        require_method(method)
        p, reg, tol = require_exponent(p), require_positive("reg", reg), require_positive("tol", tol)
        return cls(p, reg, tol, require_count("max_iter", max_iter), method, progress)


def normalised(measures: Measures) -> tuple[Measures, Tensor]:
    """The measures with their masses made one, and the mass (...) that they had."""
    x, y, a, b = measures
    mass = a.sum(-1, keepdim=True)
    return Measures(x, y, a / mass, b / b.sum(-1, keepdim=True)), mass.squeeze(-1)


def unit_cost(measures: Measures, options: Options) -> tuple[Tensor, list[Entropic]]:
    """The cost (...) between measures of mass one, and what was solved."""
    refuse_transforms()
    solved: list[Entropic] = []
    value: Any = _EntropicCost.apply(*measures, options, solved)
    return value, solved


def warn_unless_converged(solved: list[Entropic], options: Options) -> None:
    """Say in how many problems, and by how much, the tolerance was missed."""
    missed = [each for each in solved if not each.converged]
    if missed:
        warn(
            f"Sinkhorn's marginals are off by {max(each.marginal_error for each in missed):.1e} in L1 after "
            f"{max(each.n_iter for each in missed)} iterations (max_iter = {options.max_iter}), where "
            f"tol = {options.tol:.1e}, in {len(missed)} of {len(solved)} problems; "
            "raise max_iter or tol, or take a larger reg"
        )


class _EntropicCost(torch.autograd.Function):
    """(x, y, a, b) -> the dual value, with envelope gradients by the plan and the potentials."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options, solved: list[Entropic]
    ) -> Tensor:
        problems, method, progress = Measures(x, y, a, b).problems(), options.method, options.progress
        solved += solve_each(lambda x, y, a, b: _solve(x, y, a, b, options), problems, method, progress)
        f = torch.as_tensor(np.array([each.f for each in solved])).to(a).reshape(a.shape)
        g = torch.as_tensor(np.array([each.g for each in solved])).to(b).reshape(b.shape)
        ctx.options = options
        ctx.save_for_backward(x, y, a, b, f, g)
        return (f * a).sum(-1) + (g * b).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, y, a, b, f, g = ctx.saved_tensors
        (grad,), inputs, p, reg = grad_outputs, (*grad_outputs, x, y, a, b), ctx.options.p, ctx.options.reg
        with torch.no_grad():
            mean_f, mean_g = (((w > 0) * u).sum(-1, True) / (w > 0).sum(-1, True) for u, w in ((f, a), (g, b)))
            shift = 0.5 * (mean_f - mean_g)
            in_points = point_gradients(x, y, a, b, f, g, p, reg, ctx.needs_input_grad[:2])
            gradients = (
                *(part if part is None else grad[..., None, None] * part for part in in_points),
                grad.unsqueeze(-1) * (f - shift),
                grad.unsqueeze(-1) * (g + shift),
            )
        return *(refuse_second(part, inputs, _NO_SECOND) for part in gradients), None, None


_NO_SECOND = "second derivatives of sinkhorn_cost are not implemented, and are refused rather than wrong"


def _solve(x: Tensor, y: Tensor, a: Tensor, b: Tensor, options: Options) -> Entropic:
    p, reg, tol, max_iter, method, progress = options
    # One and the same measure has one potential: what is 0 in a divergence is then exactly 0.
    symmetric = method == "auto" and torch.equal(x, y) and torch.equal(a, b)
    how: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "progress": progress, "symmetric": symmetric}
    require_method(method, len(x), len(y))
    if not are_held(len(x), len(y), MATRICES):
        return entropic_potentials_of_points(x, y, a, b, p, reg, **how)
    M = cost_matrix(x, y, p).numpy(force=True)
    return entropic_potentials(M, a.numpy(force=True), b.numpy(force=True), reg, method=method, **how)


def point_gradients(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, p: float, reg: float, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The envelope gradients in x (..., n, d) and in y (..., m, d), None where one is not needed, for a mass of one."""
    # W y_j - (W 1) x_i subtracts positions: about the centre of the masses, that is harmless far from the origin.
    mean_x, mean_y = ((w.unsqueeze(-2) @ t) for t, w in ((x, a), (y, b)))
    centre = 0.5 * (mean_x + mean_y)
    x, y = x - centre, y - centre
    if all(needed) and f.numel() * y.shape[-2] <= _TILE:
        weight = _weights(x, y, a, b, f, g, p, reg)
        return [_weighted_sum(weight, x, y, p), _weighted_sum(weight.mT.contiguous(), y, x, p)]
    sides = (x, y, a, b, f, g), (y, x, b, a, g, f)
    return [_by_tiles(*side, p, reg) if need else None for side, need in zip(sides, needed, strict=True)]


def _by_tiles(x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, p: float, reg: float) -> Tensor:
    rows = max(1, _TILE // max(1, f.shape[:-1].numel() * y.shape[-2]))
    tiles = zip(x.split(rows, -2), a.split(rows, -1), f.split(rows, -1), strict=True)
    return torch.cat([_weighted_sum(_weights(x, y, a, b, f, g, p, reg), x, y, p) for x, a, f in tiles], -2)


def _weights(x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, p: float, reg: float) -> Tensor:
    """The plan times |x_i - y_j|^(p - 2), with shape (..., n, m): symmetric to the bit where the problem is."""
    M = cost_matrix(x, y, p)
    exponent = (f.unsqueeze(-1) + g.unsqueeze(-2) - M) / reg
    # Only the weights bound it from above: between two points of weight 0 it may overflow, where the plan is 0.
    exponent.clamp_(max=math.log(torch.finfo(M.dtype).max) - 1)
    weight = exponent.exp_().mul_(a.unsqueeze(-1) * b.unsqueeze(-2))
    if p != 2:
        # ∂|v|^p = p |v|^(p-2) v, and 0 at v = 0.
        weight *= torch.where(M > 0, M ** (1 - 2 / p), 0 * M)
    return weight


def _weighted_sum(weight: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """The sum over j of p (x_i - y_j) times the weights (..., n, m), with shape (..., n, d)."""
    return p * (weight.sum(-1, keepdim=True) * x - weight @ y)
