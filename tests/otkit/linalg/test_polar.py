import numpy as np
import pytest
import scipy.linalg
import torch

from otkit.linalg import polar

rng = np.random.default_rng(0)


def test_batched_against_scipy():
    M = rng.normal(size=(5, 4, 4))
    R, H = polar(M)
    for k in range(5):
        expected = scipy.linalg.polar(M[k])
        np.testing.assert_allclose(R[k], expected[0], atol=1e-12)
        np.testing.assert_allclose(H[k], expected[1], atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_singular_matrices_are_completed(rank):
    M = rng.normal(size=(4, rank)) @ rng.normal(size=(rank, 4))
    R, H = polar(M)
    np.testing.assert_allclose(R.T @ R, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(R @ H, M, atol=1e-13)
    assert np.linalg.eigvalsh(H).min() >= -1e-13


@pytest.mark.parametrize(
    "M", [rng.normal(size=(2, 3, 3)), np.eye(3), np.diag([1.0, 1.0, -2.0])], ids=["random", "I", "repeated"]
)
def test_first_and_second_derivatives(M):
    tensor = torch.tensor(M, requires_grad=True)
    assert torch.autograd.gradcheck(polar, tensor)
    assert torch.autograd.gradgradcheck(polar, tensor)


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


def test_functional_transforms():
    M = torch.from_numpy(rng.normal(size=(5, 3, 3)))
    f = lambda M: polar(M, validate=False)[0].sum()  # noqa: E731
    one_by_one = torch.stack([torch.func.jacrev(torch.func.jacrev(f))(each) for each in M])
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(torch.func.jacrev(f)))(M), one_by_one)


@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        (np.ones((2, 3)), ValueError, r"M has shape \(2, 3\)"),
        (np.full((2, 2), np.nan), ValueError, "M must be finite; got 4 entries"),
        (np.eye(2, dtype=int), TypeError, "M has dtype int64"),
    ],
)
def test_bad_input_names_the_argument(M, error, message):
    with pytest.raises(error, match=message):
        polar(M)
