import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import example, given

from otkit.linalg import inv_sqrtm, polar, sqrtm
from otkit.testing import psd_matrices
from tests.otkit.random_inputs import spd

# Known answers


def test_diagonal():
    np.testing.assert_allclose(sqrtm(np.diag([4.0, 9.0, 0.0])), np.diag([2.0, 3.0, 0.0]), rtol=1e-15)


def test_batched_against_scipy():
    A = spd(2, 3, 5)
    expected = np.array([[scipy.linalg.sqrtm(matrix) for matrix in row] for row in A])
    np.testing.assert_allclose(sqrtm(A), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("smallest", [1.0, 1e-4, 1e-8])
def test_against_sixty_digits(smallest):
    Q = np.linalg.qr(spd(3))[0]
    A = (Q * [1.0, 0.5, smallest]) @ Q.T
    A = (A + A.T) / 2
    with mpmath.workdps(60):
        eigenvalues, V = mpmath.eigsy(mpmath.matrix(A.tolist()))
        root = V * mpmath.diag([mpmath.sqrt(e) for e in eigenvalues]) * V.T
        inverse = V * mpmath.diag([1 / mpmath.sqrt(e) for e in eigenvalues]) * V.T
        root, inverse = (np.array(exact.tolist(), dtype=float) for exact in (root, inverse))
    # An eigenvalue that is off by eps has a root that is off by eps / (2 λ^½), and its inverse by eps / (2 λ^{3/2}).
    eps = 10 * np.finfo(float).eps
    np.testing.assert_allclose(sqrtm(A), root, rtol=0, atol=eps / smallest**0.5)
    np.testing.assert_allclose(inv_sqrtm(A), inverse, rtol=0, atol=eps / smallest**1.5)


# Laws


@given(psd_matrices(4, cond=1e8, singular=True))
@example(np.zeros((4, 4)))
@example(np.diag([1e150, 1e-150, 0.0, 1.0]))
def test_square_gives_the_matrix_back(A):
    S = sqrtm(A)
    np.testing.assert_array_equal(S, S.T)
    assert np.linalg.eigvalsh(S).min() >= -1e-14 * np.linalg.norm(S)
    np.testing.assert_allclose(S @ S, A, rtol=0, atol=1e-14 * max(np.linalg.norm(A), 1e-300))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kind_and_dtype_are_kept(dtype):
    A = spd(3, 3).astype(dtype)
    assert sqrtm(A).dtype == dtype
    assert isinstance(sqrtm(A), np.ndarray)
    assert sqrtm(torch.from_numpy(A)).dtype == torch.from_numpy(A).dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(sqrtm(A) @ sqrtm(A), A, rtol=tolerance, atol=tolerance)


def test_few_digits_are_computed_with_many():
    """As everywhere: what came in float32 is exact, and what goes out is rounded once."""
    Q = np.linalg.qr(spd(4))[0]
    A = ((Q * [1.0, 1e-2, 1e-4, 1e-6]) @ Q.T).astype(np.float32)
    A = (A + A.T) / 2
    for function in (sqrtm, inv_sqrtm, lambda M: polar(M)[0], lambda M: polar(M)[1]):
        result = function(A)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, function(A.astype(float)).astype(np.float32))
    # What is zero is so to the rounding of what came: the noise of a float32 matrix is not inverted.
    F = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert np.abs(inv_sqrtm(F @ F.T)).max() < 10


@given(psd_matrices(3, cond=1e4, singular=True))
def test_inverse_root_is_the_pseudo_inverse_of_the_root(A):
    np.testing.assert_allclose(inv_sqrtm(A), np.linalg.pinv(sqrtm(A), rtol=1e-6, hermitian=True), rtol=1e-9, atol=1e-9)


# Derivatives, through a symmetric parametrisation


def shifted(B, A):
    return sqrtm(A + B + B.mT)


@pytest.mark.parametrize(
    "A",
    [torch.from_numpy(spd(2, 4)), torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, 4.0]))],
    ids=["random", "I", "repeated"],
)
def test_first_and_second_derivatives(A):
    A = A.double()
    B = torch.zeros_like(A, requires_grad=True)
    assert torch.autograd.gradcheck(shifted, (B, A))
    assert torch.autograd.gradgradcheck(shifted, (B, A))
    assert torch.autograd.gradcheck(lambda B, A: inv_sqrtm(A + B + B.mT), (B, A))
    assert torch.autograd.gradgradcheck(lambda B, A: inv_sqrtm(A + B + B.mT), (B, A))


