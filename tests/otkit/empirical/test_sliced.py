import numpy as np
import ot
import pytest
import torch

from otkit.empirical import (
    _mean_over_directions,
    max_sliced_wasserstein,
    sliced_cost,
    sliced_cost_to_normal,
    sliced_wasserstein,
    sliced_wasserstein_to_normal,
    wasserstein,
    wasserstein_1d,
)
from otkit.empirical._directions import random_directions
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)


def unit(L, d):
    theta = np.random.default_rng(0).normal(size=(L, d))
    return theta / np.linalg.norm(theta, axis=-1, keepdims=True)


# Known answers and oracles


@pytest.mark.parametrize("far", [1e6, 1e100, 1e300])
@pytest.mark.parametrize("distance", [sliced_wasserstein, max_sliced_wasserstein])
def test_points_of_weight_zero_take_no_digits_however_far(distance, far):
    """As what a batch is filled up with."""
    x, y, a = rng.normal(size=(6, 2)), rng.normal(size=(5, 2)), weights(6)
    expected = distance(x, y, a=a, generator=0)
    filled = np.concatenate([x, np.full((3, 2), far)]), np.concatenate([a, np.zeros(3)])
    assert distance(filled[0], y, a=filled[1], generator=0) == pytest.approx(expected, rel=1e-12)
    points, mass = torch.tensor(filled[0], requires_grad=True), torch.tensor(filled[1])
    distance(points, torch.tensor(y), a=mass, generator=0).backward()
    assert (points.grad[6:] == 0).all()
    assert points.grad[:6].abs().max() > 0.01
    value = distance(points.detach(), torch.tensor(y), a=mass.requires_grad_(), generator=0)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.grad(value, mass)[0][:6].isfinite().all()


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 25)])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_against_pot_on_the_same_directions(n, m, p):
    x, y, a, b, theta = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), weights(n), weights(m), unit(20, 3)
    ours = sliced_wasserstein(x, y, p, projections=theta)
    assert ours == pytest.approx(ot.sliced_wasserstein_distance(x, y, p=p, projections=theta.T), rel=1e-12)
    weighted = sliced_cost(x, y, p, a=a, b=b, projections=theta)
    theirs = ot.sliced_wasserstein_distance(x, y, a, b, p=p, projections=theta.T)
    assert weighted == pytest.approx(theirs**p, rel=1e-11)


@pytest.mark.parametrize("d", [2, 3, 5, 64, 100])
def test_a_translation_is_exact_in_whole_bases(d):
    """SW_2² = |t|²/d: a quadratic form, of which the mean over an orthonormal basis is exact."""
    x, t = rng.normal(size=(10, d)), rng.normal(size=d)
    value, error = sliced_cost(x, x + t, generator=0, return_error=True)
    if d <= 64:
        assert value == pytest.approx(t @ t / d, rel=1e-12)
        assert error < 1e-12 * value
    else:
        assert abs(value - t @ t / d) < 5 * error


def test_one_dimension_is_exact():
    x, y = rng.normal(size=(2, 30, 1))
    value, error = sliced_wasserstein(x, y, 3, return_error=True)
    assert value == pytest.approx(wasserstein_1d(x[:, 0], y[:, 0], 3), rel=1e-13)
    assert error == 0


@pytest.mark.parametrize("d", [2, 3, 10])
@pytest.mark.parametrize("p", [1, 2])
def test_unbiased_with_the_error_it_says(d, p):
    """200 seeds: the mean within four of its standard errors, the spread that which was said."""
    x, y = rng.normal(size=(12, d)), rng.normal(size=(9, d)) * np.linspace(0.2, 2, d)
    reference = sliced_cost(x, y, p, n_projections=200_000, generator=12345)
    estimates = [sliced_cost(x, y, p, n_projections=40, generator=s, return_error=True) for s in range(200)]
    values, errors = (np.array(part) for part in zip(*estimates, strict=True))
    spread = values.std(ddof=1)
    assert abs(values.mean() - reference) < 4 * spread / 200**0.5
    assert (errors**2).mean() == pytest.approx(spread**2, rel=0.4)
    independent = sliced_cost(x, y, p, projections=unit(4000, d), return_error=True)
    assert spread < independent.standard_error * 10  # what 40 independent directions have


def test_error_of_the_root_is_by_the_delta_method():
    x, y = rng.normal(size=(2, 30, 3))
    cost = sliced_cost(x, y, 3, generator=1, return_error=True)
    distance = sliced_wasserstein(x, y, 3, generator=1, return_error=True)
    assert distance.value == pytest.approx(cost.value ** (1 / 3), rel=1e-14)
    slope = cost.value ** (1 / 3 - 1) / 3
    assert distance.standard_error == pytest.approx(slope * cost.standard_error, rel=1e-12)
    assert sliced_wasserstein(x, x, return_error=True) == (0, 0)


