r"""The squared Bures distance of a batch of pairs on a CPU: the fastest route by size, a fallback by matrix.

    ======================  ==============================================================================
    d = 1, 2                closed forms (`planar`)
    d <= 128, with Numba    Cholesky factors, Newton step, polynomials, of many pairs at once (`compiled`, `lanes`)
    d < 128                 Cholesky factors, Newton step, polynomials (`cholesky`, `polar`), block by block
    d < 256, on threads     the same, the products by torch (`fused`); with threadpoolctl only for the value alone
    larger                  Newton step, Halley's iteration (`halley`), pair by pair, with threadpoolctl on threads
    larger, value alone     eigenvalues alone, where their error allows (`eigen`)
    singular, cond > 1e10   `procrustes`, as are pairs whose iteration misses its certificate
    ======================  ==============================================================================

The certificate of the polynomials is :math:`\|R\|_F^2 = d` to rounding: none of them exceeds one, so errors cannot
cancel. All products keep the residual together, :math:`\partial/\partial\Sigma_1 = (F - G R) F^{-1}`, so nothing like
I - T is ever subtracted. Work goes in blocks that stay in the cache; pairs of a much larger condition number than
others of their block are put off and solved among their like, so that a block has no more steps than it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy import ndarray

from otkit._arguments import allowance
from otkit._symmetry import KEPT, require_symmetric, skew, skew_and_identity, skewness_and_trace
from otkit.gaussian._bures import compiled, eigen, halley, planar, procrustes
from otkit.gaussian._bures.cholesky import factor_and_invert
from otkit.gaussian._bures.fused import Fused
from otkit.gaussian._bures.memory import empty
from otkit.gaussian._bures.polar import ALIKE, HOPELESS, Loops
from otkit.gaussian._bures.threads import blas, blas_on_one_thread, on_threads

BLOCK_BYTES = 400_000
"""The size of one (n, d, d) array of a block; about eight are alive."""
LONGEST_RUN, SHORTEST_RUNS = 16, 4
"""The most blocks of a run, and the fewest runs into which a batch is cut, for threads."""
THREADED_SIZE = 16
"""The size from which a product takes longer than the interpreter's lock takes to change hands."""
FUSED = 65
"""The size from which OpenBLAS would start threads of its own for a product, in each of several threads."""
LARGE, SINGLE = 128, 256
"""The sizes from which factors of single matrices beat polynomials of many, on one thread and where several share."""

Look = Callable[[slice], None]
Result = tuple[ndarray, ndarray, ndarray, ndarray]


def value_and_gradients(cov1: ndarray, cov2: ndarray, eps: float, *, gradients: bool, validate: bool) -> Result:
    """The value (n,), the gradients I - T and I - T⁻¹ (n, d, d), empty where not wanted, and Tr(Σ1 + Σ2) (n,).

    Args:
        cov1: The first covariances, contiguous float64.
        cov2: The second covariances.
        eps: The rounding of the entries, which decides what is indefinite.
        gradients: Whether the gradients are wanted.
        validate: Whether to check that the covariances are finite and symmetric.
    """
    n, d, _ = cov1.shape
    sums = np.empty((2, n, 2))
    threads = torch.get_num_threads()

    def look(part: slice) -> None:
        """What `require_symmetric` looks at, for some pairs."""
        for k, cov in enumerate((cov1, cov2)):
            rows = cov[part].reshape(-1, d * d)
            if d < LARGE:
                np.matmul(rows, skew_and_identity(d), out=sums[k, part])
            elif d > KEPT:
                sums[k, part] = np.stack(skewness_and_trace(cov[part]), -1)
            else:
                np.einsum("ij,j->i", rows, skew(d), out=sums[k, part, 0])  # a thread of BLAS would spin for long
                rows[:, :: d + 1].sum(1, out=sums[k, part, 1])

    with np.errstate(all="ignore"):  # what fails shows in `hard`
        by_eigenvalues = d >= LARGE and threads == 1 and not gradients
        shared = gradients and 1 < threads <= n and blas() is not None
        if compiled.serves(n, d) and not by_eigenvalues:
            value, gradient1, gradient2, hard = compiled.by_lanes(cov1, cov2, sums, threads, gradients=gradients)
        elif 2 < d < (LARGE if shared or min(n, threads) == 1 else SINGLE):
            value, gradient1, gradient2, hard = _by_blocks(cov1, cov2, look, threads, gradients=gradients)
        else:
            look(slice(n))
            if d <= 2:
                route = planar.line if d == 1 else planar.plane
                value, gradient1, gradient2, hard = route(cov1, cov2, gradients=gradients)
            else:
                several = threads if shared else 1
                value, gradient1, gradient2, hard = _one_by_one(cov1, cov2, several, gradients=gradients)
        skewness, trace = sums.transpose(2, 0, 1)
        suspect = validate and not bool((np.abs(skewness) <= allowance(64 * d, eps) / d * trace).all())
    if suspect:
        for name, cov in (("cov1", cov1), ("cov2", cov2)):
            require_symmetric(name, torch.from_numpy(cov), eps)
    if hard.any():
        first, second = torch.from_numpy(cov1[hard]), torch.from_numpy(cov2[hard])
        value[hard], first, second = (part.numpy() for part in procrustes.value_and_gradients(first, second, eps))
        if gradients:
            gradient1[hard], gradient2[hard] = first, second
    return value, gradient1, gradient2, trace.sum(0)


