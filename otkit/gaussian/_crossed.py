r"""All pairs of two lists of covariances: each factor once, the matrices of a pair in a tile that stays in the cache.

The distance of a pair needs its polar factor R, and its gradients need no more than that. They are linear in the
residuals, so the inverse factors come out of the sum over pairs: with weights :math:`w_{ij}` (the incoming gradient)

.. math:: \sum_j w_{ij} \frac{\partial W_2^2(i, j)}{\partial \Sigma_i}
          = \Bigl(\sum_j w_{ij} (F_i - G_j R_{ij})\Bigr) F_i^{-1} .

Values and gradients are two passes over tiles of pairs; what a tile needs is dropped with it, and R is found again for
the gradients. Both lists are sorted by condition number, so that all pairs of a tile need about the same number of
steps, and singular covariances, whose R needs a decomposition, come together at the end.

For the value alone of larger pairs eigenvalues are faster: the trace form :math:`\operatorname{Tr}(\Sigma_1 + \Sigma_2)
- 2 \sum_k \lambda_k^{1/2}(F^\top \Sigma_2 F)`, which loses digits between near covariances. Its error shows in the
determinant (`eigen.trace_error`); it is taken, pair by pair, only where it is as good as Procrustes is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy import ndarray

from otkit.gaussian._bures import eigen, procrustes
from otkit.gaussian._bures.cholesky import EPS, factor_and_invert, squared_norms, transposed
from otkit.gaussian._bures.compiled import PARALLEL, Crossed, serves
from otkit.gaussian._bures.memory import empty
from otkit.gaussian._bures.polar import HOPELESS, Scratch, polar_by_newton_and_ladder
from otkit.gaussian._bures.threads import on_threads

T = TypeVar("T")

TILE_BYTES = 340_000
"""The size of one (pairs, d, d) array of a tile; about eight are alive."""
TRACE_SIZE = 48
"""The size from which eigenvalues are faster than R."""
THREADED_SIZE = 16
"""The size from which a tile takes longer than the interpreter's lock takes to change hands."""
PARTS = 16
"""Into how many parts the pairs are cut for threads, whatever the number of these, so that sums do not depend on it."""


class Factors(NamedTuple):
    """Covariances (n, d, d) with their transposed factors, sorted by condition number, singular ones last."""

    cov: ndarray
    trace: ndarray
    U: ndarray  # Fᵀ, upper triangular where regular
    V: ndarray  # (F⁻¹)ᵀ, of the pseudo-inverse where singular
    null: ndarray  # the projections onto the null spaces of the singular ones
    condition: ndarray  # lower bounds of the condition numbers of F
    log_det: ndarray  # log det F, where regular
    regular: int  # how many are regular
    order: ndarray  # where each stood before


def factors_of(name: str, cov: ndarray, eps: float) -> Factors:
    """The factors of contiguous covariances (n, d, d) in float64.

    Args:
        name: What an error calls the covariances.
        cov: The covariances.
        eps: The rounding of the entries, which decides what is indefinite.
    """
    n, d, _ = cov.shape
    with np.errstate(all="ignore"):  # what fails shows in `singular`
        U, V, condition = factor_and_invert(cov)
        singular = np.isinf(condition)
    null = np.zeros((n, d, d))
    if singular.any():
        parts = procrustes.factor(name, torch.from_numpy(cov[singular]), eps)
        F, inverse, null[singular] = (part.numpy() for part in parts)
        U, V = U.copy(), V.copy()
        U[singular], V[singular], condition[singular] = transposed(F), transposed(inverse), np.inf
    order = np.argsort(condition, kind="stable")
    regular = n - int(singular.sum())
    trace = np.trace(cov, axis1=1, axis2=2)
    cov, trace, condition = (each[order] for each in (cov, trace, condition))
    U, V = (np.take(each, order, axis=0, out=empty(n, d, d)) for each in (U, V))
    with np.errstate(all="ignore"):
        log_det = np.log(U.diagonal(axis1=1, axis2=2)).sum(1)
    return Factors(cov, trace, U, V, null[order[regular:]], condition, log_det, regular, order)


