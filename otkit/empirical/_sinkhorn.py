r"""Entropically regularised transport, by Sinkhorn's iterations in POT.

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
with P held.

References:
    Cuturi, 2013. *Sinkhorn distances: lightspeed computation of optimal transport*.
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, eqs. (4.2), (4.30) and proposition 4.6.
    Feydy et al., 2019. *Interpolating between optimal transport and MMD using Sinkhorn divergences*, section 2.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import ot
import torch
from scipy.special import logsumexp
from torch import Tensor

from otkit._arguments import Array, as_tensors, require_count, require_exponent, require_positive
from otkit._convergence import ConvergenceWarning
from otkit._derivatives import refuse_second
from otkit.empirical._measures import cost_matrix, in_parallel, on_support, pair_of_measures

_LARGEST_EXPONENT = 500.0
"""The kernel exp(-M/reg) is used as it is while its smallest entry is exp(-500), far from underflow at exp(-745)."""

_SMALLEST_EXPONENT = 1e-3
"""Below it four c-transforms converge, each contracting by the square, and POT's potentials are lost in rounding."""


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
    validate: bool = True,
) -> Array:
    r"""The regularised cost :math:`\mathrm{OT}_\varepsilon(\alpha, \beta)`, its entropy term included.

    This is neither :math:`\langle P, M\rangle` alone nor a distance: between equal measures it is not 0. It decreases
    to the exact `transport_cost` as reg does. POT's matrix–vector iterations run where the kernel does not underflow,
    its log-domain iterations elsewhere.

    Gradients in x, y, a and b are the envelope gradients above, exact up to the marginal error; in the weights up to a
    constant. Second derivatives are refused.
    For weights of a common sum m other than one, the value is m times that of the normalised weights.

    Cost: O(nm) memory and O(nm) an iteration, of which about max(M)/reg are needed.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the Euclidean distance, :math:`1 \le p < \infty`.
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in the units of the cost.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform by default.
        tol: The L1 error of the column marginals, relative to the mass, at which to stop.
        max_iter: The most iterations.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        :math:`\mathrm{OT}_\varepsilon`, with the broadcast batch shape (...).

    Raises:
        ValueError: Empty sets, shapes that do not fit, NaN, negative weights, unequal sums, p < 1, reg <= 0.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The marginal error was above tol after max_iter iterations.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
        >>> print(f"{sinkhorn_cost(x, y, reg=0.01):.4f}")  # 0.5, and 0.01 log 2 of entropy
        0.5069
    """
    p, reg, tol = require_exponent(p), require_positive("reg", reg), require_positive("tol", tol)
    max_iter = require_count("max_iter", max_iter)
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    x_, y_, a_, b_ = pair_of_measures(*tensors, eps=restore.eps, validate=validate)
    mass = a_.sum(-1, keepdim=True)
    value = _EntropicCost.apply(x_, y_, a_ / mass, b_ / b_.sum(-1, keepdim=True), p, reg, tol, max_iter)
    return restore(mass.squeeze(-1) * value)


