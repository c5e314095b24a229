r"""The squared Bures distance compiled by Numba: as many pairs at once as a vector has lanes, each in its own.

The method is that of `polar`: Cholesky factors and their inverses, the Newton step, the polynomials of `ladder`, the
residuals. What it gains is in the layout. A matrix is an array of vectors, entry (i, j) of all the pairs of a group in
one, so that a Cholesky factor is as good for vector instructions as a product, sizes need not fit a register, triangles
and symmetry save the work that they promise, and a pair whose iteration fails disturbs none beside it. Matrices are
padded by zeros to whole tiles of `TILE` x `TILE`, whose sums of products stay in registers.

A group takes as many steps as the worst of its pairs, so pairs of a much larger condition number than others of their
group are put off, and solved among their like.

All matrices of a group lie in one array, `room`, and are named by where they start, counted in vectors.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import numba
import numpy as np
from numba import types
from numpy import ndarray

from otkit._arguments import skew
from otkit.gaussian._bures.ladder import DEEPEST, completed, steps_for
from otkit.gaussian._bures.memory import empty
from otkit.gaussian._bures.polar import NEWTON_CONDITION
from otkit.gaussian._bures.vectors import (
    LANES,
    in_all_lanes,
    larger,
    load,
    multiply_add,
    smaller,
    square_root,
    store,
)

TILE = 4
"""Rows and columns of a tile: sixteen sums, as many as leave registers for what is added."""
njit: Any = numba.njit  # of which no type checker knows all options
compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what is called by compiled functions alone."""