def test_it_is_below_the_distance_and_symmetric():
    x, y, a, b = rng.normal(size=(20, 3)), rng.normal(size=(15, 3)), weights(20), weights(15)
    for p in (1, 2, 3):
        value = sliced_wasserstein(x, y, p, a=a, b=b, generator=0)
        assert 0 < value < wasserstein(x, y, p, a=a, b=b)
        assert value == pytest.approx(sliced_wasserstein(y, x, p, a=b, b=a, generator=0), rel=1e-12)


# Randomness, batches, pieces


def test_generators():
    x, y = rng.normal(size=(2, 9, 3))
    seeded = sliced_cost(x, y, generator=5)
    assert seeded == sliced_cost(x, y, generator=torch.Generator().manual_seed(5))
    assert seeded != sliced_cost(x, y, generator=6)
    numpy = [sliced_cost(x, y, generator=np.random.default_rng(s)) for s in (5, 5, 6)]
    assert numpy[0] == numpy[1] != numpy[2]
    torch.manual_seed(1)
    first = sliced_cost(x, y)
    assert sliced_cost(x, y) != first
    torch.manual_seed(1)
    assert sliced_cost(x, y) == first


@pytest.mark.parametrize("d", [2, 3, 50])
def test_four_blocks_or_more(d):
    for count in range(1, 40):
        directions, block = random_directions(d, count, 0)
        assert len(directions) // block >= min(count, 4)
        assert count <= len(directions) < count + block


def test_a_batch_shares_its_directions():
    x, y, a = rng.normal(size=(4, 1, 9, 3)), rng.normal(size=(2, 7, 3)), rng.random((2, 9))
    a /= a.sum(-1, keepdims=True)
    values, errors = sliced_cost(x, y, a=a, generator=0, return_error=True)
    assert values.shape == errors.shape == (4, 2)
    for i, j in np.ndindex(4, 2):
        one = sliced_cost(x[i, 0], y[j], a=a[j], generator=0, return_error=True)
        np.testing.assert_allclose((values[i, j], errors[i, j]), one, rtol=1e-11)