class _EntropicCost(torch.autograd.Function):
    """(x, y, a, b) -> the dual value, with envelope gradients by the plan and the potentials."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float, reg: float, tol: float, max_iter: int
    ) -> Tensor:
        batch = x.shape[:-2]
        M = cost_matrix(x, y, p)
        largest = M.max().item() if M.numel() else 0.0
        if not 1e-14 * largest < reg:
            raise ValueError(
                f"reg is {reg:g} beside a largest cost |x - y|^p of {largest:.3g}; expected a reg that is not lost in "
                "its rounding (reg is absolute, in the units of the cost)"
            )
        problems = [
            tuple(part.numpy(force=True) for part in problem)
            for problem in zip(*(t.reshape(-1, *t.shape[len(batch) :]) for t in (a, b, M)), strict=True)
        ]
        solved = in_parallel(lambda a, b, M: potentials(a, b, M, reg, tol, max_iter), problems)
        error = max((s[2] for s in solved), default=0.0)
        # POT's last check can lie up to ten iterations back; what counts is the error now.
        if not error <= tol:
            warnings.warn(
                f"Sinkhorn's marginals are off by {error:.1e} in L1 after at most max_iter = {max_iter} iterations, "
                f"above tol = {tol:.1e}; raise max_iter or tol, or take a larger reg",
                ConvergenceWarning,
                stacklevel=4,
            )
        f = torch.as_tensor(np.array([s[0] for s in solved])).to(a).reshape(a.shape)
        g = torch.as_tensor(np.array([s[1] for s in solved])).to(b).reshape(b.shape)
        ctx.p, ctx.reg = p, reg
        ctx.save_for_backward(x, y, a, b, M, f, g)
        return (f * a).sum(-1) + (g * b).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, y, a, b, M, f, g = ctx.saved_tensors
        p, grad, inputs = ctx.p, grad_outputs[0], (grad_outputs[0], x, y, a, b)
        plan = a.unsqueeze(-1) * b.unsqueeze(-2) * torch.exp((f.unsqueeze(-1) + g.unsqueeze(-2) - M) / ctx.reg)
        # ∂|v|^p = p |v|^(p-2) v, and 0 at v = 0.
        weight = p * plan * (1 if p == 2 else torch.where(M > 0, M ** (1 - 2 / p), 0 * M))
        # W y_j - (W 1) x_i subtracts positions: about their mean, that is harmless far from the origin.
        centre = 0.5 * (x.mean(-2, keepdim=True) + y.mean(-2, keepdim=True))
        x, y, outer = x - centre, y - centre, grad[..., None, None]
        grad_x = outer * (weight.sum(-1, keepdim=True) * x - weight @ y)
        grad_y = outer * (weight.sum(-2).unsqueeze(-1) * y - weight.mT @ x)
        shift = 0.5 * (f.mean(-1, keepdim=True) - g.mean(-1, keepdim=True))
        grad_a, grad_b = grad.unsqueeze(-1) * (f - shift), grad.unsqueeze(-1) * (g + shift)
        gradients = (refuse_second(part, inputs, _NO_SECOND) for part in (grad_x, grad_y, grad_a, grad_b))
        return *gradients, None, None, None, None


_NO_SECOND = "second derivatives of sinkhorn_cost are not implemented, and are refused rather than wrong"


def potentials(
    a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The dual potentials f (n,) and g (m,) of one problem, f the soft c-transform of g, and the marginal error."""
    method = "sinkhorn" if M.max() <= _LARGEST_EXPONENT * reg else "sinkhorn_log"

    def iterate(a: np.ndarray, b: np.ndarray, M: np.ndarray) -> np.ndarray:
        if M.max() <= _SMALLEST_EXPONENT * reg:
            g = np.zeros(len(b))
            for _ in range(4):
                g = soft_c_transform(soft_c_transform(g, b, M, reg), a, M.T, reg)
            return g
        # POT stops on an L2 error: divided by sqrt(m) it bounds the L1 error.
        stop = tol / len(b) ** 0.5
        # POT also exponentiates the potentials, which may overflow and is not used here.
        with np.errstate(over="ignore", divide="ignore"):
            solved: Any = ot.sinkhorn(a, b, M, reg, method, max_iter, stop, log=True, warn=False)
            log: dict[str, np.ndarray] = solved[1]
            return reg * (log["log_v"] if "log_v" in log else np.log(log["v"])) - reg * np.log(b)

    g_support, rows, columns = on_support(iterate, a, b, M)  # the potential of the points with mass
    f = soft_c_transform(g_support, b[columns], M[:, columns], reg)
    g = soft_c_transform(f[rows], a[rows], M[rows].T, reg)
    # The plan of f and g_support has the column sums b exp((g_support - g) / reg).
    error = np.abs(b[columns] * np.expm1((g_support - g[columns]) / reg)).sum()
    g[columns] = g_support
    return f, g, float(error)


def soft_c_transform(potential: np.ndarray, weights: np.ndarray, M: np.ndarray, reg: float) -> np.ndarray:
    """The potential (n,) that maximises the dual beside one (m,) of positive weights (m,), for costs (n, m)."""
    exponents = (potential - M) / reg
    if np.abs(exponents).max() < 0.5:
        # The logarithm of nearly 1, without the digits of the 1.
        return -reg * np.log1p(np.expm1(exponents) @ weights)
    return -reg * np.asarray(logsumexp(np.log(weights) + exponents, axis=1))
