r"""The optimal coupling of two Gaussians, as a pair of factors in which everything about it is diagonal.

Take factors :math:`\Sigma_1 = F F^\top`, :math:`\Sigma_2 = G G^\top` and :math:`G^\top F = U \operatorname{diag}(s)
V^\top`, and turn both: :math:`A = F V` and :math:`B = G U` satisfy

.. math:: A A^\top = \Sigma_1, \qquad B B^\top = \Sigma_2, \qquad A^\top B = \operatorname{diag}(s), \quad s \ge 0 ,

so that :math:`(A \xi, B \xi)`, for one standard normal :math:`\xi`, is optimal (Procrustes). The
map is :math:`T = B A^{-1}`, the cross-covariance :math:`A B^\top`, and A holds eigenvectors, :math:`\Sigma_1 T A = A
\operatorname{diag}(s)`, which turns the equation of every derivative of T into a division: the solution of

.. math:: \Sigma_1 T\,X + X\,T \Sigma_1 = C \qquad \text{is} \qquad
          X = A \Bigl( \frac{(A^{-1} C A^{-\top})_{ij}}{s_i + s_j} \Bigr) A^\top .

Nothing is divided by a difference of singular values, so repeated ones, as at equal Gaussians, are like any others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from otkit._derivatives import Function
from otkit._operators import operator
from otkit._units import power_of_two
from otkit.gaussian._bures.procrustes import factor
from otkit.linalg._symmetric import symmetric


class Coupling(NamedTuple):
    """Factors of an optimal coupling, all without derivative, with shapes (..., d, d) and (..., d) for s."""

    A: Tensor
    A_inverse: Tensor  # the pseudo-inverse where cov1 is singular
    B: Tensor
    B_inverse: Tensor
    s: Tensor
    quotients: Tensor  # 1 / (s_i + s_j), and 0 where that sum is zero to rounding
    null1: Tensor  # the projection onto the null space of cov1, exactly 0 where it is regular
    null2: Tensor


def couple(cov1: Tensor, cov2: Tensor) -> Coupling:
    """The optimal coupling of two centred Gaussians, with singular covariances allowed. Cost: O(d³), one SVD."""
    return Coupling(*_couple(cov1, cov2))


def _shapes(cov1: Tensor, cov2: Tensor) -> list[Tensor]:
    return [cov1.new_empty(cov1.shape[:-1] if name == "s" else cov1.shape) for name in Coupling._fields]


@operator("couple", _shapes)
def _couple(cov1: Tensor, cov2: Tensor) -> list[Tensor]:
    F, F_inverse, null1 = factor("cov1", cov1)
    G, G_inverse, null2 = factor("cov2", cov2)
    U, s, Vh = torch.linalg.svd(G.mT @ F)
    size = F.square().sum((-2, -1)).sqrt() * G.square().sum((-2, -1)).sqrt()
    zero = s.shape[-1] * torch.finfo(s.dtype).eps * size
    s = torch.where(s > zero.unsqueeze(-1), s, 0.0)
    return [F @ Vh.mT, Vh @ F_inverse, G @ U, U.mT @ G_inverse, s, reciprocal_sums(s), null1, null2]


def reciprocal_sums(s: Tensor) -> Tensor:
    """1 / (s_i + s_j), with 1/0 = 0, for s (..., d)."""
    sums = s.unsqueeze(-1) + s.unsqueeze(-2)
    return torch.where(sums > 0, 1 / sums, 0.0)


def solve_product_lyapunov(P: Tensor, Q: Tensor, A: Tensor, A_inverse: Tensor, quotients: Tensor, C: Tensor) -> Tensor:
    r"""The symmetric solution X of :math:`P Q X + X Q P = C`, differentiable in P, Q and C to any order.

    Args:
        P: Symmetric positive definite matrices, with shape (..., d, d).
        Q: Likewise.
        A: Eigenvectors, :math:`P Q A = A \operatorname{diag}(s)`; an aid to the solution, without derivative.
        A_inverse: Their inverse, likewise.
        quotients: :math:`1 / (s_i + s_j)`, likewise.
        C: The right-hand side, of which the symmetric part counts.
    """
    return _ProductLyapunov.at(P, Q, A, A_inverse, quotients, symmetric(C))


class _ProductLyapunov(Function):
    r"""The adjoint equation, :math:`Q P Z + Z P Q = \bar X`, is the same with P and Q exchanged. With its solution,
    :math:`\bar C = Z`, :math:`\bar P = -(Z X Q + Q X Z)` and :math:`\bar Q = -(P Z X + X Z P)`.
    """

    @staticmethod
    def forward(P: Tensor, Q: Tensor, A: Tensor, A_inverse: Tensor, quotients: Tensor, C: Tensor) -> Tensor:
        # Any multiple of A serves as well; that of size one keeps products in the range of float64.
        unit = power_of_two(A.abs().amax((-2, -1), keepdim=True))
        A, A_inverse = A / unit, A_inverse * unit
        return symmetric(A @ ((A_inverse @ C @ A_inverse.mT) * quotients) @ A.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:5], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        P, Q, A, A_inverse, quotients, X = ctx.saved_tensors
        Z = solve_product_lyapunov(Q, P, A_inverse.mT, A.mT, quotients, grad_outputs[0])
        return -2 * symmetric(Z @ X @ Q), -2 * symmetric(P @ Z @ X), None, None, None, Z
