"""BLAS and LAPACK for blocks of matrices of float64, in place, with the interpreter's lock free.

SciPy's own functions hold the lock, so that threads would wait for one another, and copy blocks. Its Cython modules
publish the addresses of the same routines; ctypes calls these without the lock.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref, c_char_p, c_double, c_int, c_void_p, py_object
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from scipy.linalg import cython_blas, cython_lapack  # pyright: ignore[reportAttributeAccessIssue]

_name_of: Any = ctypes.PYFUNCTYPE(c_char_p, py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_address_of: Any = ctypes.PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))


def _routine(module: Any, name: str, result: Any = None) -> Any:
    capsule = module.__pyx_capi__[name]
    return ctypes.CFUNCTYPE(result)(_address_of(capsule, _name_of(capsule)))


_dtrmm, _dsyrk, _dsymm, _daxpy = (_routine(cython_blas, name) for name in ("dtrmm", "dsyrk", "dsymm", "daxpy"))
_ddot = _routine(cython_blas, "ddot", c_double)
_dpotrf, _dtrtri, _dlacpy = (_routine(cython_lapack, name) for name in ("dpotrf", "dtrtri", "dlacpy"))
_ZERO = byref(c_double(0.0))


@functools.lru_cache(4096)
def _int(number: int) -> Any:
    """A whole number that a routine reads and does not change."""
    return byref(c_int(number))


class Matrix(NamedTuple):
    """A matrix in Fortran's order, or a block of one.

    Attributes:
        array: The whole matrix, which keeps the memory.
        place: The address of the first entry.
        rows: The number of rows.
        columns: The number of columns.
    """

    array: ndarray
    place: int
    rows: int
    columns: int

    @classmethod
    def of(cls, array: ndarray) -> Matrix:
        """A whole matrix, not copied.

        Raises:
            ValueError: What the routines would misread.
        """
        if array.dtype != np.float64 or array.ndim != 2 or not array.flags.f_contiguous:
            raise ValueError(
                f"array has dtype {array.dtype}, shape {array.shape} and strides {array.strides}; expected a matrix of "
                "float64 in Fortran's order"
            )
        return cls(array, array.ctypes.data, *array.shape)

    @classmethod
    def zeros(cls, d: int) -> Matrix:
        """A square matrix of zeros."""
        return cls.of(np.zeros((d, d), order="F"))

    def block(self, i: int, j: int, rows: int, columns: int) -> Matrix:
        """The block whose first entry is (i, j)."""
        return Matrix(self.array, self.place + 8 * (i + j * len(self.array)), rows, columns)

    def halves(self) -> tuple[Matrix, Matrix, Matrix]:
        """The first block on the diagonal, that below it, and the last, of a square matrix."""
        d, k = self.rows, self.rows // 2
        return self.block(0, 0, k, k), self.block(k, 0, d - k, k), self.block(k, k, d - k, d - k)

    @property
    def diagonal(self) -> ndarray:
        """A view of the diagonal of a whole square matrix."""
        return self.array.reshape(-1, order="F")[:: self.rows + 1]

    @property
    def _at(self) -> tuple[c_void_p, Any]:
        return c_void_p(self.place), _int(len(self.array))


def copy_lower(A: Matrix, out: Matrix) -> None:
    """The lower half of a square matrix."""
    _dlacpy(b"L", _int(A.rows), _int(A.columns), *A._at, *out._at)


def copy(A: Matrix, out: Matrix) -> None:
    """All of a matrix."""
    _dlacpy(b"A", _int(A.rows), _int(A.columns), *A._at, *out._at)


def triangular_product(alpha: float, L: Matrix, B: Matrix, *, right: bool = False, transposed: bool = False) -> None:
    """B becomes alpha L B, or alpha B L, for lower triangular L, which may be transposed."""
    _dtrmm(
        *(b"R" if right else b"L", b"L", b"T" if transposed else b"N", b"N"),
        *(_int(B.rows), _int(B.columns), byref(c_double(alpha)), *L._at, *B._at),
    )


def gram(alpha: float, X: Matrix, C: Matrix, *, beta: float = 0.0, transposed: bool = False) -> None:
    """The lower half of C becomes that of alpha X Xᵀ + beta C, or of alpha XᵀX + beta C."""
    inner = X.rows if transposed else X.columns
    _dsyrk(
        *(b"L", b"T" if transposed else b"N", _int(C.rows), _int(inner)),
        *(byref(c_double(alpha)), *X._at, byref(c_double(beta)), *C._at),
    )


def symmetric_product(alpha: float, X: Matrix, A: Matrix, out: Matrix) -> None:
    """Alpha X A for symmetric A, of which the lower half is read."""
    _dsymm(b"R", b"L", _int(X.rows), _int(X.columns), byref(c_double(alpha)), *A._at, *X._at, _ZERO, *out._at)


def cholesky(A: Matrix) -> bool:
    """The lower half of A becomes the Cholesky factor of the matrix it is half of; returns whether there is one."""
    info = c_int()
    _dpotrf(b"L", _int(A.rows), *A._at, byref(info))
    return info.value == 0


def invert_triangle(L: Matrix) -> None:
    """The lower half of L becomes its inverse."""
    _dtrtri(b"L", b"N", _int(L.rows), *L._at, byref(c_int()))


def add(alpha: float, X: Matrix, Y: Matrix) -> None:
    """Y becomes alpha X + Y, for whole matrices."""
    _daxpy(_int(X.array.size), byref(c_double(alpha)), c_void_p(X.place), _int(1), c_void_p(Y.place), _int(1))


def squared_norm(X: Matrix) -> float:
    """The squared Frobenius norm of a whole matrix."""
    return _ddot(_int(X.array.size), c_void_p(X.place), _int(1), c_void_p(X.place), _int(1))
