r"""Large covariances: one symmetric eigendecomposition in place of the polynomials.

After the Newton step :math:`X = M + q M^{-\top}` (see `polar`) the eigenvectors V of :math:`X^\top X` give the polar
factor as :math:`R = P V^\top`, where P has the columns of :math:`X V`, normalised. They are orthogonal to rounding
times the condition number of X, and a first-order correction without eigenvalue gaps, :math:`P - P K` with
:math:`K_{ij} = s_i (P^\top P - I)_{ij} / (s_i + s_j)`, leaves its square.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy import ndarray

from otkit.gaussian._bures.cholesky import times_triangle, triangle_times

EPS = float(np.finfo(np.float64).eps)

ORTHOGONAL = 1e-7
"""The departure of P from orthogonality whose square is rounding."""


def value_and_gradients(
    U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray, *, gradients: bool
) -> tuple[float, ndarray, ndarray, bool]:
    """The value, the gradients I - T and I - T⁻¹ of one pair, and whether they are accurate.

    Args:
        U1: The transposed factor of the first covariance, upper triangular (d, d).
        U2: The transposed factor of the second covariance.
        V1: The inverse of U1.
        V2: The inverse of U2.
        gradients: Whether the gradients are wanted; empty otherwise.
    """
    X = triangle_times(U2, U1.T, lower=False)
    inverse = triangle_times(V2.T, V1, lower=True)
    X += (np.linalg.norm(X) / np.linalg.norm(inverse)) * inverse
    V = np.ascontiguousarray(torch.linalg.eigh(torch.from_numpy(X.T @ X))[1].numpy())
    P = X @ V
    s = np.linalg.norm(P, axis=0)
    P /= s
    K = P.T @ P
    K *= s[:, None] / (s[:, None] + s)
    np.fill_diagonal(K, 0)
    accurate = bool(np.linalg.norm(K) < ORTHOGONAL)
    P -= P @ K
    moved = triangle_times(U1.T, V, lower=True)
    difference = moved - triangle_times(U2.T, P, lower=True)  # (F - G R) V
    value = float(np.linalg.norm(difference)) ** 2
    if not gradients:
        return value, np.empty(0), np.empty(0), accurate
    gradient1 = difference @ times_triangle(V.T, V1.T, lower=True)
    gradient2 = -moved @ times_triangle(P.T, V2.T, lower=True)
    gradient2.flat[:: len(gradient2) + 1] += 1
    return value, gradient1, gradient2, accurate


def value_by_trace(cov1: ndarray, cov2: ndarray) -> tuple[float, bool]:
    r"""Tr(Σ1 + Σ2) - 2 Σ_k λ_k(FᵀΣ2F)^½, the trace form of one pair, and whether it is accurate.

    Only eigenvalues are needed, so that it is the fastest where the traces do not cancel; the second result is
    whether its own estimate of the error stays within what Procrustes reaches.
    """
    first, second = torch.from_numpy(cov1), torch.from_numpy(cov2)
    F, info = torch.linalg.cholesky_ex(first)
    if info:
        return 0.0, False
    eigenvalues = torch.linalg.eigvalsh(F.mT @ second @ F)
    if not eigenvalues[0] > 0:
        return 0.0, False
    roots = eigenvalues.sqrt()
    trace = float(first.trace() + second.trace())
    value = trace - 2 * float(roots.sum())
    # Independent errors of eps λ_max in each eigenvalue, halved and divided by its root.
    error = EPS * (4 * trace + 2 * float((eigenvalues[-1] / roots).norm()))
    diagonal = F.diagonal()
    least_condition = float(diagonal.max() / diagonal.min()) ** 2
    allowed = max(1e-13, 8 * EPS * math.sqrt(least_condition * trace / value)) if value > 0 else 0.0
    return value, error < allowed * value
