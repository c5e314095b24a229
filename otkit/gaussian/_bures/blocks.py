r"""The squared Bures distance of a batch of pairs on a CPU: the fastest route by size, a fallback by matrix.

    ======================  ==============================================================================
    d = 1, 2                closed forms (`planar`)
    d < 128                 Cholesky factors by blocks, Newton step, polynomials (`cholesky`, `polar`)
    larger                  Newton step, Halley's iteration (`halley`), pair by pair
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy import ndarray

from otkit._arguments import require_symmetric, skew_and_identity
from otkit.gaussian._bures import eigen, halley, planar, procrustes
from otkit.gaussian._bures.cholesky import (
    factor_and_invert,
    spread,
    squared_norms,
    times_triangle,
    transposed,
    triangle_times,
)
from otkit.gaussian._bures.polar import Scratch, polar_by_newton_and_ladder

BLOCK_BYTES = 250_000
"""The size of one (n, d, d) array of a block; about nine are alive."""
ALIKE = 50.0
"""The ratio of condition numbers that is worth about one step."""
THREADED_SIZE = 32
"""The size from which a product takes longer than the interpreter's lock takes to change hands."""
LARGE = 128
"""The size from which factors of single matrices are faster than polynomials of many."""
HOPELESS = 1e10
"""The condition number of M, as far as it shows on the diagonals, beyond which polynomials are not tried."""

Look = Callable[[slice], None]
Result = tuple[ndarray, ndarray, ndarray, ndarray]


def value_and_gradients(cov1: ndarray, cov2: ndarray, eps: float, *, gradients: bool, validate: bool = True) -> Result:
    """The value (n,), the gradients I - T and I - T⁻¹ (n, d, d), empty where not wanted, and Tr(Σ1 + Σ2) (n,).

    Args:
        cov1: The first covariances, contiguous float64.
        cov2: The second covariances.
        eps: The rounding of the entries, which decides what is indefinite.
        gradients: Whether the gradients are wanted.
        validate: Whether to check that the covariances are finite and symmetric.
    """
    n, d, _ = cov1.shape
    probes = skew_and_identity(d)
    skew, trace = np.empty((2, n, 2))

    def look(part: slice) -> None:
        """What `require_symmetric` looks at, while a block is on its way into the cache."""
        for k, cov in enumerate((cov1, cov2)):
            sums = cov[part].reshape(-1, d * d) @ probes
            skew[part, k], trace[part, k] = sums[:, 0], sums[:, 1]

    with np.errstate(all="ignore"):  # what fails shows in `hard`
        if 2 < d < LARGE:
            value, gradient1, gradient2, hard = _by_blocks(cov1, cov2, look, gradients=gradients)
        else:
            look(slice(None))
            route = planar.line if d == 1 else planar.plane if d == 2 else _one_by_one
            value, gradient1, gradient2, hard = route(cov1, cov2, gradients=gradients)
        suspect = validate and not bool((np.abs(skew) <= 64 * eps * trace).all())
    if suspect:
        for name, cov in (("cov1", cov1), ("cov2", cov2)):
            require_symmetric(name, torch.from_numpy(cov), eps)
    if hard.any():
        first, second = torch.from_numpy(cov1[hard]), torch.from_numpy(cov2[hard])
        value[hard], first, second = (part.numpy() for part in procrustes.value_and_gradients(first, second, eps))
        if gradients:
            gradient1[hard], gradient2[hard] = first, second
    return value, gradient1, gradient2, trace.sum(1)


def _by_blocks(cov1: ndarray, cov2: ndarray, look: Look, *, gradients: bool) -> Result:
    n, d, _ = cov1.shape
    size = max(1, min(n, BLOCK_BYTES // (8 * d * d)))
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    gradient1, gradient2 = np.empty((2, n if gradients else 0, d, d))
    own = threading.local()

    def block(start: int) -> None:
        if not hasattr(own, "factors"):
            own.factors = np.empty((4, size, d, d))
            own.scratch = [Scratch(size, d) for _ in range(5)]
        part = slice(start, min(start + size, n))
        factors = own.factors[:, : part.stop - start]
        U1, U2, V1, V2 = factors
        look(part)
        failed = factor_and_invert(cov1[part], (U1, V1))[2] | factor_and_invert(cov2[part], (U2, V2))[2]
        condition = spread(U1) * spread(U2)
        failed |= ~(condition < HOPELESS)
        if failed.any():
            factors[:, failed] = np.eye(d)
            condition[failed] = 1
        for some in _alike(condition):
            u1, u2, v1, v2 = factors[:, some]
            for buffer in own.scratch:
                buffer.resize(len(u1), d)
            polar = polar_by_newton_and_ladder(u1, u2, v1, v2, own.scratch)
            R = polar.matrices
            first, second = [buffer.matrices for buffer in own.scratch if buffer is not polar][:2]
            failed[some] |= ~(np.abs(squared_norms(R) - d) < 1e-13 * d)
            times_triangle(transposed(R), u2, lower=False, out=first)
            np.subtract(u1, first, out=first)  # (F - G R)ᵀ
            value[part][some] = squared_norms(first)
            if gradients:
                times_triangle(R, u1, lower=False, out=second)
                np.subtract(u2, second, out=second)  # (G - F Rᵀ)ᵀ
                for gradient, v, residual in ((gradient1, v1, first), (gradient2, v2, second)):
                    if isinstance(some, slice):
                        triangle_times(v, residual, lower=False, out=gradient[part])
                    else:
                        gradient[part][some] = triangle_times(v, residual, lower=False)
        hard[part] = failed

    _on_threads(torch.get_num_threads() if d >= THREADED_SIZE else 1, block, range(0, n, size))
    return value, gradient1, gradient2, hard


def _alike(condition: ndarray) -> Iterator[slice | ndarray]:
    """Cut pairs into groups of which the condition numbers (n,) differ so little that they need the same steps."""
    if condition.max() < ALIKE * condition.min():
        yield slice(None)
        return
    order = np.argsort(-condition)
    while len(order):
        some = int((condition[order] * ALIKE > condition[order[0]]).sum())
        yield order[:some]
        order = order[some:]


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


def _one_by_one(cov1: ndarray, cov2: ndarray, *, gradients: bool) -> Result:
    n, d, _ = cov1.shape
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    gradient1, gradient2 = np.empty((2, n if gradients else 0, d, d))
    for i in range(n):
        if not gradients:
            value[i], accurate = eigen.value_by_trace(cov1[i], cov2[i])
            if accurate:
                continue
        value[i], first, second, accurate = halley.value_and_gradients(
            cov1[i], cov2[i], gradients=gradients, hopeless=HOPELESS
        )
        hard[i] = not accurate
        if gradients and accurate:
            gradient1[i], gradient2[i] = first.T, second.T
    return value, gradient1, gradient2, hard
