r"""Cholesky factors with their inverses, for batches of small matrices in NumPy.

:math:`\Sigma = U^\top U` with U upper triangular, and :math:`V = U^{-1}`: many of the smallest matrices entry by entry,
as LAPACK's calls take longer than its work on them, and others by LAPACK.

Two habits below are for speed: NumPy multiplies ``A @ B`` and ``Aᵀ @ B`` of two distinct buffers two to four times
faster than ``A @ Bᵀ`` or ``Aᵀ @ A``; and products are written where they are needed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from scipy import linalg

from otkit.gaussian._bures.memory import empty

lapack: Any = linalg.lapack  # made by f2py, which no type checker sees into

ALONE = 32
"""The size beyond which SciPy's LAPACK, for each matrix and holding the interpreter's lock, beats torch's for all."""
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
    diagonal = np.abs(triangular.diagonal(axis1=1, axis2=2))
    return diagonal.max(1) / diagonal.min(1)


EPS = float(np.finfo(np.float64).eps)


def steepest(d: int, eps: float = EPS) -> float:
    """The condition number of a covariance from which on its smallest eigenvalue is zero to rounding, 1 / (16 d eps).

    A singular one has a factor by luck of rounding, half of the time. Its gradient would then be the slope in a
    direction of rounding, some 1e8, or that within its range, as the last bits decide.
    """
    return 1 / (16 * d * eps)


def factor_and_invert(
    *covs: ndarray, out: tuple[ndarray, ndarray] | None = None, shared: bool = False
) -> tuple[ndarray, ndarray, ndarray]:
    """U and V, upper triangular, of all matrices together, and the `spread` of U, infinite where one is singular.

    It is infinite where there is no factor, and where V shows that there is one by luck (`steepest`).

    Args:
        covs: Symmetric matrices, each with shape (n, d, d).
        out: Where to write U and V.
        shared: Whether other threads do the same, for which the interpreter's lock must be free.
    """
    d = covs[0].shape[-1]
    n = sum(map(len, covs))
    U, V = out if out is not None else (empty(n, d, d), empty(n, d, d))
    if d <= FEW and n >= MANY:
        _by_entries(covs, U, V)
    else:
        _by_matrices(covs, U, V, shared=shared)
    # Entry by entry, not matrix by matrix: long rows are reduced much faster than many short ones.
    diagonal = np.ascontiguousarray(U.diagonal(axis1=1, axis2=2).T)
    largest = diagonal.max(0)
    condition = largest / diagonal.min(0)
    # The largest number on the diagonal, squared, and |V|² bound the extreme eigenvalues.
    condition[~(largest * largest * squared_norms(V) < steepest(d))] = np.inf
    return U, V, condition


def _by_matrices(covs: tuple[ndarray, ...], U: ndarray, V: ndarray, *, shared: bool) -> None:
    """The factors by LAPACK."""
    d, start = U.shape[-1], 0
    for cov in covs:
        (_all_at_once if d <= ALONE or shared else _one_by_one)(cov, U[start : start + len(cov)])
        start += len(cov)
    torch.linalg.solve_triangular(
        torch.from_numpy(U), _identity(d).expand(*U.shape), upper=True, out=torch.from_numpy(V)
    )


def _all_at_once(cov: ndarray, U: ndarray) -> None:
    codes = torch.empty(len(cov), dtype=torch.int32)
    # Lower factors by columns are upper ones by rows.
    torch.linalg.cholesky_ex(torch.from_numpy(cov), out=(torch.from_numpy(U).mT, codes))
    U[codes.numpy() != 0] = np.nan


def _one_by_one(cov: ndarray, U: ndarray) -> None:
    np.copyto(U, cov)
    for matrix in U:
        _, info = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
        if info:
            matrix[...] = np.nan


@functools.lru_cache(64)
def _identity(d: int) -> torch.Tensor:
    return torch.eye(d, dtype=torch.float64)


def _by_entries(covs: tuple[ndarray, ...], U: ndarray, V: ndarray) -> None:
    r"""Row operations, each on all matrices at once, that take :math:`(\Sigma \mid I)` to :math:`(U \mid V^\top)`."""
    n, d, _ = U.shape
    rows = empty(d, 2 * d, n)
    start = 0
    for cov in covs:
        for j, row in enumerate(rows):
            row[j:d, start : start + len(cov)] = cov[:, j, j:].T
        start += len(cov)
    for j, row in enumerate(rows):
        if j:
            known = np.einsum("kn,kmn->mn", rows[:j, j], rows[:j, j : d + j])
            row[j:d] -= known[: d - j]
            np.negative(known[d - j :], out=row[d : d + j])
            row[:j] = 0
        row[d + j + 1 :] = 0
        root = np.sqrt(row[j], out=row[j])  # what is not positive becomes NaN, and so does all that follows
        row[j + 1 : d + j] *= np.reciprocal(root, out=row[d + j])
    U[...], V[...] = rows[:, :d].transpose(2, 0, 1), rows[:, d:].transpose(2, 1, 0)


HALVED = 48
"""The size from which leaving the zeros of a triangular factor out pays."""


def triangle_times(triangle: ndarray, B: ndarray, *, lower: bool, out: ndarray) -> ndarray:
    """The product of a triangular matrix and B, a quarter of the work left out."""
    d = triangle.shape[-1]
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


def times_triangle(B: ndarray, triangle: ndarray, *, out: ndarray) -> ndarray:
    """The product of B and an upper triangular matrix, a quarter of the work left out."""
    d = triangle.shape[-1]
    if d < HALVED:
        return np.matmul(B, triangle, out=out)
    k = d // 2
    np.matmul(B[..., :, :k], triangle[..., :k, :k], out=out[..., :, :k])
    np.matmul(B, triangle[..., :, k:], out=out[..., :, k:])
    return out