def test_gradient_at_zero_eigenvalues_is_finite_and_that_of_the_range():
    A = torch.diag(torch.tensor([4.0, 0.0, 0.0], dtype=torch.float64)).requires_grad_()
    sqrtm(A).sum().backward()
    # dS_ij = dA_ij / (s_i + s_j), and 0 where that is 0/0.
    expected = torch.tensor([[1 / 4, 1 / 2, 1 / 2], [1 / 2, 0, 0], [1 / 2, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(A.grad, expected)


def test_third_derivatives():
    """Any order: the second derivatives of the gradient."""
    A, w = torch.from_numpy(spd(2)), torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    B = torch.zeros_like(A, requires_grad=True)

    def gradient(B):
        return torch.autograd.grad((shifted(B, A) * w).sum(), B, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, B)


@given(psd_matrices(3, cond=1e2))
@example(np.diag([1.0, 1.0, 4.0]))
def test_gradients_are_symmetric_whatever_comes_in(A):
    """A symmetric matrix moves by symmetric ones, so that its gradient is the symmetric one of all that agree there."""
    tensor = torch.tensor(A, requires_grad=True)
    weights = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)
    (first,) = torch.autograd.grad((sqrtm(tensor) * weights).sum(), tensor, create_graph=True)
    (second,) = torch.autograd.grad((first * weights).sum(), tensor)
    assert sqrtm(A)[0, 1] == sqrtm(A)[1, 0]
    for gradient in (first.detach(), second):
        torch.testing.assert_close(gradient, gradient.mT, rtol=1e-12, atol=1e-12 * float(gradient.abs().max()))


def test_gradient_of_the_inverse_root_at_zero_eigenvalues_is_that_at_fixed_rank():
    """The eigenvalue 4 has -1/2 · 4^(-3/2); turned by h, A[0, 1] moves by 4h and the inverse root's by h/2."""
    A = torch.diag(torch.tensor([4.0, 0.0, 1e-17], dtype=torch.float64)).requires_grad_()
    inv_sqrtm(A).sum().backward()
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 0] = -1 / 16
    expected[0, 1:] = expected[1:, 0] = 1 / 8
    torch.testing.assert_close(A.grad, expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_derivatives_of_the_inverse_root_along_matrices_of_one_rank(rank):
    """With A = F Fᵀ the rank stays, and finite differences of F are within it."""
    F = torch.from_numpy(np.random.default_rng(rank).normal(size=(3, rank)) + 2 * np.eye(3)[:, :rank])

    def entries(F):
        return inv_sqrtm(F @ F.mT).flatten()

    # The root of an eigenvalue that is 0 to rounding is 1e-8, and so accurate are derivatives.
    assert torch.autograd.gradcheck(entries, F.requires_grad_())
    assert torch.autograd.gradgradcheck(entries, F, eps=1e-4, atol=1e-3)


@pytest.mark.parametrize("d", [100, 128, 600])
def test_few_digits_take_no_large_eigenvalue_for_zero(d):
    """d roundings of bfloat16 are more than one; half of its digits is the most that they excuse."""
    eye = torch.eye(d, dtype=torch.bfloat16)
    A = eye.clone().requires_grad_()
    torch.testing.assert_close(inv_sqrtm(A), eye)
    torch.testing.assert_close(torch.autograd.grad(sqrtm(A).sum(), A)[0], torch.full((d, d), 0.5, dtype=eye.dtype))
    few = torch.diag(torch.linspace(1, 0.25, d, dtype=torch.bfloat16))
    torch.testing.assert_close(inv_sqrtm(few).diagonal().double(), few.diagonal().double().rsqrt(), rtol=1e-2, atol=0)


def test_functional_transforms():
    A = torch.from_numpy(spd(5, 3))
    f = lambda A: sqrtm(A, validate=False).square().sum()  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(f))(A), torch.eye(3, dtype=A.dtype).expand(5, 3, 3))
    torch.testing.assert_close(
        torch.func.vmap(torch.func.jacrev(torch.func.jacrev(f)))(A), torch.zeros(5, *[3] * 4).double()
    )


def test_rounding_below_zero_is_no_error():
    assert np.isfinite(sqrtm(np.diag([1.0, -1e-17]))).all()


def test_roots_of_eigenvalues_that_are_zero_to_rounding_have_no_derivative():
    """The gradient of the trace of the root of X Xᵀ is X (Xᵀ X)^(-3/2) Xᵀ / 2 within its range, and 0 beside it."""
    x = torch.randn(20, 6, 1, dtype=torch.float64)
    A = (x @ x.mT).requires_grad_()
    sqrtm(A).diagonal(dim1=-2, dim2=-1).sum().backward()
    torch.testing.assert_close(A.grad, x @ x.mT / (2 * (x.mT @ x) ** 1.5), rtol=1e-6, atol=1e-6)