def squared_distances(first: Factors, second: Factors, *, half: bool) -> ndarray:
    """The squared Bures distances (n, m) of all pairs; with `half` the lists are one, and the matrix is symmetric."""
    d = first.cov.shape[-1]
    values = np.zeros((len(first.cov), len(second.cov)))

    def work(tiles: list[Tile]) -> None:
        scratch, lanes = _scratch(first, second), _lanes(first, second)
        by_trace = d >= TRACE_SIZE and lanes is None
        for rows, columns in tiles:
            pairs = None
            if lanes and _easy(first, second, rows, columns):
                tile = lanes.values(rows, columns)
            else:
                pairs = _pairs(first, second, rows, columns)
                tile = np.full(len(pairs.u2), np.nan)
                if by_trace and pairs.easy:
                    tile = _by_trace(first, second, rows, columns, pairs)
            missing = np.isnan(tile)
            if missing.any():
                pairs = pairs or _pairs(first, second, rows, columns)
                if not missing.all():
                    pairs = pairs.where(missing)
                tile[missing] = squared_norms(_residual(pairs.u1, _polar(pairs, scratch), pairs.u2))
            # Conditions grow from tile to tile: once eigenvalues were too rough for most pairs, the next ones are too.
            by_trace &= 2 * missing.sum() <= missing.size
            values[rows, columns] = tile.reshape(values[rows, columns].shape)

    _on_threads(work, first, second, half=half)
    values[_equal(values, first, second)] = 0
    if half:
        values = np.triu(values, 1)
        values += values.T
    out = np.empty_like(values)
    out[np.ix_(first.order, second.order)] = values
    return out


def weighted_gradients(
    first: Factors, second: Factors, values: ndarray, weights: ndarray, *, half: bool
) -> tuple[ndarray, ndarray]:
    """The gradients (n, d, d) and (m, d, d) of the sum of weights times the squared Bures distances.

    Args:
        first: The factors of the first list.
        second: The factors of the second list.
        values: The squared distances (n, m), by which equal pairs are recognised.
        weights: The weights, with shape (n, m).
        half: Whether the lists are one; the two results are then to be added.
    """
    shuffled = np.ix_(first.order, second.order)
    weights = np.where(values == 0, 0.0, weights)[shuffled]
    if half:
        weights = np.triu(weights + weights.T, 1)

    def work(tiles: list[Tile]) -> tuple[int, ndarray, ndarray]:
        scratch, lanes = _scratch(first, second), _lanes(first, second)
        start, stop = tiles[0][0].start, tiles[-1][0].stop
        sums1, sums2 = np.zeros_like(first.cov[start:stop]), np.zeros_like(second.cov)
        for rows, columns in tiles:
            w = weights[rows, columns]
            if lanes and _easy(first, second, rows, columns):
                missed = lanes.add_residuals(rows, columns, w, sums1, sums2, start)
                w = np.where(missed, w, 0)
            if not w.any():
                continue
            pairs = _pairs(first, second, rows, columns)
            R = _polar(pairs, scratch)
            residuals = _residual(pairs.u1, R, pairs.u2), _residual(pairs.u2, transposed(R), pairs.u1)
            here, there = (each.reshape(*w.shape, -1) for each in residuals)
            sums1[rows.start - start : rows.stop - start] += (w[:, None] @ here).reshape(-1, *sums1.shape[1:])
            for k, row in enumerate(w):
                sums2[columns] += (row[:, None] * there[k]).reshape(sums2[columns].shape)
        return start, sums1, sums2

    sums1, sums2 = np.zeros_like(first.cov), np.zeros_like(second.cov)
    for start, part1, part2 in _on_threads(work, first, second, half=half):
        sums1[start : start + len(part1)] += part1
        sums2 += part2
    out = []
    for each, sums, total in ((first, sums1, weights.sum(1)), (second, sums2, weights.sum(0))):
        gradient = np.matmul(each.V, sums)
        singular = gradient[each.regular :]
        singular -= singular @ each.null
        gradient = 0.5 * (gradient + transposed(gradient))
        gradient[each.regular :] += total[each.regular :, None, None] * each.null
        there = np.empty_like(gradient)
        there[each.order] = gradient
        out.append(there)
    return out[0], out[1]