def padded(d: int) -> int:
    """The next multiple of `TILE`."""
    return -(-d // TILE) * TILE


def room_for(d: int) -> ndarray:
    """What `solve` works in."""
    return empty(8 * padded(d) ** 2 * LANES)


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


# Rows and tiles of vectors


@compiled
def row_at(room, place, stride):
    """Four vectors, a stride apart."""
    return load(room, place), load(room, place + stride), load(room, place + 2 * stride), load(room, place + 3 * stride)


@compiled
def write_row(room, place, stride, row):
    """Put four vectors down, a stride apart."""
    store(room, place, row[0])
    store(room, place + stride, row[1])
    store(room, place + 2 * stride, row[2])
    store(room, place + 3 * stride, row[3])


@compiled
def add_multiple(a, row, to):
    """A row and a times another."""
    return (
        multiply_add(a, row[0], to[0]),
        multiply_add(a, row[1], to[1]),
        multiply_add(a, row[2], to[2]),
        multiply_add(a, row[3], to[3]),
    )


@compiled
def tile(room, p, out, i, j, A, A_transposed, B, B_transposed, first, last, alpha, beta, base, mirrored):
    """The tile at (i, j) of alpha A B + beta base, where the sum over k goes from `first` up to `last`.

    Args:
        room: All matrices, each with shape (p, p, LANES).
        p: Their size.
        out: Where the result goes; the tile at (j, i) receives the transposed one where it is `mirrored`.
        i: The tile's first row.
        j: Its first column.
        A: The left factor, or its transposed.
        A_transposed: Whether it is.
        B: The right factor, or its transposed.
        B_transposed: Whether it is.
        first: The first k.
        last: The k after the last.
        alpha: A number.
        beta: Another; where it is zero the base is not read.
        base: A matrix.
        mirrored: Whether the result is symmetric.
    """
    a_row, a_column = (1, p) if A_transposed else (p, 1)
    b_row, b_column = (1, p) if B_transposed else (p, 1)
    zero = in_all_lanes(0.0)
    c0 = c1 = c2 = c3 = (zero, zero, zero, zero)
    a, b = A + i * a_row + first * a_column, B + first * b_row + j * b_column
    for _ in range(first, last):
        row = row_at(room, b, b_column)
        c0 = add_multiple(load(room, a), row, c0)
        c1 = add_multiple(load(room, a + a_row), row, c1)
        c2 = add_multiple(load(room, a + 2 * a_row), row, c2)
        c3 = add_multiple(load(room, a + 3 * a_row), row, c3)
        a += a_column
        b += b_row
    place, factor = i * p + j, in_all_lanes(alpha)
    none = (zero, zero, zero, zero)
    r0 = r1 = r2 = r3 = none
    if beta != 0.0:
        share = in_all_lanes(beta)
        r0 = add_multiple(share, row_at(room, base + place, 1), none)
        r1 = add_multiple(share, row_at(room, base + place + p, 1), none)
        r2 = add_multiple(share, row_at(room, base + place + 2 * p, 1), none)
        r3 = add_multiple(share, row_at(room, base + place + 3 * p, 1), none)
    c0, c1 = add_multiple(factor, c0, r0), add_multiple(factor, c1, r1)
    c2, c3 = add_multiple(factor, c2, r2), add_multiple(factor, c3, r3)
    place += out
    write_row(room, place, 1, c0)
    write_row(room, place + p, 1, c1)
    write_row(room, place + 2 * p, 1, c2)
    write_row(room, place + 3 * p, 1, c3)
    if mirrored and i != j:
        place = out + j * p + i
        write_row(room, place, p, c0)
        write_row(room, place + 1, p, c1)
        write_row(room, place + 2, p, c2)
        write_row(room, place + 3, p, c3)


# Matrices


@compiled
def product(room, p, out, A, B):
    """A B."""
    for i in range(0, p, TILE):
        for j in range(0, p, TILE):
            tile(room, p, out, i, j, A, False, B, False, 0, p, 1.0, 0.0, out, False)


@compiled
def gram(room, p, out, alpha, A, beta):
    """Alpha AᵀA + beta out, at half the work."""
    for i in range(0, p, TILE):
        for j in range(0, i + 1, TILE):
            tile(room, p, out, i, j, A, True, A, False, 0, p, alpha, beta, out, True)


@compiled
def add_to_diagonal(room, p, A, number):
    """A + number I, in place."""
    summand = in_all_lanes(number)
    for place in range(A, A + p * p, p + 1):
        store(room, place, load(room, place) + summand)


@compiled
def scale(room, p, A, factors):
    """Multiply the matrices of A by the numbers of a vector, in place."""
    for place in range(A, A + p * p):
        store(room, place, factors * load(room, place))


@compiled
def squared_norm(room, p, A):
    """The squared Frobenius norms."""
    zero = in_all_lanes(0.0)
    s0 = s1 = s2 = s3 = zero
    for place in range(A, A + p * p, 4):
        v0, v1, v2, v3 = row_at(room, place, 1)
        s0, s1 = multiply_add(v0, v0, s0), multiply_add(v1, v1, s1)
        s2, s3 = multiply_add(v2, v2, s2), multiply_add(v3, v3, s3)
    return (s0 + s1) + (s2 + s3)


@njit(nogil=True, fastmath={"reassoc", "contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def inner(a, b):
    """The sum of products of two matrices, in any order."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * b[i, j]
    return total


@compiled
def look(covs, pairs, skew, sums):
    """What `require_symmetric` looks at: products with a skew matrix, and traces."""
    for lane in range(LANES):
        cov, trace = covs[pairs[lane]], 0.0
        for i in range(len(cov)):
            trace += cov[i, i]
        sums[pairs[lane], 0], sums[pairs[lane], 1] = inner(cov, skew), trace


@compiled
def read(covs, pairs, room, p, L):
    """The lower halves of covariances, padded by an identity."""
    d = covs.shape[-1]
    for lane in range(LANES):
        cov = covs[pairs[lane]]
        for i in range(p):
            for j in range(i):
                room[(L + i * p + j) * LANES + lane] = cov[i, j] if i < d else 0.0
            room[(L + i * p + i) * LANES + lane] = cov[i, i] if i < d else 1.0


@compiled
def write(room, p, A, pairs, wanted, out):
    """The symmetric matrices of those lanes that are wanted, of which the upper half is read."""
    d = out.shape[-1]
    for lane in range(LANES):
        if wanted[lane]:
            matrix = out[pairs[lane]]
            for i in range(d):
                for j in range(i, d):
                    matrix[i, j] = matrix[j, i] = room[(A + i * p + j) * LANES + lane]


@compiled
def factor(room, p, L, inverses):
    """The Cholesky factor, in place of the lower half, and the inverses of its diagonal; NaN where there is none."""
    one, zero = in_all_lanes(1.0), in_all_lanes(0.0)
    for j in range(0, p, TILE):
        for i in range(j, p, TILE):
            tile(room, p, L, i, j, L, False, L, True, 0, j, -1.0, 1.0, L, False)
        for column in range(j, j + TILE):
            own = L + column * p
            rest = load(room, own + column)
            for k in range(j, column):
                entry = load(room, own + k)
                rest = rest - entry * entry
            # What is not positive becomes NaN, and so does all that follows.
            pivot = square_root(rest)
            inverse = one / pivot
            store(room, own + column, pivot)
            store(inverses, column, inverse)
            for row in range(L + (column + 1) * p, L + p * p, p):
                entry = load(room, row + column)
                for k in range(j, column):
                    entry = entry - load(room, row + k) * load(room, own + k)
                store(room, row + column, inverse * entry)
            for k in range(column + 1, j + TILE):
                store(room, own + k, zero)


@compiled
def invert(room, p, V, L, inverses):
    """The inverse V of a Cholesky factor L, by substitution in each tile."""
    one, zero = in_all_lanes(1.0), in_all_lanes(0.0)
    for j in range(0, p, TILE):
        for i in range(j, p, TILE):
            if i > j:
                tile(room, p, V, i, j, L, False, V, False, j, i, -1.0, 0.0, V, False)
            else:
                for row in range(TILE):
                    for column in range(TILE):
                        store(room, V + (j + row) * p + j + column, one if row == column else zero)
            for row in range(i, i + TILE):
                entries = row_at(room, V + row * p + j, 1)
                for k in range(i, row):
                    entries = add_multiple(zero - load(room, L + row * p + k), row_at(room, V + k * p + j, 1), entries)
                entries = add_multiple(load(inverses, row), entries, (zero, zero, zero, zero))
                write_row(room, V + row * p + j, 1, entries)


# The method


@compiled
def factor_and_invert(covs, pairs, room, p, L, V, inverses):
    """Factors and their inverses, padded by zeros, and the ratios of the largest and smallest number on the diagonal.

    The ratio is a lower bound of the factor's condition number, and NaN where there is no factor.
    """
    d = covs.shape[-1]
    read(covs, pairs, room, p, L)
    factor(room, p, L, inverses)
    invert(room, p, V, L, inverses)
    least = largest = load(room, L)
    for k in range(1, d):
        pivot = load(room, L + k * p + k)
        least, largest = smaller(pivot, least), larger(pivot, largest)  # the last is NaN where one is
    zero = in_all_lanes(0.0)
    for k in range(d, p):
        store(room, L + k * p + k, zero)
        store(room, V + k * p + k, zero)
    return largest / least


@compiled
def newton(room, p, d, X, A, Y, multiples, scales, lowest):
    """The Newton step X + q Y for Y the inverse of Xᵀ, its scaling to at most one, and A = XᵀX before that.

    Where the inverse is too rough, X stays.

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
    q = load(multiples, 0)
    for k in range(p * p):
        store(room, X + k, multiply_add(q, load(room, Y + k), load(room, X + k)))
    gram(room, p, A, 1.0, X, 0.0)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980).
    zero = mean = in_all_lanes(0.0)
    for place in range(A, A + p * p, p + 1):
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
def pick(condition, hopeless, alike, usable, wanted):
    """Which lanes are usable, of those that are when this is called, and which of these wanted now, not put off."""
    least = second = np.inf
    for lane in range(LANES):
        usable[lane] = usable[lane] and condition[lane] < hopeless
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
def cross(room, p, X, Y, L1, V1, L2, V2):
    """X = M = GᵀF and Y = M⁻ᵀ, of triangular factors and their inverses."""
    for i in range(0, p, TILE):
        for j in range(0, p, TILE):
            tile(room, p, X, i, j, L2, True, L1, False, max(i, j), p, 1.0, 0.0, X, False)
            tile(room, p, Y, i, j, V2, False, V1, True, 0, min(i, j) + TILE, 1.0, 0.0, Y, False)


@compiled
def residual(room, p, out, L1, L2, R, transposed):
    """L1 - L2 R, or L1 - L2 Rᵀ, for a triangular L2."""
    for i in range(0, p, TILE):
        for j in range(0, p, TILE):
            tile(room, p, out, i, j, L2, False, R, transposed, 0, i + TILE, -1.0, 1.0, L1, False)


@compiled
def gradient(room, p, out, D, V):
    """The upper half of the product of a residual D and a triangular V, which is symmetric."""
    for i in range(0, p, TILE):
        for j in range(i, p, TILE):
            tile(room, p, out, i, j, D, False, V, False, j, p, 1.0, 0.0, out, False)


NUMBERS, FLAGS, PLACES = types.float64[::1], types.boolean[::1], types.int64[::1]
MATRIX, MATRICES = types.float64[:, ::1], types.float64[:, :, ::1]
LADDERS = types.Tuple((MATRICES, PLACES))
OUT = types.Tuple((NUMBERS, MATRICES, MATRICES, FLAGS, MATRICES, PLACES, NUMBERS))
SOLVE = types.int64(MATRICES, MATRICES, MATRIX, PLACES, types.float64, types.float64, NUMBERS, LADDERS, OUT)


@njit(nogil=True, error_model="numpy")
def _solve(cov1, cov2, skew, order, hopeless, alike, room, ladders, out):
    d, n = cov1.shape[-1], len(order)
    p = (d + TILE - 1) // TILE * TILE
    size = p * p
    L1, V1, L2, V2 = 0, size, 2 * size, 3 * size
    room[:] = 0.0  # above the diagonals of factors, where nothing else writes
    steps, lengths = ladders
    value, gradient1, gradient2, hard, sums, later, conditions = out
    put_off, pairs = 0, np.empty(LANES, np.int64)
    usable, wanted = np.empty(LANES, np.bool_), np.empty(LANES, np.bool_)
    norms, scales, lowest, condition = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    inverses = np.empty(p * LANES)
    for start in range(0, n, LANES):
        for lane in range(LANES):
            usable[lane] = start + lane < n
            pairs[lane] = order[min(start + lane, n - 1)]
        look(cov1, pairs, skew, sums[0])
        look(cov2, pairs, skew, sums[1])
        ratio1 = factor_and_invert(cov1, pairs, room, p, L1, V1, inverses)
        ratio2 = factor_and_invert(cov2, pairs, room, p, L2, V2, inverses)
        store(condition, 0, ratio1 * ratio2)
        pick(condition, hopeless, alike, usable, wanted)

        X, A, Z, Y = 4 * size, 5 * size, 6 * size, 7 * size
        cross(room, p, X, Y, L1, V1, L2, V2)
        newton(room, p, d, X, A, Y, norms, scales, lowest)
        k = ladder_for(lowest, wanted, lengths)
        R, first, second, spare = climb(room, p, X, A, Z, Y, steps[k, : lengths[k]], scales)

        store(norms, 0, squared_norm(room, p, R))
        residual(room, p, first, L1, L2, R, False)
        store(scales, 0, squared_norm(room, p, first))
        for lane in range(min(LANES, n - start)):
            pair = pairs[lane]
            hard[pair] = not usable[lane]
            if wanted[lane]:
                value[pair] = scales[lane]
                wanted[lane] = abs(norms[lane] - d) < 1e-13 * d  # the certificate of `blocks`
                hard[pair] = not wanted[lane]
            elif usable[lane]:
                later[put_off], conditions[put_off] = pair, condition[lane]
                put_off += 1
        if len(gradient1):
            residual(room, p, second, L2, L1, R, True)
            gradient(room, p, spare, first, V1)
            write(room, p, spare, pairs, wanted, gradient1)
            gradient(room, p, spare, second, V2)
            write(room, p, spare, pairs, wanted, gradient2)
    return put_off


# Compiled once and kept on disk, where there is a place for it.
with contextlib.suppress(RuntimeError):
    _solve.enable_caching()
_solve.compile(SOLVE)


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
    """The numbers of some pairs.

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
    put_off = _solve(cov1, cov2, skew(d).reshape(d, d), order, hopeless, alike, room, ladders(), out_and_later)
    return later[:put_off], conditions[:put_off]
