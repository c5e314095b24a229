r"""The squared Bures distance :math:`\min_R \|F - G R\|_F^2` between covariances, as an operation with derivatives.

Numbers come from `blocks` on a CPU and from `procrustes` elsewhere, inside an operator that torch sees as one piece:
validation and fallbacks, which depend on the data, then survive ``torch.func.vmap`` and ``torch.compile``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from otkit._derivatives import Function, attach, needs_gradient
from otkit._operators import operator
from otkit._symmetry import require_symmetric
from otkit._units import power_of_two
from otkit.gaussian._bures import blocks, procrustes
from otkit.gaussian._checks import require_covariance, require_semidefinite
from otkit.linalg._lyapunov import pseudo_inverse, rounding, solve_lyapunov
from otkit.linalg._square_root import square_root
from otkit.linalg._symmetric import symmetric, trace


def bures_squared(cov1: Tensor, cov2: Tensor, *, eps: float, validate: bool) -> Tensor:
    r"""The squared Bures distance, with shape (...), of covariances (..., d, d) of one batch shape, in float64.

    The gradients, I - T and I - T⁻¹, are found with the value and attached to it; they have a derivative of their own.

    Args:
        cov1: The first covariances.
        cov2: The second covariances.
        eps: The rounding of the entries as they came, by which symmetry and definiteness are judged.
        validate: Whether to check that covariances are finite and symmetric.
    """
    if not needs_gradient(cov1, cov2):
        return _numbers(cov1, cov2, eps, validate, False)[0]
    value, gradient1, gradient2 = _ValueAndGradients.at(cov1, cov2, eps, validate)
    return attach(value, (cov1, cov2), (gradient1, gradient2))


def _shapes(cov1: Tensor, cov2: Tensor, eps: float, validate: bool, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, d = cov1.shape[:-2], cov1.shape[-1] if gradients else 0
    return cov1.new_empty(batch), cov1.new_empty(*batch, d, d), cov1.new_empty(*batch, d, d)


@operator("bures", _shapes)
def _numbers(cov1: Tensor, cov2: Tensor, eps: float, validate: bool, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The value and, where wanted, the gradients; empty tensors otherwise."""
    batch, d = cov1.shape[:-2], cov1.shape[-1]
    pair = [cov.detach().reshape(-1, d, d) for cov in (cov1, cov2)]
    try:
        value, gradient1, gradient2, traces = _flat(pair[0], pair[1], eps, validate, gradients)
    except ValueError:
        # Said again of the batch as it came, by its own indices.
        for name, cov in (("cov1", cov1.detach()), ("cov2", cov2.detach())):
            (require_covariance if validate else require_semidefinite)(name, cov, eps)
        raise
    # Equal covariances have equal factors and R = I to rounding: what is left is rounding, and means 0. Where they are
    # near singular R is not I, and the entries have to be compared.
    rounding_level = 8 * d * torch.finfo(value.dtype).eps
    small = value <= rounding_level * traces
    if bool(small.any()):
        equal = small & ((value <= rounding_level**2 * traces) | (pair[0] == pair[1]).flatten(1).all(1))
        value[equal] = 0
        if gradients:
            gradient1[equal] = gradient2[equal] = 0
    if not gradients:
        return value.reshape(batch), value.new_empty(*batch, 0, 0), value.new_empty(*batch, 0, 0)
    return value.reshape(batch), gradient1.reshape(*batch, d, d), gradient2.reshape(*batch, d, d)