Tile = tuple[slice, slice]


class _Pairs(NamedTuple):
    """The transposed factors of the pairs of a tile, with their inverses, all (k, d, d) or, of one row, (1, d, d)."""

    u1: ndarray
    u2: ndarray
    v1: ndarray
    v2: ndarray
    easy: bool

    def where(self, mask: ndarray) -> _Pairs:
        u1, u2, v1, v2 = (part if len(part) == 1 else part[mask] for part in self[:4])
        return _Pairs(u1, u2, v1, v2, self.easy)


def _pairs(first: Factors, second: Factors, rows: slice, columns: slice) -> _Pairs:
    a, b, d = rows.stop - rows.start, columns.stop - columns.start, first.cov.shape[-1]

    def repeated(one: ndarray, other: ndarray) -> tuple[ndarray, ndarray]:
        if a == 1:
            return one[rows], other[columns]
        shape = (a, b, d, d)
        left, right = np.broadcast_to(one[rows][:, None], shape), np.broadcast_to(other[columns], shape)
        return left.reshape(-1, d, d), right.reshape(-1, d, d)

    u1, u2 = repeated(first.U, second.U)
    return _Pairs(u1, u2, *repeated(first.V, second.V), _easy(first, second, rows, columns))


def _easy(first: Factors, second: Factors, rows: slice, columns: slice) -> bool:
    """Whether all factors of a tile are triangular, and no condition number is hopeless."""
    return bool(first.condition[rows.stop - 1] * second.condition[columns.stop - 1] < HOPELESS)


def _polar(pairs: _Pairs, scratch: list[Scratch]) -> ndarray:
    """The orthogonal polar factors R (k, d, d) of M = GᵀF, completed where M is singular."""
    n, d, _ = pairs.u2.shape
    if not pairs.easy:
        return _polar_by_svd(pairs.u1, pairs.u2)
    if d <= 2:
        R = _rotation(pairs.u2 @ transposed(pairs.u1))
    else:
        for buffer in scratch:
            buffer.resize(n, d)
        R = polar_by_newton_and_ladder(*pairs[:4], scratch).matrices
    # The polynomials never exceed one, so errors cannot cancel.
    missed = ~(np.abs(squared_norms(R) - d) < 1e-13 * d)
    if missed.any():
        few = pairs.where(missed)
        R[missed] = _polar_by_svd(few.u1, few.u2)
    return R


def _polar_by_svd(u1: ndarray, u2: ndarray) -> ndarray:
    U, _, Vh = torch.linalg.svd(torch.from_numpy(u2 @ transposed(u1)))
    return (U @ Vh).numpy()


def _rotation(M: ndarray) -> ndarray:
    """The polar factor where det M > 0 and d = 1 or 2: along (m11 + m22, m21 - m12)."""
    R = np.ones_like(M)
    if M.shape[-1] == 2:
        x, y = M[:, 0, 0] + M[:, 1, 1], M[:, 1, 0] - M[:, 0, 1]
        length = np.hypot(x, y)
        R[:, 0, 0] = R[:, 1, 1] = x / length
        R[:, 1, 0] = y / length
        R[:, 0, 1] = -R[:, 1, 0]
    return R


def _residual(u1: ndarray, R: ndarray, u2: ndarray) -> ndarray:
    """(F - G R)ᵀ, or (G - F Rᵀ)ᵀ for exchanged factors and a transposed R."""
    product = transposed(R) @ u2
    return np.subtract(u1, product, out=product)


