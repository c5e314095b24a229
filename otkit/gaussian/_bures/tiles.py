"""Matrices of vectors: entry (i, j) of all the problems of a group in one vector, in loops compiled by Numba.

All matrices of a group lie in one array, `room`, and are named by where they start, counted in vectors: entry (i, j)
of A is the vector at A + i stride(p) + j. Matrices are padded to a size p of whole tiles of `TILE` x `TILE`, whose sums
of products stay in registers.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numba
from numba.extending import register_jitable

from otkit.gaussian._bures.vectors import (
    LANES,
    in_all_lanes,
    load,
    multiply_add,
    square_root,
    store,
)

TILE = 4
"""Rows and columns of a tile."""
AT_ONCE = LANES // 2
"""How many columns of a tile are summed at once: with 32 registers all, with 16 half of them, else sums are spilled."""

njit: Any = numba.njit  # of which no type checker knows all options
compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what is called by compiled functions alone."""
inlined = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
"""For what is faster as a part of each of them."""


def kept(function: Any) -> Any:
    """For what Python calls: compiled by the first call, and kept on disk where there is a place for it.

    To know whether what it has kept is of today, Numba looks at the function's own file. The name speaks for all files.
    """
    sources = b"".join(source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py")))
    function.__qualname__ += f"_{hashlib.sha256(sources).hexdigest()[:16]}"
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):
        dispatcher.enable_caching()
    return dispatcher


@register_jitable
def padded(d: int) -> int:
    """The next multiple of `TILE`."""
    return (d + TILE - 1) // TILE * TILE


@register_jitable
def stride(p: int) -> int:
    """From row to row: not a power of two, for which the entries of a column would fight for few places of a cache.

    A row is longer by one line of it, so that rows still start where lines do.
    """
    return p + 8 // LANES if p >= 32 else p


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
    """A row plus a times another."""
    return (
        multiply_add(a, row[0], to[0]),
        multiply_add(a, row[1], to[1]),
        multiply_add(a, row[2], to[2]),
        multiply_add(a, row[3], to[3]),
    )


@inlined
def add_multiple_of_two(a, row, to):
    """Two vectors plus a times two others."""
    return multiply_add(a, row[0], to[0]), multiply_add(a, row[1], to[1])


@inlined
def sums_of_four(room, a, a_row, a_column, b, b_row, b_column, count):
    """The sums over k of a tile's products."""
    zero = in_all_lanes(0.0)
    c0 = c1 = c2 = c3 = (zero, zero, zero, zero)
    for _ in range(count):
        row = row_at(room, b, b_column)
        c0 = add_multiple(load(room, a), row, c0)
        c1 = add_multiple(load(room, a + a_row), row, c1)
        c2 = add_multiple(load(room, a + 2 * a_row), row, c2)
        c3 = add_multiple(load(room, a + 3 * a_row), row, c3)
        a += a_column
        b += b_row
    return c0, c1, c2, c3


@inlined
def sums_of_two(room, a, a_row, a_column, b, b_row, b_column, count):
    """The sums over k of two columns of a tile's products."""
    zero = in_all_lanes(0.0)
    c0 = c1 = c2 = c3 = (zero, zero)
    for _ in range(count):
        row = load(room, b), load(room, b + b_column)
        c0 = add_multiple_of_two(load(room, a), row, c0)
        c1 = add_multiple_of_two(load(room, a + a_row), row, c1)
        c2 = add_multiple_of_two(load(room, a + 2 * a_row), row, c2)
        c3 = add_multiple_of_two(load(room, a + 3 * a_row), row, c3)
        a += a_column
        b += b_row
    return c0, c1, c2, c3


@inlined
def tile(room, p, out, i, j, A, A_transposed, B, B_transposed, first, last, alpha, beta, base, mirrored):
    """The tile at (i, j) of alpha A B + beta base, where the sum over k goes from `first` up to `last`.

    Args:
        room: All matrices, each with shape (p, stride(p), LANES).
        p: Their size.
        out: Where the result goes; the tile at (j, i) receives the transposed one where it is `mirrored`.
        i: The tile's first row.
        j: Its first column.
        A: The left factor, or its transpose.
        A_transposed: Whether it is the transpose.
        B: The right factor, or its transpose.
        B_transposed: Whether it is the transpose.
        first: The first k.
        last: The k after the last.
        alpha: A number.
        beta: Another; where it is zero the base is not read.
        base: A matrix.
        mirrored: Whether the result is symmetric.
    """
    q = stride(p)
    a_row, a_column = (1, q) if A_transposed else (q, 1)
    b_row, b_column = (1, q) if B_transposed else (q, 1)
    a, b = A + i * a_row + first * a_column, B + first * b_row + j * b_column
    if AT_ONCE == 4:
        c0, c1, c2, c3 = sums_of_four(room, a, a_row, a_column, b, b_row, b_column, last - first)
    else:
        l0, l1, l2, l3 = sums_of_two(room, a, a_row, a_column, b, b_row, b_column, last - first)
        r0, r1, r2, r3 = sums_of_two(room, a, a_row, a_column, b + 2 * b_column, b_row, b_column, last - first)
        c0, c1, c2, c3 = l0 + r0, l1 + r1, l2 + r2, l3 + r3
    place, factor, zero = i * q + j, in_all_lanes(alpha), in_all_lanes(0.0)
    none = (zero, zero, zero, zero)
    r0 = r1 = r2 = r3 = none
    if beta != 0.0:
        share = in_all_lanes(beta)
        r0 = add_multiple(share, row_at(room, base + place, 1), none)
        r1 = add_multiple(share, row_at(room, base + place + q, 1), none)
        r2 = add_multiple(share, row_at(room, base + place + 2 * q, 1), none)
        r3 = add_multiple(share, row_at(room, base + place + 3 * q, 1), none)
    c0, c1 = add_multiple(factor, c0, r0), add_multiple(factor, c1, r1)
    c2, c3 = add_multiple(factor, c2, r2), add_multiple(factor, c3, r3)
    place += out
    write_row(room, place, 1, c0)
    write_row(room, place + q, 1, c1)
    write_row(room, place + 2 * q, 1, c2)
    write_row(room, place + 3 * q, 1, c3)
    if mirrored and i != j:
        place = out + j * q + i
        write_row(room, place, q, c0)
        write_row(room, place + 1, q, c1)
        write_row(room, place + 2, q, c2)
        write_row(room, place + 3, q, c3)


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
def subtract_product(room, p, out, A, L, B, transposed):
    """A - L B, or A - L Bᵀ, for lower triangular A and L."""
    for i in range(0, p, TILE):
        for j in range(0, p, TILE):
            tile(room, p, out, i, j, L, False, B, transposed, 0, i + TILE, -1.0, 1.0, A, False)


