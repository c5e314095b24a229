r"""The orthogonal polar factor of :math:`M = G^\top F` by products alone, where the inverses of F and G are at hand.

One Newton step, which needs the inverse and has it for free, :math:`M^{-\top} = G^{-1} F^{-\top}`,

.. math:: X = M + q\,M^{-\top}, \qquad q = \|M\|_F / \|M^{-1}\|_F ,

keeps the polar factor and takes singular values :math:`\sigma` to :math:`\sigma + q/\sigma \ge 2\sqrt q`: a condition
number :math:`\kappa` becomes about :math:`\sqrt\kappa/2`, and the smallest singular value has a known bound. The
largest has one from the trace and the norm of :math:`X^\top X`. With both known, the polynomials of `ladder` finish
in a number of products known beforehand.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from otkit.gaussian._bures.cholesky import squared_norms, transposed, triangle_times
from otkit.gaussian._bures.ladder import Step, ladder

NEWTON_CONDITION = 1e9
"""The condition number of M beyond which its inverse is too rough for the Newton step."""


class Scratch:
    """A buffer (n, d, d) whose matrices lie d (d + 1) apart.

    All diagonals together are then one strided vector, and adding multiples of I to a batch is one operation.
    """

    def __init__(self, n: int, d: int):
        self.memory = np.zeros(n * (d + 1) * d)
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


def polar_by_newton_and_ladder(U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray, scratch: list[Scratch]) -> Scratch:
    """The polar factors R (n, d, d) of M = U2 U1ᵀ, for upper triangular factors U and their inverses V.

    Args:
        U1: Transposed factors of the first covariances, with shape (n, d, d).
        U2: Transposed factors of the second covariances.
        V1: The inverses of U1.
        V2: The inverses of U2.
        scratch: Five buffers; the one that is returned holds R.
    """
    X, Y, A, Z, W = scratch
    n, d, _ = U1.shape
    np.copyto(A.matrices, transposed(U1))
    triangle_times(U2, A.matrices, lower=False, out=X.matrices)
    triangle_times(transposed(V2), V1, lower=True, out=Y.matrices)
    norms, inverse_norms = squared_norms(X.matrices), squared_norms(Y.matrices)
    condition = math.sqrt((norms * inverse_norms).max())
    if condition > NEWTON_CONDITION:
        X.rows[...] *= (1 / np.sqrt(norms))[:, None]
        return climb(X, ladder(1 / condition), Y, A, Z, W)
    q = np.sqrt(norms / inverse_norms)
    least, most = float(q.min()), float(q.max())
    if most > 2 * least:
        # The scales of the block differ: bring each matrix to q = 1.
        X.rows[...] *= (1 / np.sqrt(q))[:, None]
        Y.rows[...] *= np.sqrt(q)[:, None]
        common = 1.0
    else:
        common = math.sqrt(least * most)
        Y.flat *= common
    X.flat += Y.flat
    np.copyto(Y.flat, X.flat)
    np.matmul(transposed(Y.matrices), X.matrices, out=A.matrices)
    # The largest eigenvalue is at most mean + sqrt(d - 1) standard deviations (Wolkowicz & Styan, 1980).
    mean = A.diagonals.reshape(n, d).sum(1) / d
    variance = np.maximum(squared_norms(A.matrices) / d - mean * mean, 0)
    largest = float((mean + np.sqrt((d - 1) * variance)).max()) * (1 + 1e-14 * d)
    X.flat *= 1 / math.sqrt(largest)
    return climb(X, ladder(2 * math.sqrt(common / largest)), Y, A, Z, W, gram_scale=1 / largest)


def climb(
    X: Scratch,
    steps: tuple[Step, ...],
    Y: Scratch,
    A: Scratch,
    Z: Scratch,
    W: Scratch,
    gram_scale: float | None = None,
) -> Scratch:
    """Apply the polynomials to X in turn; the buffer that is returned holds the result.

    Args:
        X: Matrices with singular values in the range that the steps serve.
        steps: What `ladder` gave.
        Y: A buffer, like A, Z and W.
        A: A buffer that holds XᵀX / gram_scale already, if there is a gram_scale.
        Z: A buffer.
        W: A buffer.
        gram_scale: The scale of what A holds.
    """
    for degree, _, coefficients in steps:
        scale = coefficients[1] if degree == 3 else coefficients[0]
        if gram_scale is not None:
            A.flat *= scale * gram_scale
            gram_scale = None
        else:
            np.multiply(X.flat, scale, out=Y.flat)
            np.matmul(transposed(Y.matrices), X.matrices, out=A.matrices)
        if degree == 3:
            A.diagonals += coefficients[0]
            np.matmul(X.matrices, A.matrices, out=Y.matrices)
        elif degree == 5:
            _, h, k = coefficients
            A.diagonals += h
            np.matmul(A.matrices, A.matrices, out=Z.matrices)
            Z.diagonals += k
            np.matmul(X.matrices, Z.matrices, out=Y.matrices)
        else:
            _, h, k1, m, k2 = coefficients
            A.diagonals += h
            np.matmul(A.matrices, A.matrices, out=Z.matrices)
            np.multiply(Z.flat, m, out=W.flat)
            A.flat += W.flat
            A.diagonals += k2
            Z.diagonals += k1
            np.matmul(Z.matrices, A.matrices, out=W.matrices)
            np.matmul(X.matrices, W.matrices, out=Y.matrices)
        X, Y = Y, X
    return X