def _by_blocks(cov1: ndarray, cov2: ndarray, look: Look, threads: int, *, gradients: bool) -> Result:
    n, d, _ = cov1.shape
    most = max(1, BLOCK_BYTES // (8 * d * d))
    runs = max(SHORTEST_RUNS, -(-n // (LONGEST_RUN * most)))
    run = max(1, -(-n // runs))  # all about equally long, and their blocks about equally large
    size = -(-run // -(-run // most))
    shared = threads > 1 and d >= FUSED
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    gradient1, gradient2 = empty(2, n if gradients else 0, d, d)
    results = (value, hard, gradient1, gradient2) if gradients else (value, hard)
    own = threading.local()

    def blocks_of_a_run(first: int) -> None:
        """Factor and solve block by block; pairs that need more steps than others are put off to the end."""
        if not hasattr(own, "memory"):
            own.memory = empty(4 * size * d * d)
            own.room = (Fused if shared else Loops)(size, d)
        last, later = min(first + run, n), []
        for start in range(first, last, size):
            part = slice(start, min(start + size, last))
            k = part.stop - start
            factors = own.memory[: 4 * k * d * d].reshape(4, k, d, d)
            U, V = factors.reshape(2, 2 * k, d, d)
            look(part)  # which brings them into the cache
            _, _, condition = factor_and_invert(cov1[part], cov2[part], out=(U, V), shared=shared)
            condition = condition.reshape(2, k).prod(0)
            failed = ~(condition < HOPELESS)
            if failed.any():
                factors[:, failed] = np.eye(d)
                condition[failed] = 1
            hard[part] = failed
            if not condition.max() > ALIKE * condition.min():
                solve(factors, part)
                continue
            steep = condition > ALIKE * np.partition(condition, k // 8)[k // 8]
            where = np.flatnonzero(steep)
            later.append((condition[where], where + start, factors[:, where]))
            # The last of the others take their places for a while.
            k -= len(where)
            places, others = where[where < k], k + np.flatnonzero(~steep[k:])
            factors[:, places] = factors[:, others]
            hard[start + places], hard[start + others] = hard[start + others], False
            solve(factors[:, :k], slice(start, start + k))
            for each in results:
                each[start + others] = each[start + places]
            hard[start + places] = False
        if later:
            conditions, places, kept = zip(*later, strict=True)
            order = np.argsort(np.concatenate(conditions))
            places, factors = np.concatenate(places)[order], np.concatenate(kept, axis=1)[:, order]
            for start in range(0, len(order), size):
                some = slice(start, start + size)
                solve(factors[:, some], places[some])

    def solve(factors: ndarray, where: slice | ndarray) -> None:
        """The numbers of the pairs that stand `where`, from their factors (4, k, d, d)."""
        _, _, v1, v2 = factors
        own.room.resize(len(v1), d)
        norms, value[where], first, second, spare = own.room.residuals(*factors, second=gradients)
        hard[where] |= ~(np.abs(norms - d) < 1e-13 * d)
        if not gradients:
            return
        for gradient, v, residual in ((gradient1, v1, first), (gradient2, v2, second)):
            if isinstance(where, slice):
                own.room.product(v, residual, out=gradient[where])
            else:
                gradient[where] = own.room.product(v, residual, out=spare)

    on_threads(threads if d >= THREADED_SIZE else 1, blocks_of_a_run, range(0, n, run))
    return value, gradient1, gradient2, hard


def _one_by_one(cov1: ndarray, cov2: ndarray, threads: int, *, gradients: bool) -> Result:
    n, d, _ = cov1.shape
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    gradient1, gradient2 = empty(2, n if gradients else 0, d, d)

    own = threading.local()

    def solve(i: int) -> None:
        if not gradients:
            value[i], accurate = eigen.value_by_trace(cov1[i], cov2[i])
            if accurate:
                return
        if not hasattr(own, "room"):
            own.room = halley.Room(d)
        value[i], first, second, accurate = halley.value_and_gradients(
            cov1[i], cov2[i], own.room, gradients=gradients, hopeless=HOPELESS
        )
        hard[i] = not accurate
        if gradients and accurate:
            gradient1[i], gradient2[i] = first.T, second.T

    with blas_on_one_thread() if threads > 1 else nullcontext():
        on_threads(threads, solve, range(n))
    return value, gradient1, gradient2, hard
