r"""The optimal map between Gaussians.

Between Gaussians with a regular :math:`\Sigma_1` the map of least squared displacement is affine,
:math:`x \mapsto m_2 + T (x - m_1)`, and T is the one positive semidefinite solution of

.. math:: T\,\Sigma_1\,T = \Sigma_2, \qquad
          T = \Sigma_1^{-1/2} \bigl(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}\bigr)^{1/2} \Sigma_1^{-1/2} .

It is computed as :math:`T = G R F^{-1}` from factors and the polar factor R of :math:`G^\top F`, which forms no product
of covariances and so does not square their condition number. Differentiating the equation,

.. math:: dT\,\Sigma_1 T + T \Sigma_1\,dT = d\Sigma_2 - T\,d\Sigma_1\,T ,

whose adjoint is solved by a division in the basis of `_coupling.py`: with
:math:`\Sigma_1 T K + K T \Sigma_1 = \bar T`, the gradients are :math:`\bar\Sigma_2 = K` and
:math:`\bar\Sigma_1 = -T K T`.

References:
    Olkin & Pukelsheim, 1982. *The distance between two random vectors with given dispersion matrices*.
    Bhatia, Jain & Lim, 2019. *On the Bures–Wasserstein distance between positive definite matrices*.
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, remark 2.31.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, working_precision
from otkit._derivatives import Function
from otkit._operators import checked, value_check
from otkit.gaussian._checks import checked_values, require_gaussians
from otkit.gaussian._coupling import Coupling, couple, solve_product_lyapunov
from otkit.linalg._symmetric import symmetric


def transport_map(loc1: Array, cov1: Array, loc2: Array, cov2: Array, *, validate: bool = True) -> tuple[Array, Array]:
    r"""The optimal map :math:`x \mapsto T x + b` from :math:`N(m_1, \Sigma_1)` to :math:`N(m_2, \Sigma_2)`.

    .. math:: T = \Sigma_1^{-1/2} \bigl(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}\bigr)^{1/2} \Sigma_1^{-1/2},
              \qquad b = m_2 - T m_1 .

    Gradients are exact to any order at regular covariances, also at equal ones and at repeated eigenvalues.
    Degenerate cases: where :math:`\Sigma_1` is singular (to rounding in float64), there is such a map if and only if
    :math:`\Sigma_1 \Sigma_2` has the rank of :math:`\Sigma_2`; other pairs are refused. The points of the first
    Gaussian determine T only on the range of :math:`\Sigma_1`; of the positive semidefinite T that agree there,
    the smallest is given, :math:`\Sigma_2^{1/2} (\Sigma_2^{1/2} \Sigma_1 \Sigma_2^{1/2})^{+1/2} \Sigma_2^{1/2}`. There
    and at a singular :math:`\Sigma_2` the gradient is that at fixed rank; the derivative towards full rank is infinite,
    and second derivatives are refused.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(d^3)` a pair: two Cholesky factors (an eigendecomposition where one does not exist) and one SVD.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        cov1: The covariance :math:`\Sigma_1`, with shape (..., d, d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        cov2: The covariance :math:`\Sigma_2`, with shape (..., d, d).
        validate: Whether to check values (finite, symmetric, positive semidefinite).

    Returns:
        T, symmetric positive semidefinite, with shape (..., d, d), and the shift b, with shape (..., d).

    Raises:
        ValueError: Shapes that do not fit; covariances that are not finite, symmetric, positive semidefinite; a
            singular cov1 from which no map leads to cov2.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> T, shift = transport_map(np.ones(2), np.eye(2), np.zeros(2), np.diag([4.0, 9.0]))
        >>> print(T, shift, sep="\n")
        [[2. 0.]
         [0. 3.]]
        [-2. -3.]
    """
    (m1, C1, m2, C2), restore = as_tensors(loc1=loc1, cov1=cov1, loc2=loc2, cov2=cov2)
    require_gaussians(m1, C1, m2, C2)
    if validate:
        m1, C1, m2, C2 = checked_values(m1, C1, m2, C2, restore.eps)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    T, coupling = differentiable_map(*torch.broadcast_tensors(C1, C2))
    eps = C1.shape[-1] * torch.finfo(C1.dtype).eps
    T = T + 0 * checked(require_map, "cov2", _left_behind(coupling), eps)[..., None, None]
    shift = m2 - (T @ m1.unsqueeze(-1)).squeeze(-1)
    return restore(T.expand(*shift.shape, -1)), restore(shift)


def differentiable_map(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, Coupling]:
    """T, with its derivatives, and the coupling that it comes from, without derivatives."""
    T, *coupling = _Map.at(cov1, cov2)
    return T, Coupling(*coupling)


def only_first(gradient: Tensor, coupling: Coupling, what: str) -> Tensor:
    """A gradient that must not be differentiated again where a covariance is singular."""
    if not torch.is_grad_enabled():
        return gradient
    return _OnlyFirst.at(gradient, coupling.null1 + coupling.null2, what)


class _Map(Function):
    r"""(Σ1, Σ2) -> (T, *coupling), of which T carries the derivative.

    Where :math:`\Sigma_1` is singular, :math:`T = B W^{-1/2} B^\top` with :math:`W = B^\top \Sigma_1 B =
    \operatorname{diag}(s^2)`, pseudo-inverted. With :math:`C = B^\top \bar T B` its adjoints at fixed rank are

    .. math:: \bar\Sigma_1 = B Y B^\top, \quad Y_{ij} = \frac{-C_{ij}}{s_i s_j (s_i + s_j)}, \qquad
              \bar B = 2 (\bar T B \operatorname{diag}(1/s) + \Sigma_1 B Y) .
    """

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, ...]:
        coupling = couple(cov1, cov2)
        within = (coupling.B * _reciprocal(coupling.s).unsqueeze(-2)) @ coupling.B.mT
        T = torch.where(_singular(coupling.null1), within, coupling.B @ coupling.A_inverse)
        return symmetric(T), *coupling

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        cov1, T, *rest = ctx.saved_tensors
        grad, coupling = symmetric(grad_outputs[0]), Coupling(*rest)
        K = solve_product_lyapunov(cov1, T, coupling.A, coupling.A_inverse, coupling.quotients, grad)
        B, one_over_s = coupling.B, _reciprocal(coupling.s)
        Y = -(B.mT @ grad @ B) * coupling.quotients * one_over_s.unsqueeze(-1) * one_over_s.unsqueeze(-2)
        grad_B = 2 * (grad @ B * one_over_s.unsqueeze(-2) + cov1 @ B @ Y) @ coupling.B_inverse
        singular = _singular(coupling.null1)
        grad1 = torch.where(singular, symmetric(B @ Y @ B.mT), -symmetric(T @ K @ T))
        grad2 = torch.where(singular, 0.5 * symmetric(grad_B + coupling.null2 @ grad_B), K)
        return only_first(grad1, coupling, "transport_map"), only_first(grad2, coupling, "transport_map")


class _OnlyFirst(Function):
    @staticmethod
    def forward(gradient: Tensor, null: Tensor, what: str) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, null, ctx.what = inputs
        ctx.save_for_backward(null)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (null,) = ctx.saved_tensors
        # What passes is exactly 0; it is added so that the check has a use.
        return grad_outputs[0] + checked(require_no_null_space, ctx.what, null), None, None


@value_check
def require_no_null_space(what: str, null: Tensor, eps: float) -> None:
    """Refuse second derivatives at singular covariances, recognised by the projections onto their null spaces."""
    if bool(null.any()):
        raise RuntimeError(
            f"second derivatives of {what} need positive definite covariances; got a singular one, "
            "at which they are infinite"
        )


def _reciprocal(s: Tensor) -> Tensor:
    return torch.where(s > 0, 1 / s, 0.0)


def _singular(null: Tensor) -> Tensor:
    """Which matrices (..., 1, 1) have a null space, by the projections (..., d, d) onto it."""
    return null.abs().amax((-2, -1), keepdim=True) > 0


def _left_behind(coupling: Coupling) -> Tensor:
    """The part of the variance of cov2 (...) to which no map carries mass."""
    alone = coupling.B.square() * (coupling.s == 0).unsqueeze(-2) * _singular(coupling.null1)
    return alone.sum((-2, -1)) / coupling.B.square().sum((-2, -1)).clamp(min=torch.finfo(alone.dtype).tiny)


@value_check
def require_map(name: str, left_behind: Tensor, eps: float) -> None:
    """Raise if there is no map, by what `_left_behind` says."""
    if bool((left_behind > 64 * eps).any()):
        raise ValueError(
            f"{name} has variance that no map carries there from a singular cov1: a share of "
            f"{left_behind.max().item():.3g}; expected rank(cov1 {name}) = rank({name}) "
            "(a small multiple of the identity added to cov1 makes it regular)"
        )