def _flat(
    cov1: Tensor, cov2: Tensor, eps: float, validate: bool, gradients: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, gradients and traces of Σ1 + Σ2 for pairs (n, d, d)."""
    if cov1.device.type == "cpu" and cov1.dtype == torch.float64:
        first, second = (np.ascontiguousarray(cov.numpy()) for cov in (cov1, cov2))
        numbers = blocks.value_and_gradients(first, second, eps, gradients=gradients, validate=validate)
        value, gradient1, gradient2, traces = (torch.from_numpy(part) for part in numbers)
        return value, gradient1, gradient2, traces
    if validate:
        require_symmetric("cov1", cov1, eps)
        require_symmetric("cov2", cov2, eps)
    return *procrustes.value_and_gradients(cov1, cov2, eps), trace(cov1 + cov2)


@operator("bures_maps", lambda cov1, cov2, *_: (cov1.new_empty(cov1.shape), cov1.new_empty(cov1.shape)))
def _maps(cov1: Tensor, cov2: Tensor, gradient1: Tensor, gradient2: Tensor) -> tuple[Tensor, Tensor]:
    """T and T⁻¹ from the gradients I - T and I - T⁻¹, or anew where that would cancel."""
    d = cov1.shape[-1]
    identity = torch.eye(d, dtype=cov1.dtype, device=cov1.device)
    T, T_inverse = (identity - gradient.reshape(-1, d, d) for gradient in (gradient1, gradient2))
    small = torch.minimum(*(each.abs().amax((-2, -1)) for each in (T, T_inverse))) < 0.5
    if bool(small.any()):
        pair = (cov.reshape(-1, d, d)[small] for cov in (cov1, cov2))
        T[small], T_inverse[small] = procrustes.maps(*pair)
    return T.reshape(cov1.shape), T_inverse.reshape(cov1.shape)


class _ValueAndGradients(Function):
    r"""(Σ1, Σ2) -> the value, without history, and :math:`I - T` and :math:`I - T^{-1}`, with theirs.

    Differentiating :math:`T \Sigma_1 T = \Sigma_2` gives :math:`dT\,\Sigma_1 T + T \Sigma_1\,dT = d\Sigma_2 -
    T\,d\Sigma_1\,T`. With :math:`A = \Sigma_1^{1/2}`, :math:`S = A T A` and :math:`dT = A^{-1} Z A^{-1}` that is
    :math:`Z S + S Z = A (\dots) A`, a Lyapunov equation. It is self-adjoint, so for the gradient H in T the adjoint
    is :math:`Y = A Z A` with :math:`S Z + Z S = A^{-1} H A^{-1}`, and

    .. math:: \bar\Sigma_2 = Y, \qquad \bar\Sigma_1 = -T Y T .

    At singular covariances the roots are pseudo-inverted: finite, and right within the ranges.
    """

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor, eps: float, validate: bool) -> tuple[Tensor, Tensor, Tensor]:
        return _numbers(cov1, cov2, eps, validate, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        cov1, cov2, _, _ = inputs
        value, gradient1, gradient2 = output
        ctx.mark_non_differentiable(value)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(cov1, cov2, gradient1, gradient2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        _, grad1, grad2 = grad_outputs
        if grad1 is None and grad2 is None:
            return None, None, None, None
        cov1, cov2, gradient1, gradient2 = ctx.saved_tensors
        grad1, grad2 = (torch.zeros_like(cov1) if grad is None else grad for grad in (grad1, grad2))
        numbers = _maps(cov1.detach(), cov2.detach(), gradient1.detach(), gradient2.detach())
        T, T_inverse = (T + (g.detach() - g) for T, g in zip(numbers, (gradient1, gradient2), strict=True))
        # d(I - T) = -dT, and d(I - T⁻¹) = T⁻¹ dT T⁻¹.
        H = T_inverse @ grad2 @ T_inverse - grad1
        unit = power_of_two(cov1.detach().abs().amax((-2, -1), keepdim=True))  # Y is inverse to the scale
        A, a, basis = square_root(cov1 / unit, validate=False)
        A_inverse = pseudo_inverse(A, a, basis, zero=rounding(a) ** 0.5)
        S = symmetric(A @ T @ A)
        s, V = torch.linalg.eigh(S.detach())
        C = A_inverse @ symmetric(H) @ A_inverse
        Y = A @ solve_lyapunov(S, s.clamp(min=0), V, C, zero=rounding(s)) @ A / unit
        return -(T @ Y @ T), Y, None, None
