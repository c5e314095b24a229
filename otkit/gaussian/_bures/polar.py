r"""The orthogonal polar factor of :math:`M = G^\top F` by products alone, where the inverses of F and G are at hand.

One Newton step, which needs the inverse and has it for free, :math:`M^{-\top} = G^{-1} F^{-\top}`,

.. math:: X = M + q\,M^{-\top}, \qquad q = \|M\|_F / \|M^{-1}\|_F ,

keeps the polar factor and takes singular values :math:`\sigma` to :math:`\sigma + q/\sigma \ge 2\sqrt q`: a condition
number :math:`\kappa` becomes about :math:`\sqrt\kappa/2`, and the smallest singular value has a known bound. The
largest has one from the trace and the norm of :math:`X^\top X`. With both known, the polynomials of `ladder` finish
in a number of products known beforehand.

References:
    Wolkowicz & Styan, 1980. *Bounds for eigenvalues using traces*, theorem 2.1.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from otkit.gaussian._bures.cholesky import squared_norms, times_triangle, transposed, triangle_times
from otkit.gaussian._bures.ladder import Step, ladder
from otkit.gaussian._bures.memory import zeros

NEWTON_CONDITION = 1e9
"""The condition number of M beyond which its inverse is too rough for the Newton step."""
HOPELESS = 1e10
"""The condition number of M, as far as it shows on the diagonals of factors, beyond which polynomials are not tried."""
ALIKE = 50.0
"""How much larger than others' a pair's condition number is for the pair to be put off: worth about a step."""


class Residuals(NamedTuple):
    """What `Loops.residuals` finds.

    Attributes:
        norms: The squared norms (n,) of the polar factors R, which are d.
        value: That of the first residual.
        first: (F - G R)ᵀ, with shape (n, d, d).
        second: (G - F Rᵀ)ᵀ, where it was wanted.
        spare: A buffer of that shape.
    """

    norms: ndarray
    value: ndarray
    first: ndarray
    second: ndarray
    spare: ndarray


class Loops:
    """Room for n pairs of matrices of size d, and what is computed in it by NumPy, whose loops start the fastest."""

    def __init__(self, n: int, d: int):
        self.scratch = [Scratch(n, d) for _ in range(4)]

    def resize(self, n: int, d: int) -> None:
        """Let the buffers show n matrices."""
        for buffer in self.scratch:
            buffer.resize(n, d)

    def residuals(self, U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray, *, second: bool) -> Residuals:
        """The residuals of n pairs, for upper triangular factors U (n, d, d) and their inverses V.

        Args:
            U1: Transposed factors of the first covariances, which may be overwritten.
            U2: Transposed factors of the second covariances.
            V1: The inverses of U1.
            V2: The inverses of U2.
            second: Whether the second residual is wanted.
        """
        polar = polar_by_newton_and_ladder(U1, U2, V1, V2, self.scratch)
        R = polar.matrices
        first, other, spare = [buffer.plain for buffer in self.scratch if buffer is not polar]
        times_triangle(transposed(R), U2, out=first)
        np.subtract(U1, first, out=first)
        if second:
            times_triangle(R, U1, out=other)
            np.subtract(U2, other, out=other)
        return Residuals(squared_norms(R), squared_norms(first), first, other, spare)

    def product(self, V: ndarray, residual: ndarray, out: ndarray) -> ndarray:
        """The product of an upper triangular matrix and a residual."""
        return triangle_times(V, residual, lower=False, out=out)


LONG_ROW = 2048
"""From how many numbers NumPy multiplies by a number for each row as fast as torch does."""


class Scratch:
    """A buffer (n, d, d) whose matrices lie d (d + 1) apart.

    All diagonals together are then one strided vector, and adding multiples of I to a batch is one operation.
    """

    def __init__(self, n: int, d: int):
        self.memory = zeros(n * (d + 1) * d)
        self.plain = np.empty((0, 0, 0))
        self.resize(n, d)

    def resize(self, n: int, d: int) -> None:
        """Let the views show the first n matrices."""
        if self.plain.shape == (n, d, d):
            return
        self.flat = self.memory[: n * (d + 1) * d]
        self.rows = self.flat.reshape(n, -1)
        self.matrices = self.flat.reshape(n, d + 1, d)[:, :d]
        self.diagonals = self.flat[:: d + 1]
        # The same memory for matrices one after another, where nothing is done to diagonals.
        self.plain = self.memory[: n * d * d].reshape(n, d, d)

    def scale(self, factors: ndarray) -> None:
        """Multiply each matrix by a number."""
        if self.rows.shape[1] < LONG_ROW:
            torch.from_numpy(self.rows).mul_(torch.from_numpy(factors)[:, None])
        else:
            self.rows[...] *= factors[:, None]


def polar_by_newton_and_ladder(U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray, scratch: list[Scratch]) -> Scratch:
    """The polar factors R (n, d, d) of M = U2 U1ᵀ, for upper triangular factors U and their inverses V.

    Args:
        U1: Transposed factors of the first covariances, with shape (n, d, d), or (1, d, d) where it is one for all.
        U2: Transposed factors of the second covariances.
        V1: The inverses of U1.
        V2: The inverses of U2.
        scratch: Four buffers; the one that is returned holds R.
    """
    X, Y, A, Z = scratch
    n, d, _ = U2.shape
    F = A.matrices[: len(U1)]
    np.copyto(F, transposed(U1))
    triangle_times(U2, F, lower=False, out=X.matrices)
    triangle_times(transposed(V2), V1, lower=True, out=Y.matrices)
    norms, inverse_norms = squared_norms(X.matrices), squared_norms(Y.matrices)
    condition = math.sqrt((norms * inverse_norms).max())
    if condition > NEWTON_CONDITION:
        return climb(X, ladder(1 / condition), Y, A, Z, scale=1 / norms)
    q = np.sqrt(norms / inverse_norms)
    Y.scale(q)
    X.flat += Y.flat
    np.copyto(Y.flat, X.flat)
    np.matmul(transposed(Y.matrices), X.matrices, out=A.matrices)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980, theorem 2.1).
    mean = A.diagonals.reshape(n, d).sum(1) / d
    variance = np.maximum(squared_norms(A.matrices) / d - mean * mean, 0)
    scale = 1 / ((mean + np.sqrt((d - 1) * variance)) * (1 + 1e-14 * d))
    return climb(X, ladder(2 * math.sqrt((q * scale).min())), Y, A, Z, scale=scale, squared=True)


def climb(
    X: Scratch,
    steps: tuple[Step, ...],
    Y: Scratch,
    A: Scratch,
    Z: Scratch,
    *,
    scale: ndarray,
    squared: bool = False,
) -> Scratch:
    """Apply the polynomials to X in turn; the buffer that is returned holds the result.

    Args:
        X: Matrices with singular values in the range that the steps serve, once they are scaled.
        steps: What `ladder` gave.
        Y: A buffer, like A and Z.
        A: A buffer.
        Z: A buffer.
        scale: Factors (n,) of XᵀX.
        squared: Whether A holds XᵀX already, not scaled.
    """
    start, rungs = leading_ones(steps)
    X.scale(start * np.sqrt(scale))
    if squared:
        A.scale(rungs[0].scale * start**2 * scale)
    for degree, r, shifts in rungs:
        if squared:
            squared = False
        else:
            np.multiply(X.flat, r, out=Y.flat)
            np.matmul(transposed(Y.matrices), X.matrices, out=A.matrices)
        A.diagonals += shifts[0]
        if degree > 3:
            np.matmul(A.matrices, A.matrices, out=Z.matrices)
            if degree == 9:
                A.flat += Z.flat
                A.diagonals += shifts[2]
                Z.diagonals += shifts[1]
                np.matmul(Z.matrices, A.matrices, out=Y.matrices)
                Y, A = A, Y
            else:
                Z.diagonals += shifts[1]
                A, Z = Z, A
        np.matmul(X.matrices, A.matrices, out=Y.matrices)
        X, Y = Y, X
    return X


class Rung(NamedTuple):
    """A step for multiples of X, with C = scale XᵀX + shifts[0] I, which leads to the multiple that the next expects.

    X C for degree 3, X (C² + shifts[1] I) for 5, X (C² + shifts[1] I) (C² + C + shifts[2] I) for 9.
    """

    degree: int
    scale: float
    shifts: tuple[float, ...]


@functools.lru_cache(1024)
def leading_ones(steps: tuple[Step, ...]) -> tuple[float, tuple[Rung, ...]]:
    """By what to multiply X before the first step, and the steps: with C for m C, degree 9 needs no multiple of C²."""
    rungs, multiple = [], 1.0
    for degree, _, coefficients in reversed(steps):
        if degree == 3:
            h, r = coefficients
            shifts = (h,)
        elif degree == 5:
            r, *shifts = coefficients
        else:
            r, h, k1, m, k2 = coefficients
            r, shifts = m * r, (m * h, m * m * k1, m * k2)
            multiple /= m**3
        rungs.append(Rung(degree, r / multiple**2, tuple(shifts)))
    return multiple, tuple(reversed(rungs))
