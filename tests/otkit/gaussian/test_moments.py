import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from otkit.empirical import transport_cost
from otkit.gaussian import fit, frechet_distance, w2_squared, w2_squared_from_factors
from otkit.testing import isometries, point_clouds

rng = np.random.default_rng(0)


# Known answers and oracles


def test_by_hand():
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [7.0]])
    loc, cov = fit(x)
    assert (loc.item(), cov.item()) == (1.0, 2.0)
    assert fit(x, correction=0)[1].item() == pytest.approx(1.0, rel=1e-15)
    # |1 - 4|² + (1 - 3)², and (√2 - √18)² = 8 with n - 1.
    assert frechet_distance(x, y, correction=0) == pytest.approx(13, rel=1e-15)
    assert frechet_distance(x, y) == pytest.approx(17, rel=1e-15)


def test_frechet_distance_against_sqrtm():
    x, y = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(20, 4)) + 1
    C1, C2 = np.cov(x.T), np.cov(y.T)
    half = scipy.linalg.sqrtm(C1)
    cross = scipy.linalg.sqrtm(half @ C2 @ half)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(C1 + C2 - 2 * cross)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-11)


def test_frechet_distance_of_near_samples_against_sixty_digits():
    """The trace form has no digit left here: W2² is 1e-18 of the traces, and rounded data know 8 digits of it."""
    x = rng.normal(size=(12, 2))
    y = x + 1e-9 * rng.normal(size=(12, 2))
    with mpmath.workdps(60):
        (m1, C1), (m2, C2) = (_exact_moments(points) for points in (x, y))
        half = mpmath.sqrtm(C1)
        traces = C1 + C2 - 2 * mpmath.sqrtm(half * C2 * half)
        exact = float(mpmath.norm(m1 - m2) ** 2 + traces[0, 0] + traces[1, 1])
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-6)


def _exact_moments(points):
    n = len(points)
    P = mpmath.matrix(points.tolist())
    m = mpmath.matrix([sum(P[i, k] for i in range(n)) / n for k in range(2)])
    P = mpmath.matrix([[P[i, k] - m[k] for k in range(2)] for i in range(n)])
    return m, P.T * P / (n - 1)


@pytest.mark.parametrize("correction", [0, 1, 1.5, np.int64(1), np.float32(0.5)])
def test_fit_is_the_mean_and_torch_cov(correction):
    x = rng.normal(size=(2, 9, 3))
    loc, cov = fit(x, correction=correction)
    np.testing.assert_allclose(loc, x.mean(1), rtol=1e-14)
    scatter = [(each - each.mean(0)).T @ (each - each.mean(0)) for each in x]
    np.testing.assert_allclose(cov, np.array(scatter) / (9 - correction), rtol=1e-13)


@pytest.mark.parametrize("correction", [0, 1])
def test_moments_of_many_samples(correction):
    """More than one block of them, the last not full, and with a mean beside which the spread is small."""
    x = 1e3 + rng.normal(size=(70_001, 4)) * [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(fit(x, correction=correction)[1], np.cov(x.T, ddof=correction), rtol=1e-11, atol=1e-13)
    leaf = torch.from_numpy(x).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(4, 4)))
    (gradient,) = torch.autograd.grad((weights * fit(leaf, correction=correction)[1]).sum(), leaf)
    expected = (x - x.mean(0)) @ (weights + weights.mT).numpy() / (len(x) - correction)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-13)


class Largest(TorchDispatchMode):
    """Notes the size of the largest array that is made, views aside."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        old = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in old:
                self.numel = max(self.numel, made.numel())
        return result


def test_no_copy_of_large_data_is_made():
    x, y = torch.from_numpy(rng.normal(size=(2, 40_000, 16)))
    loc = torch.zeros(40_000, dtype=torch.float64)
    with Largest() as of_samples:
        frechet_distance(x, y)
    with Largest() as of_factors:
        w2_squared_from_factors(loc, x, loc, y)
    assert 0 < of_samples.numel <= x.numel() / 4
    assert 0 < of_factors.numel <= x.numel() / 4


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


# Laws


@given(point_clouds(3, n=6), isometries(3), st.floats(-5, 5))
def test_moments_move_with_the_points(x, Q, scale):
    loc, cov = fit(x)
    moved_loc, moved_cov = fit(scale * x @ Q.T + 1)
    size = 1 + scale**2 * (x**2).sum()
    np.testing.assert_allclose(moved_loc, scale * Q @ loc + 1, rtol=0, atol=1e-15 * size * 10)
    np.testing.assert_allclose(moved_cov, scale**2 * Q @ cov @ Q.T, rtol=0, atol=1e-15 * size * 100)
    np.testing.assert_array_equal(cov, cov.T)


@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_gelbrich_bound(d, n, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, n, d)) * [[[1.0]], [[3.0]]]
    assert frechet_distance(x, y, correction=0) <= transport_cost(x, y) * (1 + 1e-9) + 1e-12


def test_equality_in_gelbrich_for_an_affine_map():
    x = rng.normal(size=(40, 3))
    B = rng.normal(size=(3, 3))
    y = x @ (B @ B.T + np.eye(3)) + 1.0
    assert frechet_distance(x, y, correction=0) == pytest.approx(((x - y) ** 2).sum(-1).mean(), rel=1e-11)


# Derivatives and precision


@pytest.mark.parametrize("correction", [0, 1])
def test_derivatives_of_the_moments(correction):
    x = torch.tensor(rng.normal(size=(2, 4, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fit(x, correction=correction), x)
    assert torch.autograd.gradgradcheck(lambda x: fit(x, correction=correction), x)


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
    for low, high in zip(fit(x + 100), fit(x.astype(float) + 100), strict=True):
        assert low.dtype == np.float32
        # Points near 100 are rounded to 4e-6 before anything is computed.
        np.testing.assert_allclose(low, high, rtol=0, atol=2e-5)
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


def test_covariances_beyond_float64_are_refused():
    x, y = 1e160 * rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    with pytest.raises(ValueError, match="the covariance of x must be finite; got 4 entries"):
        fit(x)
    for pair, name in (((x, y), "x"), ((y, x), "y")):
        with pytest.raises(ValueError, match=f"the covariance of {name} must be finite"):
            frechet_distance(*pair)
