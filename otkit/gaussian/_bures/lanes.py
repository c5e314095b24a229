r"""The squared Bures distance of as many pairs at once as a vector has lanes, each in its own.

The method is that of `polar`: Cholesky factors and their inverses, the Newton step, the polynomials of `ladder`, the
residuals. It gains from the layout of `tiles`: a Cholesky factor is as good for vector instructions as a product,
sizes need not fit a register, triangles and symmetry save the work that they promise, and a pair whose iteration fails
disturbs none beside it.

A group takes as many steps as the worst of its pairs, so pairs of a much larger condition number than others of their
group are put off, and solved among their like.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy import ndarray

from otkit._symmetry import skew
from otkit.gaussian._bures.cholesky import steepest
from otkit.gaussian._bures.ladder import DEEPEST, completed, steps_for
from otkit.gaussian._bures.memory import empty
from otkit.gaussian._bures.polar import NEWTON_CONDITION
from otkit.gaussian._bures.tiles import (
    TILE,
    add_to_diagonal,
    add_transposed,
    compiled,
    factor,
    gram,
    invert,
    kept,
    look,
    padded,
    product,
    read,
    scale,
    squared_norm,
    stride,
    subtract_product,
    symmetric_product,
    tile,
    write,
)
from otkit.gaussian._bures.vectors import LANES, in_all_lanes, larger, load, multiply_add, smaller, square_root, store


def room_for(d: int) -> ndarray:
    """Eight matrices of a group: four factors and inverses, and what the iteration needs."""
    p = padded(d)
    return empty(8 * p * stride(p) * LANES)


@functools.cache
def ladders() -> tuple[ndarray, ndarray]:
    """The sequences of steps for singular values in [2^(-k/16), 1], for each k, and their lengths.

    A step is its degree and the coefficients of `ladder.completed`.
    """
    sequences = [steps_for(k) for k in range(16 * DEEPEST + 1)]
    lengths = np.array([len(sequence) for sequence in sequences])
    steps = np.zeros((len(sequences), lengths.max(), 7))
    for k, sequence in enumerate(sequences):
        for step, row in zip(sequence, steps[k], strict=False):
            coefficients = completed(step)
            row[0], row[1 : len(coefficients) + 1] = step.degree, coefficients
    return steps, lengths


@compiled
def factor_and_invert(covs, pairs, room, p, L, V, inverses):
    """Factors and their inverses, padded by zeros, and two bounds, NaN where there is no factor.

    The ratio of the largest and the smallest number on the diagonal is a lower bound of the factor's condition number;
    the largest, squared, times |V|² is about the covariance's (`cholesky.steepest`).
    """
    d, q = covs.shape[-1], stride(p)
    read(covs, pairs, 1.0, room, p, L)
    factor(room, p, L, inverses)
    invert(room, p, V, L, inverses)
    least = largest = load(room, L)
    for k in range(1, d):
        pivot = load(room, L + k * q + k)
        least, largest = smaller(pivot, least), larger(pivot, largest)  # the last is NaN where one is
    zero = in_all_lanes(0.0)
    for k in range(d, p):
        store(room, L + k * q + k, zero)
        store(room, V + k * q + k, zero)
    return largest / least, largest * largest * squared_norm(room, p, V)


@compiled
def newton(room, p, d, X, A, Y, multiples, scales, lowest):
    """The Newton step X + q Y for Y the inverse of Xᵀ, its scaling to at most one, and A = XᵀX before that.

    Where the inverse is too rough, X stays as it is.

    Args:
        room: All matrices.
        p: Their size.
        d: Their size without padding.
        X: M, which is overwritten.
        A: Receives XᵀX, not scaled.
        Y: M⁻ᵀ.
        multiples: Receives q (LANES,), 0 where X stays.
        scales: Receives the squares (LANES,) of what X is scaled by.
        lowest: Receives lower bounds (LANES,) of the singular values.
    """
    store(scales, 0, squared_norm(room, p, X))
    store(lowest, 0, squared_norm(room, p, Y))
    for lane in range(LANES):
        if scales[lane] * lowest[lane] < NEWTON_CONDITION**2:
            multiples[lane] = math.sqrt(scales[lane] / lowest[lane])
            lowest[lane] = 2 * math.sqrt(multiples[lane])
        else:
            multiples[lane] = 0.0
            lowest[lane] = 1 / math.sqrt(lowest[lane])
    factors = load(multiples, 0)
    for k in range(p * stride(p)):
        store(room, X + k, multiply_add(factors, load(room, Y + k), load(room, X + k)))
    gram(room, p, A, 1.0, X, 0.0)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980, theorem 2.1).
    zero = mean = in_all_lanes(0.0)
    for place in range(A, A + p * stride(p), stride(p) + 1):
        mean = mean + load(room, place)
    mean = mean * in_all_lanes(1 / d)
    variance = larger(squared_norm(room, p, A) * in_all_lanes(1 / d) - mean * mean, zero)
    largest = mean + square_root(in_all_lanes(d - 1.0) * variance)
    inverse = in_all_lanes(1 / (1 + 1e-14 * d)) / largest
    factors = square_root(inverse)
    scale(room, p, X, factors)
    store(scales, 0, inverse)
    store(lowest, 0, factors * load(lowest, 0))


@compiled
def climb(room, p, X, A, Z, Y, steps, scales):
    """Apply polynomials to X in turn, where A is XᵀX before its scaling.

    Returns:
        Where the result is, and three matrices that are free.
    """
    for k in range(len(steps)):
        degree, r, shift = steps[k, 0], steps[k, 1], steps[k, 2]
        if k == 0:
            scale(room, p, A, in_all_lanes(r) * load(scales, 0))
        else:
            gram(room, p, A, r, X, 0.0)
        add_to_diagonal(room, p, A, shift)
        if degree > 3:
            gram(room, p, Z, 1.0, A, 0.0)
            add_to_diagonal(room, p, Z, steps[k, 3])
            if degree == 9:
                gram(room, p, A, steps[k, 4], Z, steps[k, 5])
                add_to_diagonal(room, p, A, steps[k, 6])
            else:
                A, Z = Z, A
        product(room, p, Y, X, A)
        X, Y = Y, X
    return X, A, Z, Y


@compiled
def pick(condition, hopeless, steepness, limit, alike, usable, wanted):
    """Which lanes are still usable, of those usable before, and which of these are wanted now, not put off."""
    least = second = np.inf
    for lane in range(LANES):
        usable[lane] = usable[lane] and condition[lane] < hopeless and steepness[lane] < limit
        if usable[lane] and condition[lane] < second:
            least, second = min(least, condition[lane]), max(least, condition[lane])
    for lane in range(LANES):
        wanted[lane] = usable[lane] and not condition[lane] > alike * second


@compiled
def ladder_for(lowest, wanted, lengths):
    """The number of the sequence that serves all lanes that are wanted."""
    least = 1.0
    for lane in range(LANES):
        if wanted[lane] and lowest[lane] < least:
            least = lowest[lane]
    k = math.ceil(-16 * math.log2(max(least, 2.0**-DEEPEST)) - 1e-9)
    return min(max(k, 0), len(lengths) - 1)


@compiled
def is_orthogonal(norm, d):
    """The certificate of `blocks`."""
    return abs(norm - d) < 1e-13 * d


@compiled
def solve_group(room, p, d, wanted, ladders, norms, squares):
    """The polar factors R and the residuals of a group, from F, F⁻¹, G, G⁻¹, the first four matrices.

    Args:
        room: All matrices.
        p: Their size.
        d: Their size without padding.
        wanted: For which lanes there have to be enough steps.
        ladders: What `ladders` gave.
        norms: Receives the squared norms (LANES,) of R.
        squares: Receives those of F - G R.

    Returns:
        Where R and F - G R are, and two matrices that are free.
    """
    size, lowest = p * stride(p), np.empty(LANES)
    # A multiple of size, as for a constant 0 Numba would compile everything below once more.
    F, F_inverse, G, G_inverse, X, A, Z, Y = 0 * size, size, 2 * size, 3 * size, 4 * size, 5 * size, 6 * size, 7 * size
    for i in range(0, p, TILE):
        for j in range(0, p, TILE):
            tile(room, p, X, i, j, G, True, F, False, max(i, j), p, 1.0, 0.0, X, False)  # M
            tile(room, p, Y, i, j, G_inverse, False, F_inverse, True, 0, min(i, j) + TILE, 1.0, 0.0, Y, False)  # M⁻ᵀ
    newton(room, p, d, X, A, Y, norms, squares, lowest)
    steps, lengths = ladders
    k = ladder_for(lowest, wanted, lengths)
    R, residual, spare, other = climb(room, p, X, A, Z, Y, steps[k, : lengths[k]], squares)
    store(norms, 0, squared_norm(room, p, R))
    subtract_product(room, p, residual, F, G, R, False)
    store(squares, 0, squared_norm(room, p, residual))
    return R, residual, spare, other


@kept
def _solve(cov1, cov2, skew, order, hopeless, limit, alike, room, ladders, out):
    d, n = cov1.shape[-1], len(order)
    p = padded(d)
    size = p * stride(p)
    F, F_inverse, G, G_inverse = 0 * size, size, 2 * size, 3 * size
    room[:] = 0.0  # above the diagonals of factors, where nothing else writes
    value, gradient1, gradient2, hard, sums, later, conditions = out
    put_off, pairs = 0, np.empty(LANES, np.int64)
    usable, wanted = np.empty(LANES, np.bool_), np.empty(LANES, np.bool_)
    norms, squares, condition, steepness = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    inverses = np.empty(p * LANES)
    for start in range(0, n, LANES):
        for lane in range(LANES):
            usable[lane] = start + lane < n
            pairs[lane] = order[min(start + lane, n - 1)]
        look(cov1, pairs, skew, sums[0])
        look(cov2, pairs, skew, sums[1])
        ratio1, steep1 = factor_and_invert(cov1, pairs, room, p, F, F_inverse, inverses)
        ratio2, steep2 = factor_and_invert(cov2, pairs, room, p, G, G_inverse, inverses)
        store(condition, 0, ratio1 * ratio2)
        store(steepness, 0, larger(steep1, steep2))
        pick(condition, hopeless, steepness, limit, alike, usable, wanted)
        R, first, second, spare = solve_group(room, p, d, wanted, ladders, norms, squares)
        for lane in range(min(LANES, n - start)):
            pair = pairs[lane]
            hard[pair] = not usable[lane]
            if wanted[lane]:
                value[pair] = squares[lane]
                wanted[lane] = is_orthogonal(norms[lane], d)
                hard[pair] = not wanted[lane]
            elif usable[lane]:
                later[put_off], conditions[put_off] = pair, condition[lane]
                put_off += 1
        if len(gradient1):
            subtract_product(room, p, second, G, F, R, True)
            symmetric_product(room, p, spare, first, F_inverse)
            write(room, p, spare, pairs, wanted, gradient1)
            symmetric_product(room, p, spare, second, G_inverse)
            write(room, p, spare, pairs, wanted, gradient2)
    return put_off


@kept
def _solve_factors(U1, V1, U2, V2, rows, columns, room, ladders, value, missed, weights, sums1, sums2, offset):
    d, n = U1.shape[-1], len(rows)
    p = padded(d)
    size = p * stride(p)
    F, F_inverse, G, G_inverse = 0 * size, size, 2 * size, 3 * size
    room[:] = 0.0
    row, column, weight = np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES)
    wanted, norms, squares = np.empty(LANES, np.bool_), np.empty(LANES), np.empty(LANES)
    for start in range(0, n, LANES):
        for lane in range(LANES):
            wanted[lane] = start + lane < n
            row[lane], column[lane] = rows[min(start + lane, n - 1)], columns[min(start + lane, n - 1)]
        read(U1, row, 0.0, room, p, F)
        read(V1, row, 0.0, room, p, F_inverse)
        read(U2, column, 0.0, room, p, G)
        read(V2, column, 0.0, room, p, G_inverse)
        R, first, second, _ = solve_group(room, p, d, wanted, ladders, norms, squares)
        for lane in range(min(LANES, n - start)):
            wanted[lane] = is_orthogonal(norms[lane], d)
            value[start + lane], missed[start + lane] = squares[lane], not wanted[lane]
        if len(weights):
            for lane in range(LANES):
                weight[lane] = weights[min(start + lane, n - 1)]
                row[lane] -= offset
            add_transposed(room, p, first, weight, row, wanted, sums1)
            subtract_product(room, p, second, G, F, R, True)
            add_transposed(room, p, second, weight, column, wanted, sums2)


def solve(
    cov1: ndarray,
    cov2: ndarray,
    order: ndarray,
    out: tuple[ndarray, ndarray, ndarray, ndarray, ndarray],
    room: ndarray,
    *,
    hopeless: float,
    alike: float,
) -> tuple[ndarray, ndarray]:
    """The numbers of some pairs of covariances.

    Args:
        cov1: The first covariances, contiguous float64, with shape (n, d, d).
        cov2: The second covariances.
        order: Which pairs, in which order.
        out: Receives the value (n,), the gradients (n, d, d), of length 0 where they are not wanted, which pairs are
            hard (n,), and what `require_symmetric` looks at (2, n, 2).
        room: What `room_for` gave.
        hopeless: The condition number of M, as far as it shows on the diagonals, beyond which a pair is hard.
        alike: How much larger than others' of its group a pair's condition number is for the pair to be put off.

    Returns:
        Which were put off, and their condition numbers.
    """
    d = cov1.shape[-1]
    later, conditions = np.empty(len(order), np.int64), np.empty(len(order))
    out_and_later = (*out, later, conditions)
    limits = hopeless, steepest(d), alike
    put_off = _solve(cov1, cov2, skew(d).reshape(d, d), order, *limits, room, ladders(), out_and_later)
    return later[:put_off], conditions[:put_off]


def solve_factors(
    first: tuple[ndarray, ndarray],
    second: tuple[ndarray, ndarray],
    rows: ndarray,
    columns: ndarray,
    room: ndarray,
    sums: tuple[ndarray, ndarray, ndarray, int] | None = None,
) -> tuple[ndarray, ndarray]:
    """The numbers of some of the pairs of two lists, whose factors and inverses are known.

    Args:
        first: Transposed factors of the first list, upper triangular, and their inverses, with shape (n, d, d).
        second: Those of the second list, with shape (m, d, d).
        rows: Which of the first list, with shape (k,).
        columns: Which of the second.
        room: What `room_for` gave.
        sums: Weights (k,), with which (F - G R)ᵀ and (G - F Rᵀ)ᵀ are added to sums over rows (., d, d) and over columns
            (m, d, d), and the row of the first of these sums.

    Returns:
        The value (k,), and whether it missed its certificate (k,); such pairs are not added.
    """
    value, missed = np.empty(len(rows)), np.empty(len(rows), dtype=bool)
    none = np.empty((0, 0, 0))
    weights, sums1, sums2, offset = sums or (np.empty(0), none, none, 0)
    _solve_factors(*first, *second, rows, columns, room, ladders(), value, missed, weights, sums1, sums2, offset)
    return value, missed
