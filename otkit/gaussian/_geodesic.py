r"""The geodesic between Gaussians, McCann's displacement interpolation.

If :math:`(X_0, X_1)` is an optimal coupling, the law of :math:`(1 - t) X_0 + t X_1` is at distance :math:`t W_2` from
the first and :math:`(1 - t) W_2` from the second. Between Gaussians it is a Gaussian, with

.. math:: m_t = (1 - t) m_1 + t\,m_2, \qquad
          \Sigma_t = (1 - t)^2 \Sigma_1 + t^2 \Sigma_2 + t (1 - t) (\Gamma + \Gamma^\top) ,

where :math:`\Gamma = F R^\top G^\top` is the cross-covariance of the coupling (:math:`\Sigma_1 T` where there is a map
T), :math:`\Sigma_1 = F F^\top`, :math:`\Sigma_2 = G G^\top` and R the polar factor of :math:`G^\top F`: equal to
:math:`((1 - t) I + t T)\,\Sigma_1\,((1 - t) I + t T)`, without an inverse and exact at both ends.

In the factors A, B of `_coupling.py` the polar factor is :math:`E = \operatorname{diag}(s > 0)`, and for the
differential :math:`dM = dB^\top A + B^\top dA` of :math:`B^\top A` that of the polar factor is
:math:`(dM - E\,dM^\top E)_{ij} / (s_i + s_j)`. A differential of a covariance lifts to one of its factor,
:math:`dA = (I - \tfrac12 P)\,d\Sigma_1\,A^{+\top}` with P the projection onto its range.

References:
    McCann, 1997. *A convexity principle for interacting gases*, example 1.7.
    Villani, 2009. *Optimal Transport: Old and New*, corollary 7.22.
    Bhatia, Jain & Lim, 2019. *On the Bures–Wasserstein distance between positive definite matrices*.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, require_broadcast, require_finite, working_precision
from otkit._derivatives import Function
from otkit._operators import checked, value_check
from otkit.gaussian._checks import checked_values, require_gaussians
from otkit.gaussian._coupling import Coupling, couple, solve_product_lyapunov
from otkit.gaussian._map import differentiable_map, only_first
from otkit.linalg._symmetric import symmetric


def geodesic(
    loc1: Array, cov1: Array, loc2: Array, cov2: Array, t: Array | float, *, validate: bool = True
) -> tuple[Array, Array]:
    r"""The Gaussian at time t on the geodesic from :math:`N(m_1, \Sigma_1)` to :math:`N(m_2, \Sigma_2)`.

    .. math:: m_t = (1 - t) m_1 + t\,m_2, \qquad
              \Sigma_t = ((1 - t) I + t T)\,\Sigma_1\,((1 - t) I + t T)

    with the optimal map T; at t = 0 and 1 the inputs themselves, and :math:`W_2(g_s, g_t) = |s - t|\,W_2(g_0, g_1)`.

    Gradients in all arguments, t included, are exact to any order at regular covariances. Degenerate cases: singular
    covariances, Diracs included, are legal and need no map; where their optimal coupling is not unique, the parts that
    it leaves open are taken as independent, which respects rotations and the exchange of the two. The gradient there is
    that at fixed rank, and second derivatives are refused.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(d^3)` a pair: two Cholesky factors (an eigendecomposition where one does not exist) and one SVD.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        cov1: The covariance :math:`\Sigma_1`, with shape (..., d, d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        cov2: The covariance :math:`\Sigma_2`, with shape (..., d, d).
        t: The time :math:`0 \le t \le 1`, a number or an array with shape (...).
        validate: Whether to check values (finite, symmetric, positive semidefinite, t in [0, 1]).

    Returns:
        :math:`m_t`, with shape (..., d), and :math:`\Sigma_t`, with shape (..., d, d), of the broadcast batch shape.

    Raises:
        ValueError: Shapes that do not fit; covariances that are not finite, symmetric, positive semidefinite; t
            outside [0, 1].
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> loc, cov = geodesic(np.zeros(1), np.eye(1), np.ones(1), 9 * np.eye(1), np.array([0.0, 0.5, 1.0]))
        >>> print(loc.ravel(), cov.ravel())
        [0.  0.5 1. ] [1. 4. 9.]
    """
    (m1, C1, m2, C2, time), restore = as_tensors(loc1=loc1, cov1=cov1, loc2=loc2, cov2=cov2, t=t)
    require_gaussians(m1, C1, m2, C2)
    if validate:
        m1, C1, m2, C2 = checked_values(m1, C1, m2, C2, restore.eps)
    batch = require_broadcast(
        loc1=m1.shape[:-1], cov1=C1.shape[:-2], loc2=m2.shape[:-1], cov2=C2.shape[:-2], t=time.shape
    )
    if validate:
        time = checked(require_time, "t", time)
    m1, C1, m2, C2, time = (working_precision(each) for each in (m1, C1, m2, C2, time))
    cross = _CrossCovariance.at(*torch.broadcast_tensors(C1, C2))[0]
    t1 = time.unsqueeze(-1)
    loc = (1 - t1) * m1 + t1 * m2
    t2 = t1.unsqueeze(-1)
    cov = (1 - t2).square() * C1 + t2.square() * C2 + 2 * t2 * (1 - t2) * symmetric(cross)
    return restore(loc.expand(*batch, -1)), restore(cov.expand(*batch, -1, -1))


@value_check
def require_time(name: str, time: Tensor, eps: float) -> None:
    """Raise if a time is not in [0, 1]."""
    require_finite(name, time)
    outside = (time < 0) | (time > 1)
    if bool(outside.any()):
        raise ValueError(f"{name} must lie in [0, 1], between the two Gaussians; got {time[outside][0].item():.6g}")


class _CrossCovariance(Function):
    r"""(Σ1, Σ2) -> (Γ, *coupling), of which :math:`\Gamma = A E B^\top` carries the derivative."""

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, ...]:
        coupling = couple(cov1, cov2)
        return (coupling.A * (coupling.s > 0).unsqueeze(-2)) @ coupling.B.mT, *coupling

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        cov1, cov2, *rest = ctx.saved_tensors
        grad, coupling = grad_outputs[0], Coupling(*rest)
        A, B, E = coupling.A, coupling.B, (coupling.s > 0).to(grad.dtype)
        Z = (B.mT @ grad.mT @ A) * coupling.quotients
        Z = Z - E.unsqueeze(-1) * Z.mT * E.unsqueeze(-2)
        grad_A = (grad @ B) * E.unsqueeze(-2) + B @ Z
        grad_B = (grad.mT @ A) * E.unsqueeze(-2) + A @ Z.mT
        # I - P/2 = (I + N)/2 with the projection N onto the null space.
        grad1 = symmetric(grad_A @ coupling.A_inverse + coupling.null1 @ grad_A @ coupling.A_inverse)
        grad2 = symmetric(grad_B @ coupling.B_inverse + coupling.null2 @ grad_B @ coupling.B_inverse)
        grad1, grad2 = 0.5 * grad1, 0.5 * grad2
        if not torch.is_grad_enabled():
            return grad1, grad2
        # Somebody may differentiate again: the same gradients, with the history of those of Γ = Σ1 T.
        T, _ = differentiable_map(cov1, cov2)
        K = solve_product_lyapunov(cov1, T, coupling.A, coupling.A_inverse, coupling.quotients, cov1 @ grad)
        regular = symmetric(grad @ T) - symmetric(T @ K @ T), K
        out = [first.detach() + (same - same.detach()) for first, same in zip((grad1, grad2), regular, strict=True)]
        return only_first(out[0], coupling, "geodesic"), only_first(out[1], coupling, "geodesic")
