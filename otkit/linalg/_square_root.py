r"""The principal square root of a positive semidefinite matrix, and its derivative.

:math:`S = A^{1/2}` is the positive semidefinite solution of :math:`S S = A`. Differentiating gives a
Lyapunov equation for the differential,

.. math:: S\,dS + dS\,S = dA ,

which in the eigenbasis of :math:`A = V \operatorname{diag}(s^2) V^\top` is a division,
:math:`(V^\top dS\,V)_{ij} = (V^\top dA\,V)_{ij} / (s_i + s_j)`. There is no :math:`s_i - s_j`: unlike
the derivative of the eigendecomposition itself, this one is exact at repeated eigenvalues.
Lyapunov's operator is self-adjoint, so the backward pass solves the same equation with the incoming
gradient on the right.
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
    require_symmetric,
)


def sqrtm(A: Array, *, validate: bool = True) -> Array:
    r"""The principal square root :math:`A^{1/2}` of symmetric positive semidefinite matrices.

    Gradient: :math:`\partial A^{1/2}` solves the Lyapunov equation above, and is itself differentiable to
    any order. Degenerate case: where two eigenvalues are zero to rounding, :math:`s_i + s_j = 0` and the root
    has no derivative (:math:`\sqrt{\varepsilon}` has infinite slope); the convention here is the
    pseudo-inverse, 0 in those directions, so that gradients are finite.

    Cost: one symmetric eigendecomposition, :math:`O(d^3)` a matrix; the backward pass is four products.

    Args:
        A: Symmetric positive semidefinite matrices :math:`A`, with shape (..., d, d).
        validate: Whether to check the values of A (finite, symmetric, semidefinite).

    Returns:
        :math:`A^{1/2}`, with shape (..., d, d), symmetric positive semidefinite.

    Raises:
        ValueError: A is not square, not finite, asymmetric or indefinite beyond rounding.
        TypeError: A is not a floating-point array.

    References:
        Higham, 2008. *Functions of Matrices*, chapter 6.

    Example:
        >>> import numpy as np
        >>> sqrtm(np.array([[5.0, 4.0], [4.0, 5.0]]))
        array([[2., 1.],
               [1., 2.]])
    """
    (matrix,), restore = as_tensors(A=A)
    require_square("A", matrix)
    if validate:
        require_symmetric("A", matrix)
    root, singular_values, _ = _SquareRoot.apply(matrix)
    if validate:
        # The roots carry the sign of the eigenvalues, and a negative one is -λ.
        signed = torch.where(singular_values < 0, singular_values, singular_values**2)
        require_nonnegative_spectrum("A", signed, matrix.dtype)
    return restore(root)


class _SquareRoot(torch.autograd.Function):
    r"""A -> (S, s, V), where s holds :math:`\sqrt{\lambda}`, or :math:`\lambda` itself where it is negative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eigenvalues, V = torch.linalg.eigh(A)
        s = eigenvalues.clamp(min=0).sqrt()
        S = (V * s.unsqueeze(-2)) @ V.mT
        return 0.5 * (S + S.mT), torch.where(eigenvalues < 0, eigenvalues, s), V

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        S, s, V = output
        ctx.mark_non_differentiable(s, V)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(S, s, V)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Tensor | None:
        grad_S = grad_outputs[0]
        if grad_S is None:
            return None
        S, s, V = ctx.saved_tensors
        return _Lyapunov.apply(S, s.clamp(min=0), V, 0.5 * (grad_S + grad_S.mT))


class _Lyapunov(torch.autograd.Function):
    r"""The symmetric X with :math:`S X + X S = C`, for :math:`S = V \operatorname{diag}(s) V^\top` and C symmetric.

    With :math:`Y` the solution for the incoming gradient, the adjoints are :math:`\bar C = Y` and
    :math:`\bar S = -(Y X + X Y)`; s and V only help to solve, all dependence on A is carried by S.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(S: Tensor, s: Tensor, V: Tensor, C: Tensor) -> Tensor:
        sums = s.unsqueeze(-1) + s.unsqueeze(-2)
        # An eigenvalue is zero to rounding at d·eps of the largest, its root at the root of that.
        zero = (s.shape[-1] * torch.finfo(s.dtype).eps) ** 0.5 * s.amax(-1)[..., None, None]
        inverse = torch.where(sums > zero, 1 / sums, torch.zeros_like(sums))
        X = V @ ((V.mT @ C @ V) * inverse) @ V.mT
        return 0.5 * (X + X.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        S, s, V, _ = inputs
        ctx.save_for_backward(S, s, V, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, Tensor]:
        S, s, V, X = ctx.saved_tensors
        Y = _Lyapunov.apply(S, s, V, 0.5 * (grad_outputs[0] + grad_outputs[0].mT))
        return -(Y @ X + X @ Y), None, None, Y
