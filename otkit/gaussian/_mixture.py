r"""The distance between Gaussian mixtures that moves component to component.

Between mixtures :math:`p = \sum_k \pi_k p_k` and :math:`q = \sum_l \rho_l q_l` the coupling of least cost is not in
general a Gaussian mixture. With the couplings restricted to Gaussian mixtures, the problem is a discrete one between
the components,

.. math:: \mathrm{MW}_2^2(p, q) = \min_{P \ge 0,\; P 1 = \pi,\; P^\top 1 = \rho} \sum_{kl} P_{kl}\, W_2^2(p_k, q_l) ,

a distance on mixtures, no smaller than :math:`W_2(p, q)`, equal to it for single Gaussians and for Diracs. Its plan P
and its potentials f, g are also the derivatives of the value (the envelope theorem, as in `otkit.empirical`),

.. math:: \frac{\partial\, \mathrm{MW}_2^2}{\partial W_2^2(p_k, q_l)} = P_{kl}, \qquad
          \frac{\partial\, \mathrm{MW}_2^2}{\partial \pi} = f + \text{constant} .

References:
    Delon & Desolneux, 2020. *A Wasserstein-type distance in the space of Gaussian mixture models*, proposition 4.
    Chen, Georgiou & Tannenbaum, 2019. *Optimal transport for Gaussian mixture models*.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import Array, Restore, as_tensors, checked_finite, require_broadcast, working_precision
from otkit._convergence import warn
from otkit._derivatives import attach, needs_gradient
from otkit._operators import checked, operator
from otkit._root import root
from otkit._units import farthest
from otkit.empirical._coupling import plans_of
from otkit.empirical._measures import in_parallel
from otkit.empirical._simplex import couple
from otkit.gaussian._checks import require_covariance, require_mixture, require_probabilities, require_same_dimension
from otkit.gaussian._lengths import ordinary, units
from otkit.gaussian._pairwise import SquaredDifferences, extents, squared_bures


def mixture_w2_squared(
    weights1: Array,
    locs1: Array,
    covs1: Array,
    weights2: Array,
    locs2: Array,
    covs2: Array,
    *,
    validate: bool = True,
) -> Array:
    r"""The squared distance :math:`\mathrm{MW}_2^2(p, q)` between Gaussian mixtures.

    Gradients are the envelope gradients above, through those of `w2_squared` in means and covariances, exact where the
    plan is unique and one of the one-sided derivatives elsewhere. In the weights they are one pair of optimal
    potentials, defined up to a constant; components of weight zero are legal.
    Second derivatives are those of `w2_squared`; in the weights they are refused.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(KL\,d^3)` for the costs between components (`pairwise_w2_squared`), and a network simplex on these
    K·L costs.

    Args:
        weights1: The weights :math:`\pi_k \ge 0`, with sum one, with shape (..., K).
        locs1: The means of the components :math:`p_k`, with shape (..., K, d).
        covs1: Their covariances, with shape (..., K, d, d).
        weights2: The weights :math:`\rho_l \ge 0`, with sum one, with shape (..., L).
        locs2: The means of the components :math:`q_l`, with shape (..., L, d).
        covs2: Their covariances, with shape (..., L, d, d).
        validate: Whether to check values (weights not negative and of sum one; finite means; covariances finite,
            symmetric, positive semidefinite).

    Returns:
        :math:`\mathrm{MW}_2^2 \ge 0` in squared units of the data, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, weights that are negative or do not sum to one, covariances that are not
            finite, symmetric, positive semidefinite.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The simplex did not finish; the value is then not the cost.

    Example:
        >>> import numpy as np
        >>> weights, locs, covs = np.array([0.5, 0.5]), np.array([[0.0], [4.0]]), np.ones((2, 1, 1))
        >>> print(mixture_w2_squared(weights, locs, covs, weights, locs + 1.0, 4 * covs))
        2.0
    """
    *problem, unit, restore = _discrete_problem(weights1, locs1, covs1, weights2, locs2, covs2, validate)
    return restore(_value(*problem) * unit * unit)


def mixture_w2(
    weights1: Array,
    locs1: Array,
    covs1: Array,
    weights2: Array,
    locs2: Array,
    covs2: Array,
    *,
    validate: bool = True,
) -> Array:
    r"""The distance :math:`\mathrm{MW}_2`, the root of `mixture_w2_squared`, in units of the data.

    Arguments, cost, warnings and errors are those of `mixture_w2_squared`. Where the value is 0 the gradient is
    defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> weights, locs, covs = np.array([0.25, 0.75]), np.array([[0.0, 0.0], [9.0, 0.0]]), np.stack([np.eye(2)] * 2)
        >>> print(mixture_w2(weights, locs, covs, weights, locs + np.array([3.0, 4.0]), covs))
        5.0
    """
    *problem, unit, restore = _discrete_problem(weights1, locs1, covs1, weights2, locs2, covs2, validate)
    return restore(root(_value(*problem), 2) * unit)


def mixture_plan(
    weights1: Array,
    locs1: Array,
    covs1: Array,
    weights2: Array,
    locs2: Array,
    covs2: Array,
    *,
    validate: bool = True,
) -> Array:
    r"""The optimal plan P between the components of two Gaussian mixtures, a constant to autograd.

    The optimal coupling is the mixture, with weights :math:`P_{kl}`, of the optimal couplings of :math:`p_k` and
    :math:`q_l`. Arguments, cost, warnings and errors are those of `mixture_w2_squared`.

    Returns:
        P, with shape (..., K, L), with at most K + L - 1 entries that are not zero.

    Example:
        >>> import numpy as np
        >>> locs, covs = np.array([[0.0], [4.0]]), np.ones((2, 1, 1))
        >>> mixture_plan(np.array([0.75, 0.25]), locs, covs, np.array([0.5, 0.5]), locs, covs)
        array([[0.5 , 0.25],
               [0.  , 0.25]])
    """
    with torch.no_grad():
        *problem, _, restore = _discrete_problem(weights1, locs1, covs1, weights2, locs2, covs2, validate)
        return restore(_solve(*problem)[0])


def _discrete_problem(
    weights1: Array, locs1: Array, covs1: Array, weights2: Array, locs2: Array, covs2: Array, validate: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Restore]:
    """The costs (..., K, L) between components, the weights (..., K) and (..., L), the costs' unit of length, and the
    way back.

    All are of one batch shape; the unit is one unless the costs would leave the range of float64.
    """
    (a, m1, C1, b, m2, C2), restore = as_tensors(
        weights1=weights1, locs1=locs1, covs1=covs1, weights2=weights2, locs2=locs2, covs2=covs2
    )
    require_mixture("1", a, m1, C1)
    require_mixture("2", b, m2, C2)
    require_same_dimension("covs", C1, C2)
    batch = require_broadcast(
        weights1=a.shape[:-1],
        locs1=m1.shape[:-2],
        covs1=C1.shape[:-3],
        weights2=b.shape[:-1],
        locs2=m2.shape[:-2],
        covs2=C2.shape[:-3],
    )
    if validate:
        a, m1, C1 = _checked_mixture("1", a, m1, C1, restore.eps)
        b, m2, C2 = _checked_mixture("2", b, m2, C2, restore.eps)
    a, m1, C1, b, m2, C2 = (working_precision(t) for t in (a, m1, C1, b, m2, C2))
    dispersions = squared_bures(C1, C2, eps=restore.eps, validate=False)
    held = (a > 0).unsqueeze(-1) & (b > 0).unsqueeze(-2)
    if ordinary(m1, m2):
        costs, unit = SquaredDifferences.at(m1, m2, None) + dispersions, m1.new_ones(())
    else:
        sizes = (torch.where(held, each, 0.0) for each in (extents(m1, m2), dispersions))
        largest = units(*(each.amax((-2, -1), keepdim=True) for each in sizes))
        costs = SquaredDifferences.at(m1, m2, largest) + dispersions / largest / largest
        unit = largest[..., 0, 0]
    # Components of weight zero are moved no farther away than float64 can hold costs beside those of the others.
    longest = torch.where(held, costs.detach(), 0.0).amax((-2, -1), keepdim=True)
    costs = costs.clamp(max=farthest(2) ** 2 * torch.where(longest > 0, longest, 1.0))
    return costs.expand(*batch, *costs.shape[-2:]), a.expand(*batch, -1), b.expand(*batch, -1), unit, restore


def _checked_mixture(
    which: str, weights: Tensor, locs: Tensor, covs: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    weights = checked(require_probabilities, f"weights{which}", weights, eps)
    return weights, checked_finite(f"locs{which}", locs), checked(require_covariance, f"covs{which}", covs, eps)


def _value(costs: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The value, with its envelope gradients: autograd's through the plan held, and the potentials."""
    P, f, g = _solve(costs.detach(), a.detach(), b.detach())
    value = (P * costs).sum((-2, -1))
    return attach(value, (a, b), (f, g), refuse=_NO_SECOND) if needs_gradient(a, b) else value


@operator(
    "mixture_plan", lambda costs, a, b: (costs.new_empty(costs.shape), a.new_empty(a.shape), b.new_empty(b.shape))
)
def _solve(costs: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The plans (..., K, L) and the potentials (..., K) and (..., L), without derivative."""
    batch, (K, L) = costs.shape[:-2], costs.shape[-2:]
    # The solver wants a largest cost of one.
    largest = costs.flatten(-2).amax(-1)
    largest = torch.where(largest > 0, largest, 1.0)
    relative = costs / largest[..., None, None]
    flat = [t.reshape(-1, *t.shape[len(batch) :]).numpy(force=True) for t in (a, b, relative)]
    couplings = in_parallel(couple, list(zip(*flat, strict=True)))
    if not all(coupling.optimal for coupling in couplings):
        warn("the network simplex stopped before a plan between the components was optimal; the value is not the cost")
    f, g = (np.array([getattr(coupling, name) for coupling in couplings]) for name in ("f", "g"))
    P, f, g = (torch.as_tensor(each).to(costs) for each in (plans_of(couplings, K, L), f, g))
    f, g = f.reshape(*batch, K) * largest[..., None], g.reshape(*batch, L) * largest[..., None]
    return P.reshape(*batch, K, L), f, g


_NO_SECOND = (
    "second derivatives of mixture_w2_squared in weights1 and weights2 are not defined: it is piecewise linear "
    "in them; detach the weights"
)
