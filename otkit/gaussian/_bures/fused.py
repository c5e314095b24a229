r"""The polar factor and the residuals by torch's products, which include the addition of another matrix.

The same Newton step and the same polynomials as in `polar`, as :math:`A \leftarrow \alpha X Y + \beta A`, with the
square completed (`ladder.completed`). On one thread this is as fast as NumPy's products. It is for several, each with a
part of the pairs: OpenBLAS, which NumPy and SciPy call, would start threads of its own in each of them.
"""

from __future__ import annotations

import math

import torch
from numpy import ndarray
from torch import Tensor

from otkit.gaussian._bures.ladder import Step, completed, ladder
from otkit.gaussian._bures.polar import NEWTON_CONDITION, Residuals


class Fused:
    """Room for n pairs of matrices of size d, and what is computed in it."""

    def __init__(self, n: int, d: int):
        self.memory = torch.empty(4, n * d * d, dtype=torch.float64)
        self.resize(n, d)

    def resize(self, n: int, d: int) -> None:
        """Let the buffers show n matrices."""
        self.buffers = [memory[: n * d * d].view(n, d, d) for memory in self.memory]

    def residuals(self, U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray, *, second: bool) -> Residuals:
        """See `polar.Loops.residuals`; U1 is overwritten."""
        R, other, spare, _ = self._polar(U1, U2, V1, V2)
        first = torch.from_numpy(U1)
        norms = _squared_norms(R).numpy()
        first.baddbmm_(R.mT, torch.from_numpy(U2), alpha=-1)
        if second:
            other.baddbmm_(R, first, beta=0, alpha=-1)  # G - F Rᵀ = -(F - G R) Rᵀ
        return Residuals(norms, _squared_norms(first).numpy(), first.numpy(), other.numpy(), spare.numpy())

    def product(self, V: ndarray, residual: ndarray, out: ndarray) -> ndarray:
        """See `polar.Loops.product`."""
        torch.bmm(torch.from_numpy(V), torch.from_numpy(residual), out=torch.from_numpy(out))
        return out

    def _polar(self, U1: ndarray, U2: ndarray, V1: ndarray, V2: ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        X, Y, A, Z = self.buffers
        d = X.shape[-1]
        torch.bmm(torch.from_numpy(U2), torch.from_numpy(U1).mT, out=X)
        torch.bmm(torch.from_numpy(V2).mT, torch.from_numpy(V1), out=Y)
        norms, inverse_norms = _squared_norms(X), _squared_norms(Y)
        condition = float((norms * inverse_norms).max().sqrt())
        if condition > NEWTON_CONDITION:
            X *= norms.rsqrt()[:, None, None]
            return climb((X, Y, A, Z), ladder(1 / condition))
        q = (norms / inverse_norms).sqrt()
        X.addcmul_(Y, q[:, None, None])
        torch.bmm(X.mT, X, out=A)
        # The largest eigenvalue is at most mean + sqrt(d - 1) deviations (Wolkowicz & Styan, 1980, theorem 2.1).
        mean = _diagonals(A).sum(1) / d
        variance = (_squared_norms(A) / d - mean * mean).clamp(min=0)
        scale = 1 / ((mean + ((d - 1) * variance).sqrt()) * (1 + 1e-14 * d))
        X *= scale.sqrt()[:, None, None]
        A *= scale[:, None, None]
        return climb((X, Y, A, Z), ladder(2 * math.sqrt(float((q * scale).min()))), squared=True)


def climb(
    buffers: tuple[Tensor, Tensor, Tensor, Tensor], steps: tuple[Step, ...], *, squared: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply the polynomials to X in turn; the buffers come back in the order that has the result first.

    Args:
        buffers: X (n, d, d), with singular values in the range that the steps serve, and three more.
        steps: What `ladder` gave.
        squared: Whether the third buffer holds XᵀX.
    """
    X, Y, A, Z = buffers
    for step in steps:
        scale, shift, *more = completed(step)
        if squared:
            squared = False
            A *= scale
        else:
            A.baddbmm_(X.mT, X, beta=0, alpha=scale)
        _diagonals(A).add_(shift)
        if more:
            torch.bmm(A, A, out=Z)
            _diagonals(Z).add_(more[0])
            if step.degree == 9:
                _, outer, inner, last = more
                A.baddbmm_(Z, Z, beta=inner, alpha=outer)
                _diagonals(A).add_(last)
            else:
                A, Z = Z, A
        torch.bmm(X, A, out=Y)
        X, Y = Y, X
    return X, Y, A, Z


def _squared_norms(matrices: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrices, dim=(1, 2)).square()


def _diagonals(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1)
