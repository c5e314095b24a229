r"""Large covariances: the polar factor by rational steps, which cost a Cholesky factor each, and one last polynomial.

Halley's iteration with dynamic weights is the best odd rational function of its degree on :math:`[\ell, 1]`,

.. math:: X \mapsto X (a I + b A)(I + c A)^{-1} = \tfrac{b}{c} X + \bigl(a - \tfrac{b}{c}\bigr) X (I + c A)^{-1},
          \qquad A = X^\top X,

with :math:`b = (a - 1)^2 / 4`, :math:`c = a + b - 1`. It starts from the Newton step of `polar`, which has taken a
condition number :math:`\kappa` to about :math:`\sqrt\kappa / 2`, so that :math:`I + c A` is far from singular and its
Cholesky factor :math:`L` serves: :math:`X L^{-\top} L^{-1}`. From singular values above 0.02 a step leads to more than
0.6, a second one to 0.998, where a polynomial of `ladder` finishes.

Everything is LAPACK's and BLAS' (`fortran`); triangular matrices are multiplied as such, at half
the work, and inverted first, as OpenBLAS solves with them at a third of that speed. NumPy's products and norms belong
to a second library, whose threads would spin against the first one's.

References:
    Nakatsukasa, Bai & Gygi, 2010. *Optimizing Halley's iteration for computing the matrix polar decomposition*.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from otkit.gaussian._bures.cholesky import spread, steepest
from otkit.gaussian._bures.fortran import (
    Matrix,
    add,
    cholesky,
    copy,
    copy_lower,
    gram,
    invert_triangle,
    squared_norm,
    symmetric_product,
    triangular_product,
)
from otkit.gaussian._bures.ladder import LADDER, Step, completed, ladder
from otkit.gaussian._bures.polar import NEWTON_CONDITION

LEAF = 96
"""The size up to which LAPACK inverts a triangular matrix as fast as products do."""


class Halley(NamedTuple):
    """The weights of one rational step."""

    a: float
    b: float
    c: float


class Room:
    """What a pair is solved in, for one pair after another: memory that is new costs as much as a product.

    Attributes:
        factors: Two matrices that are zero above their diagonals.
        inverses: Two others.
        inverse: One more.
        spare: Four of any entries.
    """

    def __init__(self, d: int):
        zeros = [Matrix.zeros(d) for _ in range(9)]
        self.factors, self.inverses, self.inverse, self.spare = zeros[:2], zeros[2:4], zeros[4], zeros[5:]


def value_and_gradients(
    cov1: ndarray, cov2: ndarray, room: Room, *, gradients: bool, hopeless: float
) -> tuple[float, ndarray, ndarray, bool]:
    """The value, the gradients I - T and I - T⁻¹ of one pair, and whether they are accurate.

    Args:
        cov1: The first covariance, with shape (d, d).
        cov2: The second covariance.
        room: What to solve in; the gradients stay there until the next pair.
        gradients: Whether the gradients are wanted; empty otherwise.
        hopeless: The condition number of M, as far as it shows on the diagonals, beyond which nothing is tried.
    """
    none = np.empty(0)
    (F, G), (F_inverse, G_inverse), (X, Y, *_) = room.factors, room.inverses, room.spare
    for cov, L in ((cov1, F), (cov2, G)):
        copy_lower(Matrix.of(cov.T), L)
        if not cholesky(L):
            return math.nan, none, none, False
    if not spread(F.array[None])[0] * spread(G.array[None])[0] < hopeless:
        return math.nan, none, none, False
    copy(F, X)
    triangular_product(1.0, G, X, transposed=True)  # M = GᵀF
    copy(_inverse(G, G_inverse), Y)
    triangular_product(1.0, _inverse(F, F_inverse), Y, right=True, transposed=True)  # its inverse, transposed
    for L, inverse in ((F, F_inverse), (G, G_inverse)):
        if not float(L.diagonal.max()) ** 2 * squared_norm(inverse) < steepest(L.rows):
            return math.nan, none, none, False
    norm, inverse_norm = squared_norm(X), squared_norm(Y)
    if not norm * inverse_norm < NEWTON_CONDITION**2:
        return math.nan, none, none, False
    q = math.sqrt(norm / inverse_norm)
    add(q, Y, X)
    R, first, second = _polar(room, 2 * math.sqrt(q))
    accurate = abs(squared_norm(R) - R.rows) < 1e-13 * R.rows
    copy(R, first)
    triangular_product(-1.0, G, first)
    add(1.0, F, first)  # F - G R
    value = squared_norm(first)
    if not gradients:
        return value, none, none, accurate
    np.copyto(second.array, R.array.T)
    triangular_product(-1.0, F, second)
    add(1.0, G, second)  # G - F Rᵀ
    triangular_product(1.0, F_inverse, first, right=True)
    triangular_product(1.0, G_inverse, second, right=True)
    return value, first.array, second.array, accurate


def _inverse(L: Matrix, out: Matrix) -> Matrix:
    """The inverse of lower triangular L, by halves, where there are zeros above the diagonal."""
    if L.rows <= LEAF:
        copy_lower(L, out)
        invert_triangle(out)
        return out
    for block, inverse in zip(L.halves()[::2], out.halves()[::2], strict=True):
        _inverse(block, inverse)
    return _joined(L.halves()[1], out)


def inverse_of_factor(A: Matrix, out: Matrix) -> Matrix:
    r"""The inverse of the Cholesky factor of A, by halves, where there are zeros above the diagonal; A is overwritten.

    :math:`L_{21} = A_{21} L_{11}^{-\top}` comes from the inverse, which is as accurate as a solution while the
    condition number is small.
    """
    if A.rows <= LEAF:
        copy_lower(A, out)
        cholesky(out)
        invert_triangle(out)
        return out
    first, below, last = A.halves()
    triangular_product(1.0, inverse_of_factor(first, out.halves()[0]), below, right=True, transposed=True)
    gram(-1.0, below, last, beta=1.0)
    inverse_of_factor(last, out.halves()[2])
    return _joined(below, out)


def _joined(below: Matrix, out: Matrix) -> Matrix:
    r"""The inverse of L from those of its diagonal blocks: :math:`-L_{22}^{-1} L_{21} L_{11}^{-1}` goes below them."""
    first, place, last = out.halves()
    copy(below, place)
    triangular_product(1.0, first, place, right=True)
    triangular_product(-1.0, last, place)
    return out


def _polar(room: Room, least: float) -> tuple[Matrix, Matrix, Matrix]:
    """The polar factor of the first spare matrix, whose singular values are at least `least`, and two that are free."""
    X, Y, A, Z = room.spare
    d = X.rows
    A.array.fill(0)
    gram(1.0, X, A, transposed=True)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980, theorem 2.1).
    diagonal = A.diagonal.copy()
    mean = float(diagonal.sum()) / d
    variance = max((2 * squared_norm(A) - float((diagonal * diagonal).sum())) / d - mean * mean, 0)
    largest = (mean + math.sqrt((d - 1) * variance)) * (1 + 1e-14 * d)
    scale = 1 / math.sqrt(largest)
    for k, step in enumerate(steps(least * scale)):
        multiple = scale * scale * (step.c if isinstance(step, Halley) else completed(step)[0])
        if k == 0:
            np.multiply(A.array, multiple, out=A.array)
        else:
            gram(multiple, X, A, transposed=True)
        if isinstance(step, Halley):
            _rational(step, scale, X, A, room.inverse, Y)
        else:
            _polynomial(step, scale, X, A, Z, Y)
        X, Y, scale = Y, X, 1.0
    return X, Y, Z


def _rational(step: Halley, scale: float, X: Matrix, A: Matrix, inverse: Matrix, out: Matrix) -> None:
    """One step of a multiple of X, from the lower half of c times its Gram matrix, which is overwritten."""
    a, b, c = step
    A.diagonal[...] += 1
    L_inverse = inverse_of_factor(A, inverse)
    copy(X, out)
    triangular_product(scale * (a - b / c), L_inverse, out, right=True, transposed=True)
    triangular_product(1.0, L_inverse, out, right=True)
    add(scale * b / c, X, out)


def _polynomial(step: Step, scale: float, X: Matrix, A: Matrix, Z: Matrix, out: Matrix) -> None:
    """One step of a multiple of X, from the lower half of r times its Gram matrix, which is overwritten, as is Z.

    All but the last of its products are symmetric, and cost half.
    """
    _, shift, *more = completed(step)
    A.diagonal[...] += shift
    if more:
        gram(1.0, _mirrored(A), Z)
        Z.diagonal[...] += more[0]
        if step.degree == 9:
            _, outer, inner, last = more
            gram(outer, _mirrored(Z), A, beta=inner)
            A.diagonal[...] += last
        else:
            A = Z
    symmetric_product(scale, X, A, out)


def _mirrored(A: Matrix) -> Matrix:
    """The symmetric matrix of which A has the lower half, in place."""
    _mirror(A.array)
    return A


def _mirror(A: ndarray) -> None:
    d = len(A)
    if d <= 2 * LEAF:
        np.copyto(A, A.T, where=_above(d))
        return
    k = d // 2
    A[:k, k:] = A[k:, :k].T
    _mirror(A[:k, :k])
    _mirror(A[k:, k:])


@functools.lru_cache(64)
def _above(d: int) -> ndarray:
    return np.tri(d, k=-1, dtype=bool).T


COST = {3: 1.7, 5: 2.4, 9: 3.1}
"""The cost of a polynomial by its degree, in units of a product."""
RATIONAL_COST = 2.8
"""That of a rational step: a Gram matrix, a factor, its inverse and two triangular products."""


def steps(lowest: float) -> tuple[Halley | Step, ...]:
    """The cheapest sequence of steps for singular values in [lowest, 1]."""
    return _steps_for(math.ceil(-16 * math.log2(lowest) - 1e-9))


@functools.lru_cache(1024)
def _steps_for(sixteenths: int) -> tuple[Halley | Step, ...]:
    lowest, rational, best = 2.0 ** (-sixteenths / 16), [], (math.inf, ())
    while True:
        last = next(((step,) for step in LADDER[0] if step.lowest <= lowest), None) or ladder(lowest)
        cost = RATIONAL_COST * len(rational) + sum(COST[step.degree] for step in last)
        best = min(best, (cost, (*rational, *last)), key=lambda candidate: candidate[0])
        if lowest > LADDER[0][-1].lowest:
            return best[1]
        square = lowest * lowest
        gamma = (4 * (1 - square) / square**2) ** (1 / 3)
        root = math.sqrt(1 + gamma)
        a = root + 0.5 * math.sqrt(8 - 4 * gamma + 8 * (2 - square) / (square * root))
        b = (a - 1) ** 2 / 4
        rational.append(Halley(a, b, a + b - 1))
        lowest *= (a + b * square) / (1 + rational[-1].c * square) * (1 - 1e-12)
