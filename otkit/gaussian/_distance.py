r"""The 2-Wasserstein distance between Gaussians, factor first.

Write each Gaussian with a factor of its covariance, :math:`\Sigma_1 = F F^\top`, :math:`\Sigma_2 = G G^\top`.
Every coupling of the two that is Gaussian and optimal moves :math:`F\xi` to :math:`G R \xi` for one standard normal
:math:`\xi` and one orthogonal R, so the distance is an orthogonal Procrustes problem,

.. math:: W_2^2 = \|m_1 - m_2\|^2 + \min_{R^\top R = I} \|F - G R\|_F^2 ,

solved by the polar factor :math:`R = U V^\top` of :math:`G^\top F = U \operatorname{diag}(\sigma) V^\top`. Expanding
the square gives the formula of the textbooks,

.. math:: W_2^2 = \|m_1 - m_2\|^2 + \operatorname{Tr}\bigl(\Sigma_1 + \Sigma_2
          - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\bigr) ,

which is the same number but a difference of large traces: as the Gaussians approach each other it loses
every digit, and its gradient through two nested roots is not defined where Procrustes has none to lose.
R minimises, so by the envelope theorem its own derivative drops out, and with the optimal map
:math:`T = G R F^{-1}`

.. math:: \frac{\partial W_2^2}{\partial m_1} = 2 (m_1 - m_2), \qquad
          \frac{\partial W_2^2}{\partial \Sigma_1} = I - T, \qquad
          \frac{\partial W_2^2}{\partial \Sigma_2} = I - T^{-1} .

References:
    Olkin & Pukelsheim, 1982. *The distance between two random vectors with given dispersion matrices*.
    Bhatia, Jain & Lim, 2019. *On the Bures–Wasserstein distance between positive definite matrices*,
    sections 1 and 2 (the trace form, Procrustes) and 4 (the optimal map).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    as_tensors,
    require_broadcast,
    require_finite,
    require_nonnegative_spectrum,
    require_square,
    require_symmetric,
    shape,
    working_precision,
)
from otkit._root import root
from otkit.linalg import sqrtm

Method = Literal["procrustes", "trace"]


def w2_squared(
    loc1: Array,
    cov1: Array,
    loc2: Array,
    cov2: Array,
    *,
    method: Method = "procrustes",
    validate: bool = True,
) -> Array:
    r"""The squared distance :math:`W_2^2(N(m_1, \Sigma_1), N(m_2, \Sigma_2))`.

    Gradients are those of the module's last display, exact also at equal covariances and at repeated
    eigenvalues, and exactly 0 at equal Gaussians. A singular covariance (a Dirac is the extreme) is legal:
    the value is exact; the derivative towards full rank is infinite, and the gradient
    given is that within the range of the covariance, with the pseudo-inverse for :math:`F^{-1}`.
    Second derivatives are exact at positive definite covariances and refused at singular ones, where they are infinite.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(d^3)` a pair: two Cholesky factors (an eigendecomposition where one does not exist) and one SVD.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        cov1: The covariance :math:`\Sigma_1`, with shape (..., d, d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        cov2: The covariance :math:`\Sigma_2`, with shape (..., d, d).
        method: "procrustes", or "trace" for the textbook formula, which loses accuracy between near Gaussians.
        validate: Whether to check values (finite, symmetric, positive semidefinite).

    Returns:
        :math:`W_2^2 \ge 0` in squared units of the data, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, or covariances that are not finite, symmetric, positive semidefinite.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> loc, cov = np.zeros(2), np.eye(2)
        >>> print(w2_squared(loc, cov, loc + 3.0, 4 * cov))
        20.0
    """
    (m1, C1, m2, C2), restore = as_tensors(loc1=loc1, cov1=cov1, loc2=loc2, cov2=cov2)
    _require_gaussians(m1, C1, m2, C2, validate=validate)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    if method == "procrustes":
        dispersion = _ProcrustesResidual.apply(*torch.broadcast_tensors(C1, C2))[0]
    elif method == "trace":
        half = sqrtm(C1, validate=validate)
        inner = half @ C2 @ half
        cross = sqrtm(0.5 * (inner + inner.mT), validate=False)
        dispersion = _trace(C1) + _trace(C2) - 2 * _trace(cross)
    else:
        raise ValueError(f"method is {method!r}; expected 'procrustes' or 'trace'")
    return restore((m1 - m2).square().sum(-1) + dispersion)


def w2_squared_diagonal(loc1: Array, scale1: Array, loc2: Array, scale2: Array, *, validate: bool = True) -> Array:
    r"""The squared distance between Gaussians with diagonal covariances, which commute:

    .. math:: W_2^2 = \|m_1 - m_2\|^2 + \|\sigma_1 - \sigma_2\|^2 .

    Smooth in the standard deviations everywhere, zero included, where it is a distance to a Dirac; any number of
    derivatives. Cost: O(d) a pair.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        scale1: The standard deviations :math:`\sigma_1 \ge 0`, with shape (..., d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        scale2: The standard deviations :math:`\sigma_2 \ge 0`, with shape (..., d).
        validate: Whether to check values (finite, not negative).

    Returns:
        :math:`W_2^2 \ge 0`, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, NaN or infinities, negative standard deviations.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> print(w2_squared_diagonal(np.zeros(2), np.ones(2), np.zeros(2), np.array([1.0, 3.0])))
        4.0
    """
    (m1, s1, m2, s2), restore = as_tensors(loc1=loc1, scale1=scale1, loc2=loc2, scale2=scale2)
    named = {"loc1": m1, "scale1": s1, "loc2": m2, "scale2": s2}
    for name, tensor in named.items():
        if tensor.ndim < 1 or tensor.shape[-1] != m1.shape[-1]:
            raise ValueError(f"{name} has shape {shape(tensor)}; expected (..., d), with d = {m1.shape[-1:]} of loc1")
        if validate:
            require_finite(name, tensor)
            if name.startswith("scale") and bool((tensor < 0).any()):
                raise ValueError(f"{name} must not be negative; got {tensor.min().item():.6g} (standard deviations)")
    require_broadcast(**{name: tuple(tensor.shape[:-1]) for name, tensor in named.items()})
    return restore((m1 - m2).square().sum(-1) + (s1 - s2).square().sum(-1))


def w2(
    loc1: Array,
    cov1: Array,
    loc2: Array,
    cov2: Array,
    *,
    method: Method = "procrustes",
    validate: bool = True,
) -> Array:
    r"""The distance :math:`W_2`, the root of `w2_squared`, in units of the data.

    Arguments, cost and errors are those of `w2_squared`. At equal Gaussians the value is exactly 0 and
    the gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> print(w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
        5.0
    """
    squared = w2_squared(loc1, cov1, loc2, cov2, method=method, validate=validate)
    (power,), restore = as_tensors(squared=squared)
    return restore(root(power, 2))


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


class _ProcrustesResidual(torch.autograd.Function):
    r""":math:`(\Sigma_1, \Sigma_2) \mapsto \min_R \|F - G R\|_F^2`, and the two gradients, found on the way."""

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        F, F_inverse = factor("cov1", cov1)
        G, G_inverse = factor("cov2", cov2)
        U, _, Vh = torch.linalg.svd(G.mT @ F)
        R = U @ Vh
        moved = G @ R
        residual = F - moved
        value = residual.square().sum((-2, -1))
        # Equal covariances have equal factors, and R = I to rounding: what is left is rounding, and means 0.
        trace = _trace(cov1) + _trace(cov2)
        equal = value <= (8 * F.shape[-1] * torch.finfo(F.dtype).eps) ** 2 * trace
        value = torch.where(equal, torch.zeros_like(value), value)
        # I - T = (F - G R) F⁻¹ does not cancel near T = I; projections for factors that are not invertible.
        gradient1 = _symmetric((F @ F_inverse).mT @ residual @ F_inverse)
        gradient2 = _symmetric((G @ G_inverse).mT @ (-residual @ R.mT) @ G_inverse)
        null1, null2 = (_projection_off(F, F_inverse), _projection_off(G, G_inverse))
        equal = equal[..., None, None]
        gradient1 = torch.where(equal, torch.zeros_like(F), gradient1 + null1)
        gradient2 = torch.where(equal, torch.zeros_like(F), gradient2 + null2)
        return value, gradient1, gradient2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, gradient1, gradient2 = output
        ctx.mark_non_differentiable(gradient1, gradient2)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, gradient1, gradient2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        grad = grad_outputs[0]
        if grad is None:
            return None, None
        cov1, cov2, gradient1, gradient2 = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Somebody will differentiate again: the same gradients, by operations that keep their history.
            gradient1, gradient2 = _identity_minus_map(cov1, cov2), _identity_minus_map(cov2, cov1)
        return grad[..., None, None] * gradient1, grad[..., None, None] * gradient2


def _identity_minus_map(cov1: Tensor, cov2: Tensor) -> Tensor:
    r"""I - T by :math:`T = F^{-\top} (F^\top \Sigma_2 F)^{1/2} F^{-1}`, differentiable."""
    F, info = torch.linalg.cholesky_ex(cov1)
    if bool(info.any()):
        raise RuntimeError(
            "second derivatives of w2_squared need positive definite covariances; got a singular one, "
            "at which they are infinite"
        )
    identity = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
    inverse = torch.linalg.solve_triangular(F, identity.expand_as(F), upper=False)
    inner = F.mT @ cov2 @ F
    return identity - _symmetric(inverse.mT @ sqrtm(_symmetric(inner), validate=False) @ inverse)


def factor(name: str, cov: Tensor) -> tuple[Tensor, Tensor]:
    r"""A factor F (..., d, d) with :math:`F F^\top = \Sigma`, and its (pseudo-)inverse.

    Cholesky's, and :math:`V \operatorname{diag}(\sqrt\lambda)` for those matrices of the batch that are not positive
    definite to rounding; there, an eigenvalue that is zero to rounding is inverted to 0.
    """
    d = cov.shape[-1]
    F, info = torch.linalg.cholesky_ex(cov)
    eps = torch.finfo(cov.dtype).eps
    pivots = F.diagonal(dim1=-2, dim2=-1).square()
    # A Cholesky factor can exist by luck of rounding; its smallest pivot then is rounding.
    singular = (info != 0) | ~(pivots.amin(-1) > d * eps * cov.diagonal(dim1=-2, dim2=-1).amax(-1))
    identity = torch.eye(d, dtype=cov.dtype, device=cov.device)
    if not bool(singular.any()):
        return F, torch.linalg.solve_triangular(F, identity, upper=False)
    eigenvalues, V = torch.linalg.eigh(cov[singular])
    scale = torch.where(eigenvalues > d * eps * eigenvalues[..., -1:], eigenvalues, 0 * eigenvalues).sqrt()
    F, F_inverse = F.clone(), torch.empty_like(F)
    F_inverse[~singular] = torch.linalg.solve_triangular(F[~singular], identity, upper=False)
    F[singular] = V * scale.unsqueeze(-2)
    F_inverse[singular] = torch.where(scale > 0, 1 / scale, 0 * scale).unsqueeze(-1) * V.mT
    return F, F_inverse


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)


def _projection_off(F: Tensor, F_inverse: Tensor) -> Tensor:
    """The projection onto the null space of F Fᵀ, where the gradient I - T is I; 0 if there is none."""
    rank_deficient = (F_inverse == 0).all(-1).any(-1)[..., None, None]
    identity = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
    return torch.where(rank_deficient, identity - _symmetric(F @ F_inverse), torch.zeros_like(F))


def _require_gaussians(loc1: Tensor, cov1: Tensor, loc2: Tensor, cov2: Tensor, *, validate: bool) -> None:
    for k, loc, cov in ((1, loc1, cov1), (2, loc2, cov2)):
        d = require_square(f"cov{k}", cov)
        if loc.ndim < 1 or loc.shape[-1] != d:
            raise ValueError(f"loc{k} has shape {shape(loc)}; expected (..., {d}), as cov{k} has shape {shape(cov)}")
        if validate:
            require_finite(f"loc{k}", loc)
            require_symmetric(f"cov{k}", cov)
    if cov1.shape[-1] != cov2.shape[-1]:
        raise ValueError(
            f"cov2 has shape {shape(cov2)}, a Gaussian in {cov2.shape[-1]} dimensions; "
            f"expected {cov1.shape[-1]}, as cov1 has shape {shape(cov1)}"
        )
    require_broadcast(
        loc1=tuple(loc1.shape[:-1]),
        cov1=tuple(cov1.shape[:-2]),
        loc2=tuple(loc2.shape[:-1]),
        cov2=tuple(cov2.shape[:-2]),
    )
    if validate:
        for name, cov in (("cov1", cov1), ("cov2", cov2)):
            _, info = torch.linalg.cholesky_ex(cov)
            if bool(info.any()):
                require_nonnegative_spectrum(name, torch.linalg.eigvalsh(cov[info != 0]), cov.dtype)
