r"""The Sinkhorn divergence: the entropic cost without its bias.

.. math:: S_\varepsilon(\alpha, \beta) = \mathrm{OT}_\varepsilon(\alpha, \beta)
          - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta) .

Where :math:`e^{-|x - y|^p / \varepsilon}` is a positive definite kernel, as it is for p at most 2, this is
non-negative and 0 only between equal measures. It tends to :math:`W_p^p` as reg tends to 0, and to half an energy
distance as reg grows. A term :math:`\mathrm{OT}_\varepsilon(\alpha, \alpha)` depends on α twice, by symmetry in the
same way: half of it has the gradient of the cost in one of its two arguments, with the other held.

References:
    Feydy et al., 2019. *Interpolating between optimal transport and MMD using Sinkhorn divergences*, eq. (3)
    and theorem 1.
"""

from __future__ import annotations

from torch import Tensor

from otkit._arguments import Array, as_tensors
from otkit.empirical._measures import Measures, pair_of_measures
from otkit.empirical._sinkhorn._cost import Options, normalised, unit_cost, warn_unless_converged
from otkit.empirical._sinkhorn._potentials import Entropic
from otkit.empirical._sinkhorn._watch import Progress


def sinkhorn_divergence(
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
    r"""The Sinkhorn divergence :math:`S_\varepsilon(\alpha, \beta)`.

    Between equal measures, given by the same points and weights in the same order, value and gradients are exactly 0.
    For p at most 2, what tol and rounding leave below 0 is returned as 0; for larger p, values below 0 are possible.

    Gradients in x, y, a and b are the envelope gradients of `sinkhorn_cost`, and second derivatives are refused.
    For weights of a common sum m other than one, the value is m times that of the normalised weights.
    It is not free of the bias of small samples, only of that of reg.

    Cost: that of three `sinkhorn_cost`, of which the two of a measure with itself take one product an iteration, and a
    few dozen iterations.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the Euclidean distance, :math:`1 \le p < \infty`.
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in the units of the cost.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform by default.
        tol: The L1 error of both marginals together, relative to the mass, at which to stop.
        max_iter: The most iterations, for each of the three costs.
        method: As in `sinkhorn_cost`.
        progress: As in `sinkhorn_cost`.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        :math:`S_\varepsilon`, with the broadcast batch shape (...).

    Raises:
        ValueError: As `sinkhorn_cost`.
        TypeError: As `sinkhorn_cost`.

    Warns:
        ConvergenceWarning: The marginal error of one of the costs was above tol after max_iter iterations; each of the
            three is then a lower bound, but their difference is not.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0]])
        >>> print(sinkhorn_divergence(x, x, reg=0.5), f"{sinkhorn_divergence(x, x + 3.0, reg=0.5):.6f}")
        0.0 9.000000
    """
    options = Options.checked(p, reg, tol, max_iter, method, progress)
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    measures, mass = normalised(pair_of_measures(*tensors, p=options.p, eps=restore.eps, validate=validate))
    between, solved = unit_cost(measures, options)
    half_x, of_x = _half_with_itself(measures.x, measures.a, options)
    half_y, of_y = _half_with_itself(measures.y, measures.b, options)
    value = (between - half_x) - half_y
    warn_unless_converged(solved + of_x + of_y, options)
    if options.p <= 2:
        value = value + (value.clamp_min(0) - value).detach()
    return restore(mass * value)


def _half_with_itself(x: Tensor, a: Tensor, options: Options) -> tuple[Tensor, list[Entropic]]:
    value, solved = unit_cost(Measures(x, x.detach(), a, a.detach()), options)
    return value - 0.5 * value.detach(), solved
