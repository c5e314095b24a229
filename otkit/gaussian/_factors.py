r"""W2 between Gaussians given by factors of their covariances, of any rank.

With :math:`\Sigma_1 = F F^\top`, F (d, r), and :math:`\Sigma_2 = G G^\top`, G (d, s), and
:math:`G^\top F = U \operatorname{diag}(\sigma) V^\top` thin, :math:`R = U V^\top` (s, r),

.. math:: W_2^2 = \|m_1 - m_2\|^2 + \begin{cases} \|F - G R\|_F^2 & s \le r \\ \|F R^\top - G\|_F^2 & s > r \end{cases}

(Procrustes; the side with more columns is left as it is, as R then has orthonormal rows, or columns). R is
*completed* where :math:`G^\top F` lacks full rank: leaving the null space out gives a wrong value, 2 instead of 4
for orthogonal ranges. By the envelope theorem the gradients hold R fixed,

.. math:: \frac{\partial W_2^2}{\partial F} = 2 (F - G R), \qquad \frac{\partial W_2^2}{\partial G} = 2 (G - F R^\top) .

No covariance is formed: a Gaussian of n samples in dimension d > n has the centred samples for a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, checked_finite, require_broadcast, shape, working_precision
from otkit._derivatives import attach, needs_gradient
from otkit.gaussian._alignment import align
from otkit.linalg._polar import polar_factor


def w2_squared_from_factors(
    loc1: Array, factor1: Array, loc2: Array, factor2: Array, *, validate: bool = True
) -> Array:
    r"""The squared distance :math:`W_2^2(N(m_1, F F^\top), N(m_2, G G^\top))`.

    Gradients are those above, to any order. Degenerate case: where the rank of :math:`G^\top F` is below min(r, s)
    (and below d), :math:`W_2^2` has a concave kink in the factors, as in :math:`F = (1, 0)^\top, G = (\varepsilon,
    1)^\top`, where it is :math:`2 + \varepsilon^2 - 2|\varepsilon|`; the gradient is that of one completed R, finite
    and one of the one-sided derivatives. At equal factors value and gradient are exactly 0. What is in a direction in
    which both factors are small, by :math:`\varepsilon` beside their largest, is found to about :math:`10^{-16} /
    \varepsilon` of itself, in the value and in the gradients; second derivatives lose it below :math:`10^{-8}`.

    Cost: :math:`O(d r s)`, and no d x d matrix, where r or s is at most d; otherwise :math:`O(d^2 (r + s))`.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        factor1: The factor F, with shape (..., d, r), r >= 1.
        loc2: The mean :math:`m_2`, with shape (..., d).
        factor2: The factor G, with shape (..., d, s), s >= 1.
        validate: Whether to check that everything is finite.

    Returns:
        :math:`W_2^2 \ge 0`, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, NaN or infinities.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> F, G = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
        >>> print(w2_squared_from_factors(np.zeros(2), F, np.zeros(2), G))
        2.0
    """
    (m1, F, m2, G), restore = as_tensors(loc1=loc1, factor1=factor1, loc2=loc2, factor2=factor2)
    d = m1.shape[-1] if m1.ndim else 0
    for name, factor in (("factor1", F), ("factor2", G)):
        if factor.ndim < 2 or factor.shape[-2] != d or 0 in factor.shape[-2:]:
            raise ValueError(
                f"{name} has shape {shape(factor)}; expected (..., {d}, r), r >= 1, as loc1 has shape {shape(m1)}"
            )
    if m2.ndim < 1 or m2.shape[-1] != d:
        raise ValueError(f"loc2 has shape {shape(m2)}; expected (..., {d}), as loc1 has shape {shape(m1)}")
    batch = require_broadcast(loc1=m1.shape[:-1], factor1=F.shape[:-2], loc2=m2.shape[:-1], factor2=G.shape[:-2])
    if validate:
        m1, m2 = checked_finite("loc1", m1), checked_finite("loc2", m2)
        F, G = checked_finite("factor1", F), checked_finite("factor2", G)
    m1, F, m2, G = (working_precision(t) for t in (m1, F, m2, G))
    F, G = F.expand(*batch, *F.shape[-2:]), G.expand(*batch, *G.shape[-2:])
    return restore((m1 - m2).square().sum(-1) + factor_residual(F, G))


def factor_residual(F: Tensor, G: Tensor) -> Tensor:
    """The minimum of |F - G R|² over R, with its gradients, for F (..., d, r) and G (..., d, s) of one batch shape."""
    if min(F.shape[-1], G.shape[-1]) > F.shape[-2]:
        return _wide_residual(F, G)
    if F.shape[-1] < G.shape[-1]:
        F, G = G, F
    Q = align(F, G)
    return _least(F, G, Q, (F, G), lambda: (F - G @ Q.mT, G - F @ Q))


def _wide_residual(F: Tensor, G: Tensor) -> Tensor:
    r"""The same where both have more columns than rows, by their square roots :math:`H = (F F^\top)^{1/2} = F A`.

    A (r, d), with orthonormal columns, is the polar factor of :math:`F^\top`; F is then :math:`H A^\top`, and so is
    its gradient. (No covariance is formed here either: its small eigenvalues have lost half of their digits.)
    """
    A, B = polar_factor(F.mT), polar_factor(G.mT)
    H, K = F @ A, G @ B
    Q = align(H, K)
    return _least(H, K, Q, (F, G), lambda: ((H - K @ Q.mT) @ A.mT, (K - H @ Q) @ B.mT))


def _least(
    F: Tensor, G: Tensor, Q: Tensor, inputs: tuple[Tensor, Tensor], halves: Callable[[], tuple[Tensor, Tensor]]
) -> Tensor:
    """|F - G Qᵀ|² for the best Q, with half of its gradients in the inputs given."""
    value, rounding, same = _residual(F.detach(), G.detach(), Q.detach())
    # Equal factors have Q = I to rounding, or to what their near singularity makes of it: what is left means 0.
    equal = (value <= rounding) & (value < math.inf) | same
    value = torch.where(equal, 0.0, value)
    if not needs_gradient(*inputs):
        return value
    first, second = (2 * half for half in halves())
    # Exactly 0 at equal factors, with the history, and so the second derivatives, that they have near them.
    first, second = (each - torch.where(equal[..., None, None], each.detach(), 0.0) for each in (first, second))
    return attach(value, inputs, (first, second))


ROWS = 2**14
"""About how many numbers of a factor are looked at together: what stays in a core's cache."""


def _residual(F: Tensor, G: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """|F - G Qᵀ|² and what rounding may make of it, and whether F = G, in blocks of rows, so that no array as large
    as F is made.
    """
    rounding = 8 * F.shape[-1] * torch.finfo(F.dtype).eps
    rows = max(1, ROWS // max(1, F[..., 0, :].numel()))
    value, size, same = [], [], []
    for f, g in zip(F.split(rows, -2), G.split(rows, -2), strict=True):
        value.append((f - g @ Q.mT).square().sum((-2, -1)))
        size.append((rounding * f).square().sum((-2, -1)))
        if f.shape == g.shape:
            same.append((f == g).flatten(-2).all(-1))
    never = torch.zeros_like(value[0], dtype=torch.bool)
    return sum(value[1:], value[0]), sum(size[1:], size[0]), torch.stack(same).all(0) if same else never
