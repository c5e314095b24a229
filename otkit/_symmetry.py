r"""Whether matrices are symmetric, by one product each: no pass over a matrix and its transpose.

For a skew matrix K of entries without a pattern, :math:`\langle K, A\rangle` is 0 where A is symmetric, and shows
asymmetry and NaN. Where it is larger than the trace explains (up to d of the largest entries of a covariance), the full
check follows.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import allowance, index_in_batch, of_batch, require_finite
from otkit._operators import value_check


@value_check
def require_symmetric(name: str, matrix: Tensor, eps: float) -> None:
    """Raise if the matrices (..., d, d) are not finite, or asymmetric beyond `allowance(64 d)` of the largest entry."""
    if matrix.numel() == 0:
        return
    d = matrix.shape[-1]
    if d <= KEPT:
        skewness, trace = (matrix.flatten(-2) @ torch.from_numpy(skew_and_identity(d)).to(matrix)).unbind(-1)
    else:
        skewness, trace = map(torch.as_tensor, skewness_and_trace(matrix.numpy(force=True)))
    if bool((skewness.abs() <= allowance(64 * d, eps) / d * trace).all()):
        return
    require_finite(name, matrix)
    allowed = allowance(64 * d, eps) * matrix.abs().amax((-2, -1))
    asymmetry = (matrix - matrix.mT).abs().amax((-2, -1))
    if bool((asymmetry > allowed).any()):
        at = index_in_batch((asymmetry - allowed).argmax(), asymmetry)
        raise ValueError(
            f"{name} must be symmetric; got max |A - Aᵀ| = {asymmetry[at].item():.3g}, where rounding allows "
            f"{allowed[at].item():.3g}{of_batch(at)}"
        )


KEPT, ROWS = 512, 128
"""The size up to which a skew matrix is kept, and how many rows of a larger one, which would fill memory, are made."""


@np.errstate(all="ignore")  # what is not finite shows in the result
def skewness_and_trace(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """⟨K, A⟩ for the K of `skew`, and Tr A, for matrices (..., d, d) beyond `KEPT`: by blocks of rows, without K."""
    d = matrix.shape[-1]
    r, c = _factors_of_skew(d)
    skewness, blocks = np.zeros(matrix.shape[:-2]), _diagonal_blocks_of_skew(d)
    for block, i in zip(blocks, range(0, d, ROWS), strict=True):
        some, later = slice(i, i + ROWS), slice(i + ROWS, None)
        # By einsum, as a thread of BLAS would spin for long.
        skewness += np.einsum("...ij,j->...i", matrix[..., some, later], c[later]) @ r[some]
        skewness += np.einsum("...ij,ij->...", matrix[..., some, some], block)
        skewness -= np.einsum("...ij,j->...i", matrix[..., some, :i], r[:i]) @ c[some]
    return skewness, np.trace(matrix, axis1=-2, axis2=-1)


@functools.lru_cache(16)
def _factors_of_skew(d: int) -> np.ndarray:
    """Two vectors r and c (2, d) of entries of size 1 to √2 without a pattern."""
    rng = np.random.default_rng(d)
    return rng.uniform(1, 2**0.5, (2, d)) * rng.choice([-1.0, 1.0], (2, d))


def _skew(r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The skew matrix with entries r_i c_j above the diagonal."""
    upper = np.triu(np.outer(r, c), 1)
    return upper - upper.T


@functools.lru_cache(16)
def _diagonal_blocks_of_skew(d: int) -> list[np.ndarray]:
    return [_skew(*_factors_of_skew(d)[:, i : i + ROWS]) for i in range(0, d, ROWS)]


@functools.lru_cache(16)
def skew(d: int) -> np.ndarray:
    """A skew matrix K of entries of size 1 to 2, with shape (d²,)."""
    return _skew(*_factors_of_skew(d)).ravel()


@functools.lru_cache(16)
def skew_and_identity(d: int) -> np.ndarray:
    """`skew` and the identity as columns (d², 2): for small matrices one product costs less than two passes."""
    return np.stack([skew(d), np.eye(d).ravel()], axis=1)
