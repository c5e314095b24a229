r"""The Lyapunov equation :math:`S X + X S = C`, the derivative of every matrix function here, and the pseudo-inverse.

Both take an eigendecomposition that the caller has already, and carry their own derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import allowance
from otkit._derivatives import Function
from otkit.linalg._symmetric import symmetric


def solve_lyapunov(S: Tensor, s: Tensor, V: Tensor, C: Tensor, *, zero: float) -> Tensor:
    r"""The solution X of :math:`S X + X S = C` for positive semidefinite S, differentiable in S and C to any order.

    .. math:: X = V \Bigl( \frac{(V^\top C V)_{ij}}{s_i + s_j} \Bigr) V^\top ,
              \qquad S = V \operatorname{diag}(s) V^\top .

    Degenerate case: where :math:`s_i + s_j` is zero to rounding the quotient is taken as 0 (the pseudo-inverse).

    Args:
        S: Symmetric positive semidefinite matrices, with shape (..., d, d); they carry the dependence on the input.
        s: Their eigenvalues, with shape (..., d), in ascending order; an aid to the solution, without derivative.
        V: Their eigenvectors, with shape (..., d, d), likewise.
        C: The right-hand side, with shape (..., d, d), symmetric or not.
        zero: What counts as zero to rounding, relative to the largest eigenvalue.

    Returns:
        X, with shape (..., d, d), symmetric (skew-symmetric) where C is.
    """
    return _Lyapunov.at(S, s, V, C, zero)


def rounding(s: Tensor, eps: float = 0.0) -> float:
    """What is zero to rounding in the singular values or eigenvalues of a matrix, relative to the largest.

    It is d roundings (`allowance`) of s itself, or of the dtype that came, if that was coarser.
    """
    return allowance(s.shape[-1], max(eps, torch.finfo(s.dtype).eps))


def pseudo_inverse(S: Tensor, s: Tensor, V: Tensor, *, zero: float) -> Tensor:
    """The pseudo-inverse of S, for the arguments of `solve_lyapunov`, differentiable to any order at fixed rank."""
    return _PseudoInverse.at(S, s, V, zero)


class _Lyapunov(Function):
    r"""With :math:`Y` the solution for the incoming gradient, the adjoints are :math:`\bar C = Y` and
    :math:`\bar S = -(Y X^\top + X^\top Y)`, symmetrised.
    """

    @staticmethod
    def forward(S: Tensor, s: Tensor, V: Tensor, C: Tensor, zero: float) -> Tensor:
        sums = s.unsqueeze(-1) + s.unsqueeze(-2)
        inverse = torch.where(sums > zero * s[..., -1:, None], 1 / sums, 0.0)
        return V @ ((V.mT @ C @ V) * inverse) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        S, s, V, _, ctx.zero = inputs
        ctx.save_for_backward(S, s, V, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, Tensor, None]:
        S, s, V, X = ctx.saved_tensors
        Y = _Lyapunov.at(S, s, V, grad_outputs[0], ctx.zero)
        return -symmetric(Y @ X.mT + X.mT @ Y), None, None, Y, None


class _PseudoInverse(Function):
    r"""(S, s, V) -> :math:`X = V \operatorname{diag}(1/s) V^\top`, with 1/0 = 0 and, at fixed rank,

    .. math:: dX = -X\,dS\,X + X^2\,dS\,N + N\,dS\,X^2, \qquad N = I - S X ,

    where N, the projection on the null space, is 0 at full rank; the last two terms turn the range.
    """

    @staticmethod
    def forward(S: Tensor, s: Tensor, V: Tensor, zero: float) -> Tensor:
        inverse = torch.where(s > zero * s[..., -1:], 1 / s, 0.0)
        return symmetric((V * inverse.unsqueeze(-2)) @ V.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (S, X), grad = ctx.saved_tensors, grad_outputs[0]
        N = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device) - S @ X
        return X @ X @ grad @ N + N.mT @ grad @ X @ X - X @ grad @ X, None, None, None
