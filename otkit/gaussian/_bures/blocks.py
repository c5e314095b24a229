r"""The squared Bures distance of a batch of pairs on a CPU: the fastest route by size, a fallback by matrix.

    ======================  ==============================================================================
    d = 1, 2                closed forms (`planar`)
    d < 128                 Cholesky factors by blocks, Newton step, polynomials (`cholesky`, `polar`)
    larger                  one eigendecomposition (`eigen`), pair by pair
    larger, value alone     eigenvalues alone, where their error allows (`eigen`)
    singular, cond > 1e10   `procrustes`, as are pairs whose iteration misses its certificate
    ======================  ==============================================================================

The certificate of the polynomials is :math:`\|R\|_F^2 = d` to rounding: none of them exceeds one, so errors cannot
cancel. All products keep the residual together, :math:`\partial/\partial\Sigma_1 = (F - G R) F^{-1}`, so nothing like
I - T is ever subtracted. Work goes in blocks that stay in the cache; where condition numbers differ much, pairs are
sorted by them, so that a block has no more steps than it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy import ndarray

from otkit.gaussian._bures import eigen, planar, procrustes
from otkit.gaussian._bures.cholesky import (
    factor_and_invert,
    spread,
    squared_norms,
    times_triangle,
    transposed,
    triangle_times,
)
from otkit.gaussian._bures.polar import Scratch, polar_by_newton_and_ladder

BLOCK_BYTES = 200_000
"""The size of one (n, d, d) array of a block; about nine are alive."""
FACTOR_BYTES = 1_000_000
"""The same for the factors, which are found for larger blocks."""
THREADED_SIZE = 32
"""The size from which a product takes longer than the interpreter's lock takes to change hands."""
LARGE = 128
"""The size from which one eigendecomposition is faster than polynomials."""
HOPELESS = 1e10
"""The condition number of M, as far as it shows on the diagonals, beyond which polynomials are not tried."""

Result = tuple[ndarray, ndarray, ndarray]


def value_and_gradients(cov1: ndarray, cov2: ndarray, eps: float, *, gradients: bool) -> Result:
    """The value (n,) and the gradients I - T and I - T⁻¹ (n, d, d), empty where not wanted, for covariances (n, d, d).

    Args:
        cov1: The first covariances, contiguous float64.
        cov2: The second covariances.
        eps: The rounding of the entries, which decides what is indefinite.
        gradients: Whether the gradients are wanted.
    """
    d = cov1.shape[-1]
    if d == 1:
        route = planar.line
    elif d == 2:
        route = planar.plane
    elif d >= LARGE:
        route = _one_by_one
    else:
        route = _by_blocks
    with np.errstate(all="ignore"):  # what fails shows in `hard`
        value, gradient1, gradient2, hard = route(cov1, cov2, gradients=gradients)
    if hard.any():
        first, second = torch.from_numpy(cov1[hard]), torch.from_numpy(cov2[hard])
        value[hard], first, second = (part.numpy() for part in procrustes.value_and_gradients(first, second, eps))
        if gradients:
            gradient1[hard], gradient2[hard] = first, second
    return value, gradient1, gradient2


def _by_blocks(cov1: ndarray, cov2: ndarray, *, gradients: bool) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    n, d, _ = cov1.shape
    factors, hard = np.empty((4, n, d, d)), np.zeros(n, dtype=bool)
    U1, U2, V1, V2 = factors

    def factor(i: int) -> None:
        part = slice(i, i + many)
        hard[part] |= factor_and_invert(cov1[part], (U1[part], V1[part]))[2]
        hard[part] |= factor_and_invert(cov2[part], (U2[part], V2[part]))[2]

    many = max(1, FACTOR_BYTES // (8 * d * d))
    threads = torch.get_num_threads() if d >= THREADED_SIZE else 1
    _on_threads(threads, factor, range(0, n, many))
    condition = spread(U1) * spread(U2)
    hard |= ~(condition < HOPELESS)
    if hard.any():
        factors[:, hard] = np.eye(d)
        condition[hard] = 1
    size = max(1, BLOCK_BYTES // (8 * d * d))
    order = np.argsort(-condition) if n > size and condition.max() > 10 * np.median(condition) else None
    value = np.empty(n)
    gradient1, gradient2 = np.empty((2, n if gradients else 0, d, d))
    own = threading.local()

    def solve(i: int) -> None:
        block = slice(i, min(i + size, n)) if order is None else order[i : i + size]
        u1, u2, v1, v2 = factors[:, block]
        if not hasattr(own, "scratch"):
            own.scratch = [Scratch(min(n, size), d) for _ in range(5)]
        for buffer in own.scratch:
            buffer.resize(len(u1), d)
        polar = polar_by_newton_and_ladder(u1, u2, v1, v2, own.scratch)
        R = polar.matrices
        first, second = [buffer.matrices for buffer in own.scratch if buffer is not polar][:2]
        hard[block] |= ~(np.abs(squared_norms(R) - d) < 1e-13 * d)
        times_triangle(transposed(R), u2, lower=False, out=first)
        np.subtract(u1, first, out=first)  # (F - G R)ᵀ
        value[block] = squared_norms(first)
        if gradients:
            times_triangle(R, u1, lower=False, out=second)
            np.subtract(u2, second, out=second)  # (G - F Rᵀ)ᵀ
            gradient1[block] = triangle_times(v1, first, lower=False)
            gradient2[block] = triangle_times(v2, second, lower=False)

    _on_threads(threads, solve, range(0, n, size))
    return value, gradient1, gradient2, hard


def _on_threads(threads: int, work: Callable[[int], None], starts: range) -> None:
    """Do the parts, on several threads: products and LAPACK release the interpreter's lock."""

    def quietly(start: int) -> None:
        with np.errstate(all="ignore"):  # a state of the thread
            work(start)

    threads = min(threads, len(starts))
    if threads <= 1:
        for start in starts:
            quietly(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(quietly, starts))


def _one_by_one(cov1: ndarray, cov2: ndarray, *, gradients: bool) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    n, d, _ = cov1.shape
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    gradient1, gradient2 = np.empty((2, n if gradients else 0, d, d))
    for i in range(n):
        if not gradients:
            value[i], accurate = eigen.value_by_trace(cov1[i], cov2[i])
            if accurate:
                continue
        value[i], first, second, accurate = eigen.value_and_gradients(
            cov1[i], cov2[i], gradients=gradients, hopeless=HOPELESS
        )
        hard[i] = not accurate
        if gradients and accurate:
            gradient1[i], gradient2[i] = first.T, second.T
    return value, gradient1, gradient2, hard
