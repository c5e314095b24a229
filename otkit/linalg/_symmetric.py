"""Parts of square matrices that are needed everywhere: the symmetric part, and the trace."""

from __future__ import annotations

from torch import Tensor


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part of matrices (..., d, d)."""
    return 0.5 * (matrix + matrix.mT)


def trace(matrix: Tensor) -> Tensor:
    """The traces of matrices (..., d, d)."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
