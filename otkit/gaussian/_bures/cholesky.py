r"""Cholesky factors with their inverses, for batches of small matrices in NumPy.

:math:`\Sigma = U^\top U` with U upper triangular, and :math:`V = U^{-1}`: many of the smallest entry by entry, for
which LAPACK's calls take longer than its work, others by LAPACK.

Two habits below are for speed: NumPy multiplies ``A @ B`` and ``Aᵀ @ B`` of two distinct buffers two to four times
faster than ``A @ Bᵀ`` or ``Aᵀ @ A``; and products write where they are needed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from scipy import linalg

lapack: Any = linalg.lapack  # made by f2py, which no type checker sees into

ALONE = 32
"""The size from which SciPy's LAPACK, called for each matrix, is faster than NumPy's for all of them."""
FEW, MANY = 8, 48
"""The size up to which, and the number of matrices from which, a loop over entries is faster than LAPACK's."""


def transposed(matrices: ndarray) -> ndarray:
    """A view of the transposed matrices (..., d, e) -> (..., e, d)."""
    return matrices.swapaxes(-1, -2)


def squared_norms(matrices: ndarray) -> ndarray:
    """The squared Frobenius norm of each matrix (n, d, e), without a temporary."""
    rows = matrices.reshape(len(matrices), -1)
    return np.vecdot(rows, rows)


def spread(triangular: ndarray) -> ndarray:
    """A lower bound (n,) of the condition number of triangular matrices (n, d, d): the ratio on their diagonal."""
    # Entry by entry, not matrix by matrix: long rows are reduced much faster than many short ones.
    diagonal = np.abs(np.ascontiguousarray(triangular.diagonal(axis1=1, axis2=2).T))
    return diagonal.max(0) / diagonal.min(0)


def factor_and_invert(cov: ndarray, out: tuple[ndarray, ndarray] | None = None) -> tuple[ndarray, ndarray, ndarray]:
    """U and V, upper triangular (n, d, d), and which (n,) of the matrices have no Cholesky factor.

    Args:
        cov: Symmetric matrices, with shape (n, d, d).
        out: Where to write U and V; V may be where the matrices are.
    """
    n, d, _ = cov.shape
    U, V = out if out is not None else (np.empty((n, d, d)), np.empty((n, d, d)))
    if d <= FEW and n >= MANY:
        return U, V, _by_entries(cov, U, V)
    return U, V, _by_lapack(cov, U, V)


def _by_lapack(cov: ndarray, U: ndarray, V: ndarray) -> ndarray:
    n, d, _ = cov.shape
    failed = np.zeros(n, dtype=bool)
    if d > ALONE:
        for k in range(n):
            L, info = lapack.dpotrf(cov[k].T, lower=1)
            U[k], failed[k] = L.T, info != 0
    else:
        try:
            L = np.linalg.cholesky(cov)  # faster than torch's
        except np.linalg.LinAlgError:
            lower, info = torch.linalg.cholesky_ex(torch.from_numpy(cov))
            L, failed = lower.numpy(), info.numpy() != 0
        U[...] = transposed(L)
    identity = _identity(d).expand(n, d, d)
    torch.linalg.solve_triangular(torch.from_numpy(U), identity, upper=True, out=torch.from_numpy(V))
    return failed


@functools.lru_cache(64)
def _identity(d: int) -> torch.Tensor:
    return torch.eye(d, dtype=torch.float64)


def _by_entries(cov: ndarray, U: ndarray, V: ndarray) -> ndarray:
    r"""Row operations, each on all matrices at once, that take :math:`(\Sigma \mid I)` to :math:`(U \mid V^\top)`."""
    n, d, _ = cov.shape
    rows = np.empty((d, 2 * d, n))
    rows[:, :d] = cov.transpose(1, 2, 0)
    rows[:, d:] = 0
    for j, row in enumerate(rows):
        if j:
            row[j : d + j] -= np.einsum("kn,kmn->mn", rows[:j, j], rows[:j, j : d + j])
            row[:j] = 0
        root = np.sqrt(row[j], out=row[j])
        row[j + 1 : d + j] *= np.reciprocal(root, out=row[d + j])
    U[...], V[...] = rows[:, :d].transpose(2, 0, 1), rows[:, d:].transpose(2, 1, 0)
    return ~(rows[-1, d - 1] > 0)  # what is not positive becomes NaN, and so does all that follows


HALVED = 48
"""The size from which leaving the zeros of a triangular factor out pays."""


def triangle_times(triangle: ndarray, B: ndarray, *, lower: bool, out: ndarray | None = None) -> ndarray:
    """The product of a triangular matrix and B, a quarter of the work left out."""
    d = triangle.shape[-1]
    out = np.empty(B.shape) if out is None else out
    if d < HALVED:
        return np.matmul(triangle, B, out=out)
    k = d // 2
    if lower:
        np.matmul(triangle[..., :k, :k], B[..., :k, :], out=out[..., :k, :])
        np.matmul(triangle[..., k:, :], B, out=out[..., k:, :])
    else:
        np.matmul(triangle[..., :k, :], B, out=out[..., :k, :])
        np.matmul(triangle[..., k:, k:], B[..., k:, :], out=out[..., k:, :])
    return out


def times_triangle(B: ndarray, triangle: ndarray, *, lower: bool, out: ndarray | None = None) -> ndarray:
    """The product of B and a triangular matrix, a quarter of the work left out."""
    d = triangle.shape[-1]
    out = np.empty(B.shape) if out is None else out
    if d < HALVED:
        return np.matmul(B, triangle, out=out)
    k = d // 2
    if lower:
        np.matmul(B, triangle[..., :, :k], out=out[..., :, :k])
        np.matmul(B[..., :, k:], triangle[..., k:, k:], out=out[..., :, k:])
    else:
        np.matmul(B[..., :, :k], triangle[..., :k, :k], out=out[..., :, :k])
        np.matmul(B, triangle[..., :, k:], out=out[..., :, k:])
    return out
