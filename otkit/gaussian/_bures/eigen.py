r"""The value alone of large covariances by the trace form: eigenvalues, where the traces do not cancel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import ndarray
from scipy import linalg

from otkit.gaussian._bures.cholesky import EPS, lapack, spread

blas: Any = linalg.blas  # made by f2py, as `lapack` is


def value_by_trace(cov1: ndarray, cov2: ndarray) -> tuple[float, bool]:
    r"""Tr(Σ1 + Σ2) - 2 Σ_k λ_k(FᵀΣ2F)^½, the trace form of one pair, and whether it is accurate.

    Only eigenvalues are needed, so that it is the fastest where the traces do not cancel; the second result is
    whether its own estimate of the error stays within what Procrustes reaches.
    """
    F, info1 = lapack.dpotrf(cov1.T, lower=1)
    G, info2 = lapack.dpotrf(cov2.T, lower=1)
    if info1 or info2:
        return math.nan, False
    M = blas.dtrmm(1.0, G, F, lower=1, trans_a=1, overwrite_b=0)
    gram = blas.dsyrk(1.0, M, trans=1, lower=1)
    # Room for blocks of 64 columns: with what SciPy gives, LAPACK goes column by column.
    eigenvalues, _, info = lapack.dsyevd(gram, compute_v=0, lower=1, overwrite_a=1, lwork=66 * len(gram) + 1)
    if info or not eigenvalues[0] > 0:
        return math.nan, False
    trace = float(np.trace(cov1) + np.trace(cov2))
    value = trace - 2 * float(np.sqrt(eigenvalues).sum())
    log_det = 2 * float(np.log(np.diagonal(F) * np.diagonal(G)).sum())
    condition = max(float(spread(factor[None])[0]) for factor in (F, G))
    return value, bool(accurate(value, eigenvalues, log_det, trace, condition))


def accurate(value: Any, eigenvalues: ndarray, log_det: Any, trace: Any, condition: Any) -> ndarray:
    """Whether values (...) by the trace form are positive and as exact as those by Procrustes.

    Args:
        value: The values.
        eigenvalues: See `trace_error`, like log_det and trace.
        log_det: The logarithm of the determinant.
        trace: Tr(Σ1 + Σ2).
        condition: A lower bound of the condition number of the worse factor.
    """
    # The condition number of M is no larger than the square of that of the worse factor.
    condition = np.maximum(condition, (eigenvalues[..., -1] / eigenvalues[..., 0]) ** 0.25)
    allowed = np.maximum(1e-13 * value, 8 * EPS * condition * np.sqrt(trace * value))
    return (value > 0) & (trace_error(eigenvalues, log_det, trace) < allowed)


def trace_error(eigenvalues: ndarray, log_det: Any, trace: Any) -> ndarray:
    r"""The error to expect of the trace form, from the computed eigenvalues of MᵀM and its determinant.

    Independent errors of size :math:`\delta` in the eigenvalues move the value by :math:`\delta (\sum_k
    1/\lambda_k)^{1/2}` and :math:`\sum_k \log \lambda_k` by :math:`\delta (\sum_k 1/\lambda_k^2)^{1/2}`. The
    determinant is known from the diagonals of the factors, so the second shift is seen. LAPACK promises no better than
    eps λ_max for :math:`\delta`, and often does far better. What is seen once can be small by chance, so eight times
    that is taken, and at least a 32nd of what is promised.

    Args:
        eigenvalues: The eigenvalues, all positive, with shape (..., d), in ascending order.
        log_det: The logarithm of the determinant, with shape (...).
        trace: Tr(Σ1 + Σ2), with shape (...).
    """
    largest = eigenvalues[..., -1]
    inverse = largest[..., None] / eigenvalues
    seen = np.abs(np.log(eigenvalues).sum(-1) - log_det) / np.sqrt((inverse * inverse).sum(-1))
    return 4 * EPS * trace + np.maximum(8 * seen, EPS / 32) * np.sqrt(largest * inverse.sum(-1))
