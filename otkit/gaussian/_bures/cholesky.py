r"""Cholesky factors with their inverses, for batches of small matrices in NumPy.

:math:`\Sigma = U^\top U` with U upper triangular, and :math:`V = U^{-1}`. Halving the matrix,

.. math:: U = \begin{pmatrix} U_{11} & u \\ & U_{22} \end{pmatrix}, \quad u = V_{11}^\top \Sigma_{12}, \quad
          U_{22}^\top U_{22} = \Sigma_{22} - u^\top u, \quad
          V = \begin{pmatrix} V_{11} & -V_{11} u V_{22} \\ & V_{22} \end{pmatrix} ,

so that all but the smallest blocks is matrix products, several times faster than LAPACK's loops at these sizes.

Two habits below are for speed: NumPy multiplies ``A @ B`` and ``Aᵀ @ B`` of two distinct buffers two to four times
faster than ``A @ Bᵀ`` or ``Aᵀ @ A``; and products write where they are needed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray

WELL_SPREAD = 50.0
"""A leading block whose diagonal spreads less is inverted without a refinement."""


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
        out: Where to write U and V.
    """
    n, d, _ = cov.shape
    # The size at which LAPACK's loop is as fast as products; fewer matrices leave those less to win.
    leaf = 8 if d <= 8 else 16 if n >= 24 else 32 if n >= 10 else 64
    if d <= leaf:
        L, info = torch.linalg.cholesky_ex(torch.from_numpy(cov))
        inverse = torch.linalg.solve_triangular(L, torch.eye(d, dtype=L.dtype).expand(n, d, d), upper=False)
        U, V = L.mT.numpy(), inverse.mT.numpy()
        if out is not None:
            out[0][...], out[1][...] = U, V
        return U, V, info.numpy() != 0
    k = leaf
    while 2 * k < d:
        k *= 2
    corner = cov[:, :k, k:]
    U11, V11, failed = factor_and_invert(cov[:, :k, :k])
    u = np.matmul(transposed(V11), corner)
    spare = np.empty_like(u)
    if not spread(U11).max() < WELL_SPREAD:
        # A product with an explicit inverse alone is not backward stable: one step of refinement.
        np.matmul(transposed(U11), u, out=spare)
        np.subtract(corner, spare, out=spare)
        u += np.matmul(transposed(V11), spare)
    np.copyto(spare, u)
    complement = np.matmul(transposed(spare), u)
    np.subtract(cov[:, k:, k:], complement, out=complement)
    U22, V22, failed_too = factor_and_invert(complement)
    np.matmul(u, V22, out=spare)
    np.negative(spare, out=spare)
    v = np.matmul(V11, spare)
    U, V = out if out is not None else (np.empty((n, d, d)), np.empty((n, d, d)))
    for whole, first, right, last in ((U, U11, u, U22), (V, V11, v, V22)):
        whole[:, :k, :k] = first
        whole[:, :k, k:] = right
        whole[:, k:, :k] = 0
        whole[:, k:, k:] = last
    return U, V, failed | failed_too


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
