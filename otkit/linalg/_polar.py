r"""The polar decomposition :math:`M = R H`, with R orthogonal and H positive semidefinite, and its derivative.

R is the orthogonal matrix nearest to M. Differentiating :math:`M = R H` with :math:`dR = R\,\Omega`, :math:`\Omega`
skew-symmetric, gives

.. math:: H\,\Omega + \Omega\,H = R^\top dM - dM^\top R ,

a Lyapunov equation again: divisions by :math:`h_i + h_j`, sums of singular values, never by differences.

References:
    Higham, 2008. *Functions of Matrices: Theory and Computation*, chapter 8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, checked_finite, require_square, working_precision
from otkit._derivatives import Function
from otkit.linalg._lyapunov import pseudo_inverse, rounding, solve_lyapunov
from otkit.linalg._symmetric import symmetric


def polar(M: Array, *, validate: bool = True) -> tuple[Array, Array]:
    r"""The polar decomposition of square matrices.

    Gradient: the Lyapunov equation above, itself differentiable to any order. Degenerate case: where M is singular, R
    is *completed* to an orthogonal matrix on the null space, one choice of many, and has no derivative there; the
    convention is 0 in directions with :math:`h_i + h_j = 0`, so that gradients are finite.

    Cost: one singular value decomposition, :math:`O(d^3)` a matrix.

    Args:
        M: Matrices, with shape (..., d, d).
        validate: Whether to check that M is finite.

    Returns:
        R, orthogonal, and :math:`H = (M^\top M)^{1/2}`, symmetric positive semidefinite, both with shape (..., d, d).

    Raises:
        ValueError: M is not square or not finite.
        TypeError: M is not a floating-point array.

    Example:
        >>> import numpy as np
        >>> R, H = polar(np.array([[0.0, -2.0], [3.0, 0.0]]))
        >>> print(R.round(12) + 0.0, H.round(12) + 0.0, sep="\n")
        [[ 0. -1.]
         [ 1.  0.]]
        [[3. 0.]
         [0. 2.]]
    """
    (matrix,), restore = as_tensors(M=M)
    require_square("M", matrix)
    if validate:
        matrix = checked_finite("M", matrix)
    matrix = working_precision(matrix)
    R = polar_factor(matrix, restore.eps)
    H = R.mT @ matrix
    return restore(R), restore(symmetric(H))


def polar_factor(M: Tensor, eps: float = 0.0) -> Tensor:
    r"""The nearest matrix R with orthonormal columns to a tall M (..., n, d), n >= d, differentiable to any order.

    Completed where M lacks full rank. For n > d the differential has a part outside the range of R as well,
    :math:`dR = R\,\Omega + (I - R R^\top)\,dM\,H^{-1}`, with the pseudo-inverse of H where it is singular.
    """
    return _PolarFactor.at(M, eps)[0]


def polar_factor_and_singular_values(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same R, with the singular values (..., d) of M, ascending, and its right singular vectors (..., d, d)."""
    return _PolarFactor.at(M, 0.0)


class _PolarFactor(Function):
    """M -> (R, h, V), of which R carries the derivative; h and V are the eigenvalues, ascending, and vectors of H."""

    @staticmethod
    def forward(M: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        U, h, Vh = torch.linalg.svd(M, full_matrices=False)
        return U @ Vh, h.flip(-1), Vh.mT.flip(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        (M, ctx.eps), (R, h, V) = inputs, output
        ctx.mark_non_differentiable(h, V)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(M, R, h, V)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, None]:
        (M, R, h, V), grad = ctx.saved_tensors, grad_outputs[0]
        if grad is None:
            return None, None
        zero = rounding(h, ctx.eps)
        H = symmetric(R.mT @ M)
        inner = R.mT @ grad
        M_bar = R @ solve_lyapunov(H, h, V, inner - inner.mT, zero=zero)
        if M.shape[-2] > M.shape[-1]:
            M_bar = M_bar + (grad - R @ inner) @ pseudo_inverse(H, h, V, zero=zero)
        return M_bar, None
