r"""Covariances of size 1 and 2: closed forms, elementwise.

For Cholesky factors F and G of size 2, :math:`M = G^\top F` has a positive determinant, so its polar factor is a
rotation, along :math:`(m_{11} + m_{22},\; m_{21} - m_{12})`. The residual :math:`F - G R` is then subtracted entry by
entry. Pairs for which the squared length of this vector leaves the range of float64 are left to other routes, as are
singular ones.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from otkit.gaussian._bures.cholesky import EPS, steepest

LEAST = float(np.finfo(np.float64).tiny) / EPS
"""What a sum of squares must exceed so that none of its digits underflowed."""


def line(cov1: ndarray, cov2: ndarray, *, gradients: bool) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The value (n,) and both gradients (n, 1, 1), wanted or not, for (n, 1, 1), and which (n,) are singular."""
    s, t = cov1[:, 0, 0], cov2[:, 0, 0]
    singular = ~((s > 0) & (t > 0))
    f, g = np.sqrt(s), np.sqrt(t)
    difference = (s - t) / (f + g)
    return difference**2, (difference / f)[:, None, None], (-difference / g)[:, None, None], singular


def plane(cov1: ndarray, cov2: ndarray, *, gradients: bool) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The value (n,), both gradients (n, 2, 2), empty where not wanted, and which (n,) are singular or out of range."""
    # F = [[a, 0], [b, c]] and G = [[p, 0], [q, r]]
    a, b, c, singular1 = _cholesky(cov1)
    p, q, r, singular2 = _cholesky(cov2)
    x, y = p * a + q * b + r * c, r * b - q * c
    square = x * x + y * y
    hard = singular1 | singular2 | ~((square > LEAST) & (square < np.inf))
    length = np.sqrt(square, out=square)
    x, y = x / length, y / length  # R = [[x, -y], [y, x]]
    d11, d12 = a - p * x, p * y
    d21, d22 = b - (q * x + r * y), c - (r * x - q * y)
    value = d11 * d11 + d12 * d12 + d21 * d21 + d22 * d22
    if not gradients:
        return value, np.empty(0), np.empty(0), hard
    gradient1 = _times_inverse(d11, d12, d22, a, b, c)
    # G - F Rᵀ, with Rᵀ = [[x, y], [-y, x]]
    gradient2 = _times_inverse(p - a * x, -a * y, r - (b * y + c * x), p, q, r)
    return value, gradient1, gradient2, hard


def _cholesky(cov: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    a = np.sqrt(cov[:, 0, 0])
    b = cov[:, 1, 0] / a
    square = cov[:, 1, 1] - b * b
    # The bound of `factor_and_invert`: max(a², c²) |F⁻¹|² = Tr(Σ) / min(a², c²).
    regular = steepest(2) * np.minimum(cov[:, 0, 0], square) > cov[:, 0, 0] + cov[:, 1, 1]
    return a, b, np.sqrt(square), ~regular


def _times_inverse(d11: ndarray, d12: ndarray, d22: ndarray, a: ndarray, b: ndarray, c: ndarray) -> ndarray:
    """D [[a, 0], [b, c]]⁻¹, which is known to be symmetric."""
    out = np.empty((len(a), 2, 2))
    out[:, 0, 1] = out[:, 1, 0] = d12 / c
    out[:, 1, 1] = d22 / c
    out[:, 0, 0] = (d11 - b * out[:, 0, 1]) / a
    return out
