r"""Large covariances: one symmetric eigendecomposition in place of the polynomials.

The eigenvectors V of :math:`M^\top M`, :math:`M = G^\top F`, give the polar factor as :math:`R = P V^\top`, where P has
the columns of :math:`M V`, normalised. They are orthogonal to rounding times the squared condition number of M, and a
first-order correction without eigenvalue gaps, :math:`P - P K` with :math:`K_{ij} = s_i (P^\top P - I)_{ij} / (s_i +
s_j)`, leaves the square of that. No inverse is needed: from :math:`M = P \operatorname{diag}(s)\,V^\top` follow
:math:`F^{-\top} V = G P \operatorname{diag}(1/s)` and :math:`G^{-\top} P = F V \operatorname{diag}(1/s)`, so that

.. math:: I - T = (F - G R) F^{-1} = (F V - G P)\,(G P \operatorname{diag}(1/s))^\top, \qquad
          I - T^{-1} = -(F V - G P)\,(F V \operatorname{diag}(1/s))^\top .

Where M is too ill-conditioned, the Newton step of `polar`, :math:`X = M + q M^{-\top}`, comes first. It takes different
singular values to one, so that V and P are no singular vectors of M any more, and the inverses it needed serve again.

Everything is LAPACK's and BLAS' through SciPy, in Fortran's order; triangular matrices are multiplied as such, at half
the work. NumPy's products and norms belong to a second library, whose threads would spin against the first one's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import ndarray
from scipy import linalg

from otkit.gaussian._bures.cholesky import spread

# Made by f2py, which no type checker sees into.
blas: Any = linalg.blas
lapack: Any = linalg.lapack

EPS = float(np.finfo(np.float64).eps)

ORTHOGONAL = 1e-8
"""The departure of P from orthogonality whose square is rounding."""
SINGULAR = 1e-10
"""The departure up to which V and P are singular vectors of M, as far as a gradient is concerned."""
DIRECT = 2e3
"""The condition number of M, as far as it shows on the diagonals, up to which there is no Newton step."""


def value_and_gradients(
    cov1: ndarray, cov2: ndarray, *, gradients: bool, hopeless: float
) -> tuple[float, ndarray, ndarray, bool]:
    """The value, the gradients I - T and I - T⁻¹ of one pair, and whether they are accurate.

    Args:
        cov1: The first covariance, with shape (d, d).
        cov2: The second covariance.
        gradients: Whether the gradients are wanted; empty otherwise.
        hopeless: The condition number of M, as far as it shows on the diagonals, beyond which nothing is tried.
    """
    failed = math.nan, np.empty(0), np.empty(0), False
    (F, info1), (G, info2) = (lapack.dpotrf(cov.T, lower=1) for cov in (cov1, cov2))
    if info1 or info2:
        return failed
    condition = float(np.prod(spread(np.stack([F, G]))))
    if not condition < hopeless:
        return failed
    if condition < DIRECT:
        result = _by_eigenvectors(F, G, newton=False, gradients=gradients)
        if result[-1]:
            return result
    return _by_eigenvectors(F, G, newton=True, gradients=gradients)


def _by_eigenvectors(F: ndarray, G: ndarray, *, newton: bool, gradients: bool) -> tuple[float, ndarray, ndarray, bool]:
    X = blas.dtrmm(1.0, G, F, lower=1, trans_a=1)
    F_inverse = G_inverse = None
    if newton:
        F_inverse, G_inverse = (lapack.dtrtri(factor, lower=1)[0] for factor in (F, G))
        inverse = blas.dtrmm(1.0, G_inverse, F_inverse.T, lower=1)
        X += math.sqrt(_squared_norm(X) / _squared_norm(inverse)) * inverse
    _, V, info = lapack.dsyevd(blas.dsyrk(1.0, X, trans=1, lower=1), lower=1, overwrite_a=1)
    P = blas.dgemm(1.0, X, V)
    s = np.sqrt((P * P).sum(0))
    P /= s
    K = blas.dsyrk(1.0, P, trans=1, lower=1)
    K = np.tril(K, -1)
    K += K.T
    accurate = info == 0 and _squared_norm(K) < (ORTHOGONAL if newton else SINGULAR) ** 2
    K *= s[:, None] / (s[:, None] + s)
    P = blas.dgemm(-1.0, P, K, 1.0, P)
    moved = blas.dtrmm(1.0, F, V, lower=1)
    image = blas.dtrmm(1.0, G, P, lower=1)
    difference = moved - image  # (F - G R) V
    value = _squared_norm(difference)
    if not gradients:
        return value, np.empty(0), np.empty(0), accurate
    if F_inverse is None:
        s = (moved * image).sum(0)
        first, second = image / s, moved / s
    else:
        first = blas.dtrmm(1.0, F_inverse, V, lower=1, trans_a=1)
        second = blas.dtrmm(1.0, G_inverse, P, lower=1, trans_a=1)
    return (
        value,
        blas.dgemm(1.0, difference, first, trans_b=1),
        blas.dgemm(-1.0, difference, second, trans_b=1),
        accurate,
    )


def _squared_norm(matrix: ndarray) -> float:
    return float((matrix * matrix).sum())


def value_by_trace(cov1: ndarray, cov2: ndarray) -> tuple[float, bool]:
    r"""Tr(Σ1 + Σ2) - 2 Σ_k λ_k(FᵀΣ2F)^½, the trace form of one pair, and whether it is accurate.

    Only eigenvalues are needed, so that it is the fastest where the traces do not cancel; the second result is
    whether its own estimate of the error stays within what Procrustes reaches.
    """
    F, info1 = lapack.dpotrf(cov1.T, lower=1)
    G, info2 = lapack.dpotrf(cov2.T, lower=1)
    if info1 or info2:
        return 0.0, False
    M = blas.dtrmm(1.0, G, F, lower=1, trans_a=1, overwrite_b=0)
    gram = blas.dsyrk(1.0, M, trans=1, lower=1)
    # Room for blocks of 64 columns: with what SciPy gives, LAPACK goes column by column.
    eigenvalues, _, info = lapack.dsyevd(gram, compute_v=0, lower=1, overwrite_a=1, lwork=66 * len(gram) + 1)
    if info or not eigenvalues[0] > 0:
        return 0.0, False
    trace = float(np.trace(cov1) + np.trace(cov2))
    value = trace - 2 * float(np.sqrt(eigenvalues).sum())
    log_det = 2 * float(np.log(np.diagonal(F) * np.diagonal(G)).sum())
    diagonal = np.diagonal(F)
    # The condition number of M is no larger than that of the worse covariance.
    least_condition = max(float(diagonal.max() / diagonal.min()) ** 2, math.sqrt(eigenvalues[-1] / eigenvalues[0]))
    allowed = max(1e-13, 8 * EPS * math.sqrt(least_condition * trace / value)) if value > 0 else 0.0
    return value, float(trace_error(eigenvalues, log_det, trace)) < allowed * value


def trace_error(eigenvalues: ndarray, log_det: Any, trace: Any) -> ndarray:
    r"""What to expect of the error of the trace form, from the computed eigenvalues of MᵀM and its determinant.

    Independent errors of size :math:`\delta` in the eigenvalues move the value by :math:`\delta (\sum_k
    1/\lambda_k)^{1/2}` and :math:`\sum_k \log \lambda_k` by :math:`\delta (\sum_k 1/\lambda_k^2)^{1/2}`. The
    determinant is known from the diagonals of the factors, so that the second is seen. LAPACK promises no more than eps
    λ_max for :math:`\delta`, and often does far better. What is seen once can be small by chance: it is taken eight
    times, and a 32nd of what is promised at least.

    Args:
        eigenvalues: The eigenvalues, all positive, with shape (..., d), in ascending order.
        log_det: The logarithm of the determinant, with shape (...).
        trace: Tr(Σ1 + Σ2), with shape (...).
    """
    largest = eigenvalues[..., -1]
    inverse = largest[..., None] / eigenvalues
    seen = np.abs(np.log(eigenvalues).sum(-1) - log_det) / np.sqrt((inverse * inverse).sum(-1))
    return 4 * EPS * trace + np.maximum(8 * seen, EPS / 32) * np.sqrt(largest * inverse.sum(-1))
