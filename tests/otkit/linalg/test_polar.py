import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from otkit.linalg import polar
from otkit.linalg._polar import polar_factor
from otkit.testing import psd_matrices, rotations

rng = np.random.default_rng(0)


# Known answers and oracles


def test_batched_against_scipy():
    M = rng.normal(size=(5, 4, 4))
    R, H = polar(M)
    for k in range(5):
        expected = scipy.linalg.polar(M[k])
        np.testing.assert_allclose(R[k], expected[0], atol=1e-12)
        np.testing.assert_allclose(H[k], expected[1], atol=1e-12)


def test_against_sixty_digits():
    M = np.diag([1.0, 1e-4, 1e-8]) + np.triu(np.ones((3, 3)), 1)
    with mpmath.workdps(60):
        U, h, Vh = mpmath.svd_r(mpmath.matrix(M.tolist()))
        exact = (U * Vh, Vh.T * mpmath.diag(list(h)) * Vh)
    R, H = polar(M)
    # R moves by 2 eps |M| / (h_2 + h_3) with the last bits of M, which here is 2e-12; H keeps its digits.
    np.testing.assert_allclose(R, np.array(exact[0].tolist(), dtype=float), rtol=0, atol=2e-12)
    np.testing.assert_allclose(H, np.array(exact[1].tolist(), dtype=float), rtol=0, atol=1e-15 * 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kind_and_dtype_are_kept(dtype):
    M = torch.from_numpy(rng.normal(size=(3, 4, 4))).to(dtype)
    R, H = polar(M)
    assert R.dtype == H.dtype == dtype
    assert all(isinstance(part, np.ndarray) for part in polar(M.numpy()))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(R @ H, M, rtol=0, atol=100 * eps)
    torch.testing.assert_close(R.mT @ R, torch.eye(4, dtype=dtype).expand_as(M), rtol=0, atol=100 * eps)


# Laws


@given(rotations(3), psd_matrices(3, cond=1e4))
@example(np.eye(3), np.eye(3))
def test_a_product_comes_apart(Q, A):
    R, H = polar(Q @ A)
    np.testing.assert_allclose(R, Q, rtol=0, atol=1e-14 * np.linalg.cond(A))
    np.testing.assert_allclose(H, A, rtol=0, atol=1e-14 * np.linalg.norm(A))


@given(rotations(4), st.integers(0, 2**32 - 1))
def test_nothing_orthogonal_is_nearer(Q, seed):
    M = np.random.default_rng(seed).normal(size=(4, 4))
    R, H = polar(M)
    assert np.linalg.norm(M - R) <= np.linalg.norm(M - Q) + 1e-13
    np.testing.assert_array_equal(H, H.T)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_singular_matrices_are_completed(rank):
    M = rng.normal(size=(4, rank)) @ rng.normal(size=(rank, 4))
    R, H = polar(M)
    np.testing.assert_allclose(R.T @ R, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(R @ H, M, atol=1e-13)
    assert np.linalg.eigvalsh(H).min() >= -1e-13


# Derivatives


@pytest.mark.parametrize(
    "M", [rng.normal(size=(2, 3, 3)), np.eye(3), np.diag([1.0, 1.0, -2.0])], ids=["random", "I", "repeated"]
)
def test_first_and_second_derivatives(M):
    tensor = torch.tensor(M, requires_grad=True)
    assert torch.autograd.gradcheck(polar, tensor)
    assert torch.autograd.gradgradcheck(polar, tensor)


@pytest.mark.parametrize("M", [rng.normal(size=(2, 4, 2)), np.eye(4)[:, :3]], ids=["random", "orthonormal"])
def test_first_and_second_derivatives_of_tall_matrices(M):
    tensor = torch.tensor(M, requires_grad=True)
    assert torch.autograd.gradcheck(polar_factor, tensor)
    assert torch.autograd.gradgradcheck(polar_factor, tensor)


def test_gradient_of_tall_matrices_is_that_at_fixed_rank():
    """dR = (I - R Rᵀ) dM H⁺ out of the range, H⁺ = diag(1/2, 0)."""
    M = torch.zeros(4, 2, dtype=torch.float64)
    M[0, 0] = 2.0
    M.requires_grad_()
    R = polar_factor(M)
    outside = torch.eye(4, dtype=torch.float64) - R.detach() @ R.detach().mT
    G = torch.from_numpy(rng.normal(size=(4, 2)))
    (grad,) = torch.autograd.grad((R * (outside @ G)).sum(), M)
    torch.testing.assert_close(grad, outside @ G @ torch.diag(torch.tensor([0.5, 0.0], dtype=torch.float64)))


def test_gradient_at_singular_matrices_is_finite():
    M = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).requires_grad_()
    R, H = polar(M)
    (R.sum() + H.sum()).backward()
    assert torch.isfinite(M.grad).all()


def test_small_singular_values_are_not_taken_for_zero():
    """dR/dM in the plane of the two small ones is 1 / (h_2 + h_3), far below the root of rounding."""
    M = torch.diag(torch.tensor([1.0, 1e-9, 2e-9], dtype=torch.float64)).requires_grad_()
    polar(M)[0][1, 2].backward()
    assert M.grad[1, 2].item() == pytest.approx(1 / 3e-9, rel=1e-6)


def test_few_digits_take_no_large_singular_value_for_zero():
    M = torch.eye(300, dtype=torch.bfloat16).requires_grad_()
    polar(M)[0][0, 1].backward()
    assert M.grad[0, 1] == 0.5
    assert M.grad[1, 0] == -0.5


def test_functional_transforms():
    M = torch.from_numpy(rng.normal(size=(5, 3, 3)))
    f = lambda M: polar(M, validate=False)[0].sum()  # noqa: E731
    one_by_one = torch.stack([torch.func.jacrev(torch.func.jacrev(f))(each) for each in M])
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(torch.func.jacrev(f)))(M), one_by_one)
