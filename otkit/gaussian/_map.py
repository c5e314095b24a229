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
    Bhatia, Jain & Lim, 2019. *On the Bures–Wasserstein distance between positive definite matrices*, section 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, working_precision
from otkit.gaussian._checks import require_gaussians, require_values
from otkit.gaussian._coupling import Coupling, couple, solve_product_lyapunov, symmetric


def transport_map(loc1: Array, cov1: Array, loc2: Array, cov2: Array, *, validate: bool = True) -> tuple[Array, Array]:
    r"""The optimal map :math:`x \mapsto T x + b` from :math:`N(m_1, \Sigma_1)` to :math:`N(m_2, \Sigma_2)`.

    .. math:: T = \Sigma_1^{-1/2} \bigl(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}\bigr)^{1/2} \Sigma_1^{-1/2},
              \qquad b = m_2 - T m_1 .

    Gradients are exact to any order at regular covariances, also at equal ones and at repeated eigenvalues.
    Degenerate cases: where :math:`\Sigma_1` is singular (to rounding in float64), T is 0 off its range, on which the
    first Gaussian has no points (the pseudo-inverse for :math:`\Sigma_1^{-1/2}`), and :math:`\Sigma_2` must lie in that
    range; a Gaussian that leaves it is refused. There and at a singular :math:`\Sigma_2` the gradient is that within
    the ranges; the derivative towards full rank is infinite, and second derivatives are refused.
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
        ValueError: Shapes that do not fit; covariances that are not finite, symmetric, positive semidefinite; a cov2
            that leaves the range of a singular cov1.
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
        require_values(m1, C1, m2, C2, restore.eps)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    T = differentiable_map(*torch.broadcast_tensors(C1, C2))[0]
    shift = m2 - (T @ m1.unsqueeze(-1)).squeeze(-1)
    return restore(T.expand(*shift.shape, -1)), restore(shift)


def differentiable_map(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, Coupling]:
    """T, with its derivatives, and the coupling it comes from, without."""
    T, *coupling = _Map.apply(cov1, cov2)
    return T, Coupling(*coupling)


def require_regular(coupling: Coupling, what: str) -> None:
    """Refuse second derivatives at singular covariances."""
    if bool(coupling.null1.any()) or bool(coupling.null2.any()):
        raise RuntimeError(
            f"second derivatives of {what} need positive definite covariances; got a singular one, "
            "at which they are infinite"
        )


class _Map(torch.autograd.Function):
    """(Σ1, Σ2) -> (T, *coupling), of which T carries the derivative."""

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, ...]:
        coupling = couple(cov1, cov2)
        _require_range(cov2, coupling.null1)
        return symmetric(coupling.B @ coupling.A_inverse), *coupling

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        cov1, T, *rest = ctx.saved_tensors
        coupling = Coupling(*rest)
        if torch.is_grad_enabled():
            require_regular(coupling, "transport_map")
        K = solve_product_lyapunov(cov1, T, coupling.A, coupling.A_inverse, coupling.quotients, grad_outputs[0])
        return -symmetric(T @ K @ T), K


def _require_range(cov2: Tensor, null1: Tensor) -> None:
    if not bool(null1.any()):
        return
    variance = cov2.diagonal(dim1=-2, dim2=-1).sum(-1)
    outside = (null1 * cov2).sum((-2, -1))
    if bool((outside > 64 * cov2.shape[-1] * torch.finfo(cov2.dtype).eps * variance).any()):
        worst = int((outside / variance).nan_to_num().argmax())
        raise ValueError(
            "cov2 must lie in the range of cov1 where cov1 is singular, because no map carries mass where cov1 has "
            f"none; got {outside.flatten()[worst].item():.3g} of its variance {variance.flatten()[worst].item():.3g} "
            "outside (a small multiple of the identity added to cov1 makes it regular)"
        )