@compiled
def symmetric_product(room, p, out, A, L):
    """A L, for a lower triangular L with which it is symmetric, at half the work."""
    for i in range(0, p, TILE):
        for j in range(i, p, TILE):
            tile(room, p, out, i, j, A, False, L, False, j, p, 1.0, 0.0, out, True)


@compiled
def add_to_diagonal(room, p, A, number):
    """A + number I, in place."""
    q = stride(p)
    summand = in_all_lanes(number)
    for place in range(A, A + p * q, q + 1):
        store(room, place, load(room, place) + summand)


@compiled
def scale(room, p, A, factors):
    """Multiply the matrices of A by the numbers of a vector, in place."""
    for place in range(A, A + p * stride(p)):
        store(room, place, factors * load(room, place))


@compiled
def squared_norm(room, p, A):
    """The squared Frobenius norms."""
    zero = in_all_lanes(0.0)
    s0 = s1 = s2 = s3 = zero
    q = stride(p)
    for row in range(A, A + p * q, q):
        for place in range(row, row + p, 4):
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
def read(matrices, which, padding, room, p, L):
    """The upper halves of matrices, transposed, and padded by a multiple of the identity."""
    d, q = matrices.shape[-1], stride(p)
    for lane in range(LANES):
        matrix = matrices[which[lane]]
        for j in range(d):
            for i in range(j, d):
                room[(L + i * q + j) * LANES + lane] = matrix[j, i]
        for i in range(d, p):
            for j in range(i):
                room[(L + i * q + j) * LANES + lane] = 0.0
            room[(L + i * q + i) * LANES + lane] = padding


@compiled
def add_transposed(room, p, A, weights, places, wanted, out):
    """Add weights times the transposed matrices of those lanes that are wanted."""
    d, q = out.shape[-1], stride(p)
    for lane in range(LANES):
        if wanted[lane]:
            matrix, weight = out[places[lane]], weights[lane]
            for j in range(d):
                for i in range(d):
                    matrix[j, i] += weight * room[(A + i * q + j) * LANES + lane]


@compiled
def write(room, p, A, pairs, wanted, out):
    """The matrices of those lanes that are wanted."""
    d, q = out.shape[-1], stride(p)
    for lane in range(LANES):
        if wanted[lane]:
            matrix = out[pairs[lane]]
            for i in range(d):
                for j in range(d):
                    matrix[i, j] = room[(A + i * q + j) * LANES + lane]


@compiled
def factor(room, p, L, inverses):
    """The Cholesky factor, in place of the lower half, and the inverses of its diagonal; NaN where there is none."""
    q = stride(p)
    one, zero = in_all_lanes(1.0), in_all_lanes(0.0)
    for j in range(0, p, TILE):
        for i in range(j, p, TILE):
            tile(room, p, L, i, j, L, False, L, True, 0, j, -1.0, 1.0, L, False)
        for column in range(j, j + TILE):
            own = L + column * q
            rest = load(room, own + column)
            for k in range(j, column):
                entry = load(room, own + k)
                rest = rest - entry * entry
            # What is not positive becomes NaN, and so does all that follows.
            pivot = square_root(rest)
            inverse = one / pivot
            store(room, own + column, pivot)
            store(inverses, column, inverse)
            for row in range(L + (column + 1) * q, L + p * q, q):
                entry = load(room, row + column)
                for k in range(j, column):
                    entry = entry - load(room, row + k) * load(room, own + k)
                store(room, row + column, inverse * entry)
            for k in range(column + 1, j + TILE):
                store(room, own + k, zero)


@compiled
def invert(room, p, V, L, inverses):
    """The inverse V of a Cholesky factor L, by substitution in each tile."""
    q = stride(p)
    one, zero = in_all_lanes(1.0), in_all_lanes(0.0)
    for j in range(0, p, TILE):
        for i in range(j, p, TILE):
            if i > j:
                tile(room, p, V, i, j, L, False, V, False, j, i, -1.0, 0.0, V, False)
            else:
                for row in range(TILE):
                    for column in range(TILE):
                        store(room, V + (j + row) * q + j + column, one if row == column else zero)
            for row in range(i, i + TILE):
                entries = row_at(room, V + row * q + j, 1)
                for k in range(i, row):
                    entries = add_multiple(zero - load(room, L + row * q + k), row_at(room, V + k * q + j, 1), entries)
                entries = add_multiple(load(inverses, row), entries, (zero, zero, zero, zero))
                write_row(room, V + row * q + j, 1, entries)
