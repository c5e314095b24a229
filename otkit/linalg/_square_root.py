r"""The principal square root of a positive semidefinite matrix, its inverse, and their derivatives.

:math:`S = A^{1/2}` is the positive semidefinite solution of :math:`S S = A`. Differentiating gives a
Lyapunov equation for the differential,

.. math:: S\,dS + dS\,S = dA ,

which in the eigenbasis of :math:`A = V \operatorname{diag}(s^2) V^\top` is a division,
:math:`(V^\top dS\,V)_{ij} = (V^\top dA\,V)_{ij} / (s_i + s_j)`. There is no :math:`s_i - s_j`: unlike
the derivative of the eigendecomposition itself, this one is exact at repeated eigenvalues.
Lyapunov's operator is self-adjoint, so the backward pass solves the same equation with the incoming
gradient on the right. The inverse root follows by :math:`d(S^{-1}) = -S^{-1}\,dS\,S^{-1}`.

Degenerate case: where two eigenvalues are zero to rounding, :math:`s_i + s_j = 0` and the root has no derivative
(:math:`\sqrt{\varepsilon}` has infinite slope); the convention here is the pseudo-inverse, 0 in those directions, so
that gradients are finite.

References:
    Higham, 2008. *Functions of Matrices: Theory and Computation*, theorems 1.29 (the principal root) and 3.11 (the
    derivative of a matrix function by divided differences), and chapter 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    as_tensors,
    require_nonnegative_spectrum,
    require_square,
    working_precision,
)
from otkit._derivatives import Function
from otkit._operators import checked
from otkit._symmetry import require_symmetric
from otkit.linalg._lyapunov import pseudo_inverse, rounding, solve_lyapunov
from otkit.linalg._symmetric import symmetric


def sqrtm(A: Array, *, validate: bool = True) -> Array:
    r"""The principal square root :math:`A^{1/2}` of symmetric positive semidefinite matrices.

    Gradient: by the Lyapunov equation above, differentiable to any order; at zero eigenvalues by the convention above.

    Cost: one symmetric eigendecomposition, :math:`O(d^3)` a matrix; the backward pass is four products.

    Args:
        A: Symmetric positive semidefinite matrices :math:`A`, with shape (..., d, d).
        validate: Whether to check the values of A (finite, symmetric, semidefinite).

    Returns:
        :math:`A^{1/2}`, with shape (..., d, d), symmetric positive semidefinite.

    Raises:
        ValueError: A is not square, not finite, asymmetric or indefinite beyond rounding.
        TypeError: A is not a floating-point array.

    Example:
        >>> import numpy as np
        >>> sqrtm(np.array([[5.0, 4.0], [4.0, 5.0]]))
        array([[2., 1.],
               [1., 2.]])
    """
    (matrix,), restore = as_tensors(A=A)
    return restore(square_root(working_precision(matrix), restore.eps, validate=validate)[0])


def inv_sqrtm(A: Array, *, validate: bool = True) -> Array:
    r"""The inverse square root :math:`A^{-1/2}`, or the pseudo-inverse of the root where A is singular.

    Arguments, errors, cost and gradient are those of `sqrtm`; an eigenvalue that is zero to rounding, of the dtype that
    came, is inverted to 0, and the gradient is then that at fixed rank: it includes the turning of the range with A,
    and is 0 between directions of the null space.

    Example:
        >>> import numpy as np
        >>> inv_sqrtm(np.diag([4.0, 0.0]))
        array([[0.5, 0. ],
               [0. , 0. ]])
    """
    (matrix,), restore = as_tensors(A=A)
    S, s, V = square_root(working_precision(matrix), restore.eps, validate=validate)
    return restore(pseudo_inverse(S, s, V, zero=rounding(s, restore.eps) ** 0.5))


def square_root(matrix: Tensor, eps: float = 0.0, *, validate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The root S of a matrix that came with a rounding of eps, with its eigenvalues s >= 0 and eigenvectors V."""
    require_square("A", matrix)
    if validate:
        matrix = checked(require_symmetric, "A", matrix, eps)
    return _SquareRoot.at(matrix, eps, validate)


class _SquareRoot(Function):
    """A -> (S, s, V), of which S carries the derivative."""

    @staticmethod
    def forward(A: Tensor, eps: float, validate: bool) -> tuple[Tensor, Tensor, Tensor]:
        eigenvalues, V = torch.linalg.eigh(A)
        if validate:
            eigenvalues = checked(require_nonnegative_spectrum, "A", eigenvalues, eps)
        s = eigenvalues.clamp(min=0).sqrt()
        S = (V * s.unsqueeze(-2)) @ V.mT
        return symmetric(S), s, V

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        (S, s, V), ctx.eps = output, inputs[1]
        ctx.mark_non_differentiable(s, V)
        ctx.save_for_backward(S, s, V)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        S, s, V = ctx.saved_tensors
        zero = rounding(s, ctx.eps) ** 0.5  # the roots of eigenvalues that are zero to rounding
        return solve_lyapunov(S, s, V, symmetric(grad_outputs[0]), zero=zero), None, None
