"""Routines in Fortran's order, on blocks of larger matrices, against NumPy; what is around a block stays as it was."""

import numpy as np
import pytest

from otkit.gaussian._bures import fortran
from otkit.gaussian._bures.fortran import Matrix


def block(rows, columns, seed=0):
    """A block of a matrix of random numbers, and that matrix before."""
    whole = Matrix.of(np.asfortranarray(np.random.default_rng(seed).normal(size=(11, 9))))
    return whole.block(3, 2, rows, columns), whole.array.copy()


def inside(matrix):
    return matrix.array[3 : 3 + matrix.rows, 2 : 2 + matrix.columns]


def check(matrix, before, expected, where=None):
    """The block is what is expected (in its lower half), and around it nothing has changed."""
    where = np.ones(expected.shape, bool) if where is None else where
    after = before.copy()
    np.copyto(after[3 : 3 + matrix.rows, 2 : 2 + matrix.columns], expected, where=where)
    np.testing.assert_allclose(matrix.array, after, rtol=1e-12, atol=1e-13)


def lower(n):
    return np.tri(n, dtype=bool)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_triangular_product(right, transposed):
    n = 4 if right else 5
    (B, before), (L, of_factor) = block(5, 4), block(n, n, seed=1)
    X, factor = inside(B).copy(), np.tril(inside(L))
    factor = factor.T if transposed else factor
    fortran.triangular_product(-0.5, L, B, right=right, transposed=transposed)
    check(B, before, -0.5 * (X @ factor if right else factor @ X))
    np.testing.assert_array_equal(L.array, of_factor)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_gram(transposed, beta):
    (X, of_factor), n = block(5, 3), 3 if transposed else 5
    C, before = block(n, n, seed=1)
    x, c = inside(X), inside(C).copy()
    fortran.gram(0.5, X, C, beta=beta, transposed=transposed)
    check(C, before, 0.5 * (x.T @ x if transposed else x @ x.T) + beta * c, lower(n))
    np.testing.assert_array_equal(X.array, of_factor)


def test_symmetric_product():
    (X, _), (A, _), (out, before) = block(5, 4), block(4, 4, seed=1), block(5, 4, seed=2)
    whole = np.tril(inside(A)) + np.tril(inside(A), -1).T
    fortran.symmetric_product(1.5, X, A, out)
    check(out, before, 1.5 * inside(X) @ whole)


def test_cholesky_and_the_inverse_of_a_triangle():
    A, _ = block(4, 4)
    inside(A)[...] = inside(A) @ inside(A).T + np.eye(4)
    before, cov = A.array.copy(), inside(A).copy()
    assert fortran.cholesky(A)
    check(A, before, np.linalg.cholesky(cov), lower(4))
    fortran.invert_triangle(A)
    check(A, before, np.linalg.inv(np.linalg.cholesky(cov)), lower(4))
    inside(A)[...] = -np.eye(4)
    assert not fortran.cholesky(A)


def test_copies():
    (X, _), (out, before) = block(5, 4), block(5, 4, seed=1)
    fortran.copy(X, out)
    check(out, before, inside(X))
    (X, _), (out, before) = block(4, 4), block(4, 4, seed=1)
    fortran.copy_lower(X, out)
    check(out, before, inside(X), lower(4))


def test_whole_matrices():
    X, Y = (Matrix.of(np.asfortranarray(np.random.default_rng(k).normal(size=(6, 6)))) for k in (0, 1))
    x, y = X.array.copy(), Y.array.copy()
    assert fortran.squared_norm(X) == pytest.approx((x * x).sum(), rel=1e-14)
    fortran.add(-3.0, X, Y)
    np.testing.assert_allclose(Y.array, y - 3 * x, rtol=1e-14)
    X.diagonal[...] += 1
    np.testing.assert_array_equal(X.array, x + np.eye(6))
    zeros = Matrix.zeros(5)
    assert not zeros.array.any()
    first, below, last = zeros.halves()
    for k, part in enumerate((first, below, last)):
        fortran.copy(Matrix.of(np.full((part.rows, part.columns), k + 1.0, order="F")), part)
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [2, 2, 3, 3, 3], [2, 2, 3, 3, 3], [2, 2, 3, 3, 3]]
    np.testing.assert_array_equal(zeros.array, expected)


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((3, 3), np.float32, order="F"), np.zeros(3)])
def test_what_the_routines_would_misread_is_not_taken(array):
    with pytest.raises(ValueError, match=r"array has dtype float.*expected a matrix of float64 in Fortran's order"):
        Matrix.of(array)
