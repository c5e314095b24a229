import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.empirical import transport_cost
from otkit.gaussian import fit, frechet_distance, w2_squared

rng = np.random.default_rng(0)


@pytest.mark.parametrize("correction", [0, 1, 1.5])
def test_fit_is_the_mean_and_torch_cov(correction):
    x = rng.normal(size=(2, 9, 3))
    loc, cov = fit(x, correction=correction)
    np.testing.assert_allclose(loc, x.mean(1), rtol=1e-14)
    scatter = [(each - each.mean(0)).T @ (each - each.mean(0)) for each in x]
    np.testing.assert_allclose(cov, np.array(scatter) / (9 - correction), rtol=1e-13)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 3), (4, 40, 6), (40, 4, 6), (4, 3, 6), (5, 5, 5), (1, 7, 3)])
@pytest.mark.parametrize("correction", [0, 1])
def test_frechet_distance_is_w2_of_the_fitted_gaussians(n, m, d, correction):
    if correction >= n:
        pytest.skip("no covariance")
    x, y = rng.normal(size=(2, n, d)), rng.normal(size=(m, d)) + 0.5
    expected = w2_squared(*fit(x, correction=correction), *fit(y, correction=correction))
    # The covariances of few samples are singular, which costs the expected value half of its digits.
    np.testing.assert_allclose(frechet_distance(x, y, correction=correction), expected, rtol=1e-7)


def test_batches_broadcast():
    assert frechet_distance(rng.normal(size=(4, 1, 9, 2)), rng.normal(size=(3, 8, 2))).shape == (4, 3)


def test_more_dimensions_than_a_square_matrix_could_have():
    x, y = rng.normal(size=(2, 6, 200_000))
    assert np.isfinite(frechet_distance(x, y))


@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_gelbrich_bound(d, n, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, n, d)) * [[[1.0]], [[3.0]]]
    assert frechet_distance(x, y, correction=0) <= transport_cost(x, y) * (1 + 1e-9) + 1e-12


def test_equality_in_gelbrich_for_an_affine_map():
    x = rng.normal(size=(40, 3))
    B = rng.normal(size=(3, 3))
    y = x @ (B @ B.T + np.eye(3)) + 1.0
    assert frechet_distance(x, y, correction=0) == pytest.approx(((x - y) ** 2).sum(-1).mean(), rel=1e-11)


@pytest.mark.parametrize(("n", "m", "d"), [(9, 8, 3), (3, 3, 5), (3, 9, 4)])
def test_derivatives(n, m, d):
    x, y = (torch.tensor(rng.normal(size=(k, d)), requires_grad=True) for k in (n, m))
    assert torch.autograd.gradcheck(frechet_distance, (x, y))
    assert torch.autograd.gradgradcheck(frechet_distance, (x, y))


@pytest.mark.parametrize("n", [3, 20])
def test_equal_samples_are_exactly_zero_apart(n):
    x = torch.tensor(rng.normal(size=(n, 5)), requires_grad=True)
    value = frechet_distance(x, x.detach().clone())
    value.backward()
    assert value.item() == 0
    assert not x.grad.any()


def test_float32():
    x, y = rng.normal(size=(2, 30, 4)).astype(np.float32)
    value = frechet_distance(x, y)
    assert value.dtype == np.float32
    assert value == pytest.approx(frechet_distance(x.astype(float), y.astype(float)), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((1, 2)), {}, "x has 1 samples; expected more than correction = 1"),
        (np.zeros(3), {}, r"x has shape \(3,\); expected samples"),
        (np.full((3, 2), np.inf), {}, "x must be finite"),
        (np.zeros((3, 4)), {}, r"y has shape \(5, 2\); expected \(..., m, 4\)"),
        (np.zeros((3, 2)), {"correction": -1}, "correction is -1"),
    ],
)
def test_bad_input(x, options, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, np.ones((5, 2)), **options)
