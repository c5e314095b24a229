r"""Large covariances: the polar factor by rational steps, which cost a Cholesky factor each, and one last polynomial.

Halley's iteration with dynamic weights is the best odd rational function of its degree on :math:`[\ell, 1]`,

.. math:: X \mapsto X (a I + b A)(I + c A)^{-1} = \tfrac{b}{c} X + \bigl(a - \tfrac{b}{c}\bigr) X (I + c A)^{-1},
          \qquad A = X^\top X,

with :math:`b = (a - 1)^2 / 4`, :math:`c = a + b - 1`. It starts from the Newton step of `polar`, which has taken a
condition number :math:`\kappa` to about :math:`\sqrt\kappa / 2`, so that :math:`I + c A` is far from singular and its
Cholesky factor :math:`L` serves: :math:`X L^{-\top} L^{-1}`. From singular values above 0.02 a step leads to more than
0.6, a second one to 0.998, where a polynomial of `ladder` finishes.

Everything is LAPACK's and BLAS' through SciPy, in Fortran's order; triangular matrices are multiplied as such, at half
the work, and inverted first, as OpenBLAS solves with them at a third of that speed. NumPy's products and norms belong
to a second library, whose threads would spin against the first one's.

References:
    Nakatsukasa, Bai & Gygi, 2010. *Optimizing Halley's iteration for computing the matrix polar decomposition*.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from scipy import linalg

from otkit.gaussian._bures.cholesky import spread
from otkit.gaussian._bures.ladder import LADDER, Step, completed, ladder
from otkit.gaussian._bures.polar import NEWTON_CONDITION

# Made by f2py, which no type checker sees into.
blas: Any = linalg.blas
lapack: Any = linalg.lapack

LEAF = 64
"""The size up to which LAPACK inverts a triangular matrix as fast as products do."""


class Halley(NamedTuple):
    """The weights of one rational step."""

    a: float
    b: float
    c: float


def value_and_gradients(
    cov1: ndarray, cov2: ndarray, *, gradients: bool, hopeless: float
) -> tuple[float, ndarray, ndarray, bool]:
    """The value, the gradients I - T and I - T⁻¹ of one pair, and whether they are accurate.

    Args:
        cov1: The first covariance, with shape (d, d).
        cov2: The second covariance.
        gradients: Whether the gradients are wanted; empty otherwise.
        hopeless: The condition number of M, as far as it shows on the diagonals, beyond which nothing is tried.
    """
    none = np.empty(0)
    (F, info1), (G, info2) = (lapack.dpotrf(cov.T, lower=1) for cov in (cov1, cov2))
    if info1 or info2 or not spread(F[None])[0] * spread(G[None])[0] < hopeless:
        return math.nan, none, none, False
    F_inverse, G_inverse = inverse(F), inverse(G)
    X = blas.dtrmm(1.0, G, F, lower=1, trans_a=1)  # M = GᵀF
    Y = blas.dtrmm(1.0, F_inverse, G_inverse, lower=1, side=1, trans_a=1)  # its inverse, transposed
    norm, inverse_norm = _squared_norm(X), _squared_norm(Y)
    if not norm * inverse_norm < NEWTON_CONDITION**2:
        return math.nan, none, none, False
    q = math.sqrt(norm / inverse_norm)
    _add(q, Y, X)
    R = _polar(X, 2 * math.sqrt(q))
    accurate = abs(_squared_norm(R) - len(R)) < 1e-13 * len(R)
    first = blas.dtrmm(-1.0, G, R, lower=1)
    first += F  # F - G R
    value = _squared_norm(first)
    if not gradients:
        return value, none, none, accurate
    second = blas.dtrmm(-1.0, F, R.T, lower=1)
    second += G  # G - F Rᵀ
    return (
        value,
        blas.dtrmm(1.0, F_inverse, first, lower=1, side=1, overwrite_b=1),
        blas.dtrmm(1.0, G_inverse, second, lower=1, side=1, overwrite_b=1),
        accurate,
    )


def inverse(L: ndarray) -> ndarray:
    """The inverse of lower triangular L (d, d), by halves."""
    d = len(L)
    if d <= LEAF:
        return lapack.dtrtri(L, lower=1)[0]
    k = d // 2
    return _joined(inverse(L[:k, :k]), L[k:, :k], inverse(L[k:, k:]))


def inverse_of_factor(A: ndarray) -> ndarray:
    r"""The inverse of the Cholesky factor of A (d, d), of which the lower half is read, by halves.

    :math:`L_{21} = A_{21} L_{11}^{-\top}` comes of the inverse, which is as accurate as a solution while the condition
    number is small.
    """
    d = len(A)
    if d <= LEAF:
        return lapack.dtrtri(lapack.dpotrf(A, lower=1)[0], lower=1, overwrite_c=1)[0]
    k = d // 2
    first = inverse_of_factor(A[:k, :k])
    below = blas.dtrmm(1.0, first, A[k:, :k], lower=1, side=1, trans_a=1)
    return _joined(first, below, inverse_of_factor(blas.dsyrk(-1.0, below, beta=1.0, c=A[k:, k:], lower=1)))


def _joined(first: ndarray, below: ndarray, last: ndarray) -> ndarray:
    r"""The inverse of L from those of its diagonal blocks, with :math:`-L_{22}^{-1} L_{21} L_{11}^{-1}` below them."""
    k, d = len(first), len(first) + len(last)
    result = np.empty((d, d), order="F")
    result[:k, :k], result[k:, k:], result[:k, k:] = first, last, 0
    result[k:, :k] = blas.dtrmm(-1.0, last, blas.dtrmm(1.0, first, below, lower=1, side=1), lower=1, overwrite_b=1)
    return result


def _polar(X: ndarray, least: float) -> ndarray:
    """The polar factor of X, whose singular values are at least `least`; X is overwritten."""
    d = len(X)
    A = blas.dsyrk(1.0, X, trans=1, lower=1)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980).
    diagonal = A.diagonal().copy()
    mean = float(diagonal.sum()) / d
    variance = max((2 * _squared_norm(A) - float((diagonal * diagonal).sum())) / d - mean * mean, 0)
    largest = (mean + math.sqrt((d - 1) * variance)) * (1 + 1e-14 * d)
    scale = 1 / math.sqrt(largest)
    first, *others = steps(least * scale)
    if isinstance(first, Halley):
        X = _rational(first, X, scale=scale, gram=A)
    else:
        X *= scale
        X = _polynomial(first, X)
    for step in others:
        X = _rational(step, X) if isinstance(step, Halley) else _polynomial(step, X)
    return X


def _rational(step: Halley, X: ndarray, *, scale: float = 1.0, gram: ndarray | None = None) -> ndarray:
    """One step of a multiple of X, with the lower half of XᵀX where it is known, which is overwritten."""
    a, b, c = step
    c_scaled = c * scale * scale
    A: ndarray = blas.dsyrk(c_scaled, X, trans=1, lower=1) if gram is None else np.multiply(gram, c_scaled, out=gram)
    _diagonal(A)[...] += 1
    L_inverse = inverse_of_factor(A)
    Y = blas.dtrmm(scale * (a - b / c), L_inverse, X, lower=1, side=1, trans_a=1)
    Y = blas.dtrmm(1.0, L_inverse, Y, lower=1, side=1, overwrite_b=1)
    _add(scale * b / c, X, Y)
    return Y


def _polynomial(step: Step, X: ndarray) -> ndarray:
    """One step; all but the last of its products are symmetric, and cost half."""
    scale, shift, *more = completed(step)
    A = blas.dsyrk(scale, X, trans=1, lower=1)
    _diagonal(A)[...] += shift
    if more:
        Z = blas.dsyrk(1.0, _mirrored(A), lower=1)
        _diagonal(Z)[...] += more[0]
        if step.degree == 9:
            _, outer, inner, last = more
            Z = blas.dsyrk(outer, _mirrored(Z), lower=1, beta=inner, c=A, overwrite_c=1)
            _diagonal(Z)[...] += last
        A = Z
    return blas.dsymm(1.0, A, X, side=1, lower=1)


def _mirrored(A: ndarray) -> ndarray:
    """The symmetric matrix of which A has the lower half, in place."""
    d = len(A)
    if d <= 2 * LEAF:
        np.copyto(A, A.T, where=_above(d))
        return A
    k = d // 2
    A[:k, k:] = A[k:, :k].T
    _mirrored(A[:k, :k])
    _mirrored(A[k:, k:])
    return A


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


def _flat(A: ndarray) -> ndarray:
    """A view of the entries of a matrix in Fortran's order."""
    return A.reshape(-1, order="F")


def _diagonal(A: ndarray) -> ndarray:
    """A view of the diagonal of a matrix in Fortran's order."""
    return _flat(A)[:: len(A) + 1]


def _add(multiple: float, X: ndarray, Y: ndarray) -> None:
    """Add a multiple of X to Y in place."""
    blas.daxpy(_flat(X), _flat(Y), a=multiple)


def _squared_norm(matrix: ndarray) -> float:
    flat = _flat(matrix)
    return float(blas.ddot(flat, flat))