def _by_trace(first: Factors, second: Factors, rows: slice, columns: slice, pairs: _Pairs) -> ndarray:
    """The squared distances (k,) of a tile by eigenvalues, NaN where the estimate of their error is too large."""
    M = pairs.u2 @ transposed(pairs.u1)
    eigenvalues = torch.linalg.eigvalsh(torch.from_numpy(np.matmul(transposed(M), M))).numpy()
    trace = np.add.outer(first.trace[rows], second.trace[columns]).ravel()
    values = trace - 2 * np.sqrt(eigenvalues).sum(1)
    log_det = 2 * np.add.outer(first.log_det[rows], second.log_det[columns]).ravel()
    condition = np.maximum.outer(first.condition[rows], second.condition[columns]).ravel()
    return np.where(eigen.accurate(values, eigenvalues, log_det, trace, condition), values, np.nan)


def _equal(values: ndarray, first: Factors, second: Factors) -> ndarray:
    """Which pairs are equal: those whose distance is a rounding, and those with a small one whose entries are equal."""
    rounding_level, trace = 8 * first.cov.shape[-1] * EPS, np.add.outer(first.trace, second.trace)
    equal, small = values <= rounding_level**2 * trace, values <= rounding_level * trace
    for i in np.flatnonzero(small.any(1)):
        equal[i, small[i]] |= (first.cov[i] == second.cov[small[i]]).all((1, 2))
    return equal


def _tile_size(first: Factors, second: Factors) -> tuple[int, int]:
    """How many rows and columns a tile has: one row, unless all the columns together are few."""
    pairs, lanes = max(1, TILE_BYTES // (8 * first.cov.shape[-1] ** 2)), _lanes(first, second)
    if lanes is not None:
        pairs = max(pairs, 8 * lanes.width)
    tiles = max(1, -(-len(second.cov) // pairs))
    columns = max(1, -(-len(second.cov) // tiles))  # all about equally wide
    if lanes is not None and columns < len(second.cov):
        columns = -(-columns // lanes.width) * lanes.width
    return max(1, min(pairs // columns, len(first.cov))), columns


def _lanes(first: Factors, second: Factors) -> Crossed | None:
    """Compiled loops, where they exist and are the fastest."""
    (n, d, _), m = first.cov.shape, len(second.cov)
    return Crossed((first.U, first.V), (second.U, second.V)) if serves(n * m, d) else None


def _scratch(first: Factors, second: Factors) -> list[Scratch]:
    a, b = _tile_size(first, second)
    return [Scratch(a * b, first.cov.shape[-1]) for _ in range(4)]


def _tiles(first: Factors, second: Factors, *, half: bool) -> Iterator[Tile]:
    """The tiles of the matrix of pairs, or of its upper half; none mixes regular with singular rows, or columns."""
    a, b = _tile_size(first, second)
    for rows in _slices(0, first, a):
        for columns in _slices(rows.start + (a == 1) if half else 0, second, b):
            yield rows, columns


def _slices(start: int, factors: Factors, size: int) -> Iterator[slice]:
    for begin, end in ((start, factors.regular), (max(start, factors.regular), len(factors.cov))):
        for i in range(begin, end, size):
            yield slice(i, min(i + size, end))


def _on_threads(work: Callable[[list[Tile]], T], first: Factors, second: Factors, *, half: bool) -> list[T]:
    """Do the work on the tiles in parts, on torch's number of threads: products and LAPACK release the lock."""
    tiles = list(_tiles(first, second, half=half))
    size = max(1, -(-len(tiles) // PARTS))
    parts = [tiles[i : i + size] for i in range(0, len(tiles), size)]
    d = first.cov.shape[-1]
    compiled = _lanes(first, second) is not None and len(first.cov) * len(second.cov) * d * d > PARALLEL
    return on_threads(torch.get_num_threads() if d >= THREADED_SIZE or compiled else 1, work, parts)