@pytest.mark.parametrize("weighted", [False, True])
def test_pieces_change_neither_value_nor_gradient(monkeypatch, weighted):
    x, y = torch.tensor(rng.normal(size=(2, 9, 3)), requires_grad=True), torch.tensor(rng.normal(size=(7, 3)))
    a = torch.tensor(weights(9), requires_grad=True) if weighted else None
    inputs = (x, a) if weighted else (x,)

    def compute():
        return [
            function(*measures, a=a, generator=0, n_projections=30)
            for function, measures in ((sliced_wasserstein, (x, y)), (sliced_wasserstein_to_normal, (x,)))
        ]

    whole = compute()
    grads = [torch.autograd.grad(value.sum(), inputs) for value in whole]
    monkeypatch.setattr(_mean_over_directions, "_LARGEST", 100)
    pieces = compute()
    for value, expected, grad in zip(pieces, whole, grads, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
        first = torch.autograd.grad(value.sum(), inputs, create_graph=True)
        for ours, expected_grad in zip(first, grad, strict=True):
            torch.testing.assert_close(ours, expected_grad, rtol=1e-11, atol=1e-14)
        with pytest.raises(RuntimeError, match="second derivatives of sliced transport"):
            first[0].sum().backward()


# Derivatives


@pytest.mark.parametrize("p", [1, 2, 3])
def test_derivatives_in_points_and_weights(p):
    arrays = (rng.normal(size=(2, 4, 3)), rng.normal(size=(5, 3)), weights(4), weights(5, 1))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return sliced_wasserstein(x, y, p, a=a / a.sum(), b=b / b.sum(), n_projections=6, generator=0)

    assert torch.autograd.gradcheck(on_the_simplex, tensors)
    assert torch.autograd.gradgradcheck(on_the_simplex, tensors)


def test_gradient_of_the_root_at_identical_points_is_zero():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    value = sliced_wasserstein(x, x.detach())
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


# Against the normal distribution


def test_normal_is_the_limit_of_its_samples():
    x = rng.normal(size=(50, 3)) * 1.5 + 0.3
    z = rng.normal(size=(40_000, 3)) * np.array([1.0, 2.0, 0.5]) + 1
    theta = unit(30, 3)
    ours = sliced_cost_to_normal(x, loc=1.0, scale=np.array([1.0, 2.0, 0.5]), projections=theta)
    assert ours == pytest.approx(sliced_cost(x, z, projections=theta), rel=0.02)


def test_a_dirac_to_a_normal():
    point = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert sliced_cost_to_normal(point, generator=0) == pytest.approx(30 / 4 + 1, rel=1e-12)
    assert sliced_wasserstein_to_normal(point, loc=point[0], scale=3.0, generator=0) == pytest.approx(3, rel=1e-12)


def test_normal_derivatives():
    x, loc = torch.tensor(rng.normal(size=(2, 4, 3))), torch.tensor(rng.normal(size=3))
    scale, a = torch.tensor(rng.random(3) + 0.5), torch.tensor(weights(4))
    tensors = [t.requires_grad_() for t in (x, loc, scale, a)]

    def function(x, loc, scale, a):
        options = {"loc": loc, "scale": scale, "a": a / a.sum(), "n_projections": 6, "generator": 0}
        return sliced_wasserstein_to_normal(x, **options)

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_float32_keeps_its_dtype_and_its_digits_far_from_the_origin():
    x, y = (rng.normal(size=(2, 30, 3)) + 4096).astype(np.float32)
    value, error = sliced_wasserstein(x, y, generator=0, return_error=True)
    assert value.dtype == error.dtype == np.float32
    exact = sliced_wasserstein(x.astype(float) - 4096, y.astype(float) - 4096, generator=0)
    assert value == pytest.approx(exact, rel=1e-6)


# Bad input

x3, y3 = np.zeros((3, 2)), np.ones((4, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"p": 0.5}, ValueError, "p is 0.5"),
        ({"n_projections": 0}, ValueError, "n_projections is 0"),
        (
            {"projections": np.ones((3, 2))},
            ValueError,
            "projections must have rows of length 1; got one of length 1.41",
        ),
        ({"projections": np.full((1, 2), np.nan)}, ValueError, "projections must be finite"),
        ({"projections": np.ones((3, 3))}, ValueError, r"projections has shape \(3, 3\); expected directions \(L, 2\)"),
        ({"projections": np.eye(2)[:1], "return_error": True}, ValueError, "1 directions have no standard error"),
        ({"generator": "0"}, TypeError, "generator is '0' of type str"),
        ({"generator": 2**64}, ValueError, "generator is 18446744073709551616; expected a seed of 64 bits"),
        ({"a": np.ones(3)}, ValueError, "the same sum|the sum of a normal"),
    ],
)
def test_bad_input_names_the_argument(options, error, message):
    for distance in (sliced_cost, sliced_wasserstein):
        with pytest.raises(error, match=message):
            distance(x3, y3, **options)
    for distance in (sliced_cost_to_normal, sliced_wasserstein_to_normal):
        with pytest.raises(error, match=message):
            distance(x3, **options)


@pytest.mark.parametrize("d", [2, 16, 1000])
def test_directions_in_bfloat16_are_unit_vectors(d):
    x, y, directions = torch.randn(3, 5, d, generator=torch.Generator().manual_seed(0))
    directions = (directions / directions.norm(dim=-1, keepdim=True)).bfloat16()
    x, y = x.bfloat16(), y.bfloat16()
    assert torch.isfinite(sliced_cost(x, y, projections=directions))
    with pytest.raises(ValueError, match=r"rows of length 1; got one of length 0 at index 0"):
        sliced_cost(x, y, projections=0 * directions)


def test_the_normal_is_standard_by_default():
    x = rng.normal(size=(20, 2))
    expected = sliced_cost_to_normal(x, loc=np.zeros(2), scale=np.ones(2), generator=0)
    assert sliced_cost_to_normal(x, generator=0) == expected
    assert sliced_wasserstein_to_normal(x, generator=0) == pytest.approx(expected**0.5, rel=1e-14)


def test_bad_input_beside_a_normal():
    with pytest.raises(ValueError, match=r"loc has shape \(3,\); expected \(..., 2\)"):
        sliced_cost_to_normal(x3, loc=np.zeros(3))
    with pytest.raises(ValueError, match="p = 2 only"):
        sliced_cost_to_normal(x3, 1)
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        sliced_cost_to_normal(np.zeros(3))


def test_an_empty_batch_has_an_empty_error_and_no_warning():
    value, error = sliced_wasserstein(np.zeros((0, 4, 2)), np.zeros((0, 3, 2)), return_error=True)
    assert value.shape == error.shape == (0,)
