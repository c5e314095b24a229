import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.empirical import (
    _max_sliced,
    max_sliced_cost,
    max_sliced_wasserstein,
    sliced_cost,
    wasserstein,
    wasserstein_1d,
)
from otkit.testing import measures

rng = np.random.default_rng(0)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_translation_is_found_and_its_direction(p):
    x, t = rng.normal(size=(30, 3)), np.array([0.0, 3.0, -4.0])
    value, direction = max_sliced_wasserstein(x, x + t, p, return_direction=True)
    assert value == pytest.approx(5, rel=1e-9)
    assert abs(direction @ t) == pytest.approx(5, rel=1e-9)


def test_one_stretched_coordinate_is_found_among_many():
    x = rng.normal(size=(200, 10))
    x -= x.mean(0)
    y = x.copy()
    y[:, 4] *= 3
    value, direction = max_sliced_cost(x, y, return_direction=True)
    assert value >= (2 * x[:, 4]).var() * (1 - 1e-9)
    assert abs(direction[4]) > 0.9


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("d", [2, 3])
def test_no_direction_of_a_fine_grid_is_better(d, p):
    """On these data: of sixty like them the ascent misses none for p = 2, and three for p = 1, on ridges, by 3e-4."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, d)), rng.normal(size=(30, d)) * np.linspace(0.5, 1.5, d) + 0.1
    theta = rng.normal(size=(20_000, d))
    theta /= np.linalg.norm(theta, axis=-1, keepdims=True)
    best = (wasserstein_1d(theta @ x.T, theta @ y.T, p) ** p).max()
    assert max_sliced_cost(x, y, p) >= best * (1 - 1e-6)


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d))), st.sampled_from([1.0, 2.0, 3.0]))
def test_the_value_is_that_of_its_direction_and_a_lower_bound(both, p):
    (x, a), (y, b) = both
    value, direction = max_sliced_wasserstein(x, y, p, a=a, b=b, return_direction=True)
    assert np.linalg.norm(direction) == pytest.approx(1, rel=1e-12)
    assert value == pytest.approx(wasserstein_1d(x @ direction, y @ direction, p, a=a, b=b), rel=1e-6, abs=1e-6)
    assert value <= wasserstein(x, y, p, a=a, b=b) * (1 + 1e-9) + 1e-7


def test_it_is_above_the_mean_and_batched():
    x, y = rng.normal(size=(3, 1, 20, 4)), rng.normal(size=(2, 15, 4))
    values, directions = max_sliced_cost(x, y, return_direction=True)
    assert values.shape == (3, 2)
    assert directions.shape == (3, 2, 4)
    assert (values > sliced_cost(x, y, generator=0)).all()
    for i, j in np.ndindex(3, 2):
        assert values[i, j] == pytest.approx(max_sliced_cost(x[i, 0], y[j]), rel=1e-5)


@pytest.mark.parametrize("distance", [max_sliced_cost, max_sliced_wasserstein])
def test_gradient_by_the_envelope(distance):
    """At a maximum that is smooth, that of a translation, the direction's own derivative drops out."""
    x = rng.normal(size=(6, 2))
    y = x * np.array([1.2, 0.9]) + np.array([2.0, 1.0])
    w = np.random.default_rng(1).random(6) + 0.5
    arrays = (x, y, w, w + 0.05 * rng.random(6))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return distance(x, y, a=a / a.sum(), b=b / b.sum(), tol=1e-9)

    assert torch.autograd.gradcheck(on_the_simplex, tensors, atol=1e-5)


def test_gradient_in_weights_that_are_uniform():
    """They are no special case to who asks for it: a grain of mass from one point to another, by differences."""
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    a, shift = torch.full((6,), 1 / 6, dtype=torch.float64), torch.tensor([1.0, -1.0, 0, 0, 0, 0], dtype=torch.float64)

    def cost(a):
        return max_sliced_cost(torch.from_numpy(x), torch.from_numpy(y), a=a, tol=1e-9)

    h = 1e-6 * shift
    one_sided = [float(cost(a + h) - cost(a)) / 1e-6, float(cost(a) - cost(a - h)) / 1e-6]
    (gradient,) = torch.autograd.grad(cost(a.requires_grad_()), a)
    assert min(one_sided) - 1e-4 <= float(gradient @ shift) <= max(one_sided) + 1e-4
    assert abs(one_sided[0]) > 0.01


def test_where_gradients_are_off_altogether():
    x = torch.from_numpy(rng.normal(size=(20, 3)))
    with torch.inference_mode():
        value = max_sliced_wasserstein(x, 2 * x)
    assert value == max_sliced_wasserstein(x, 2 * x)


def test_it_stops_where_it_no_longer_turns(monkeypatch):
    steps = []
    of = _max_sliced._cost_and_gradient
    monkeypatch.setattr(_max_sliced, "_cost_and_gradient", lambda *args: steps.append(1) or of(*args))
    x = rng.normal(size=(30, 3))
    max_sliced_cost(x, x + np.array([0.0, 3.0, -4.0]))
    assert len(steps) < 100


def test_second_derivatives_are_refused():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(max_sliced_cost(x, x.detach() + 1), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of max-sliced transport"):
        grad.sum().backward()


def test_identical_measures():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    value = max_sliced_wasserstein(x, x.detach())
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_starts_are_seeded_and_stopping_early_warns():
    x, y = rng.normal(size=(2, 20, 5))
    assert max_sliced_cost(x, y) == max_sliced_cost(x, y)
    for starts in (1, 2, 4, 20):
        assert max_sliced_cost(x, y, n_starts=starts) <= max_sliced_cost(x, y, n_starts=64) * (1 + 1e-4)
    with pytest.warns(ConvergenceWarning, match="the value is a lower bound, if not the largest"):
        stopped = max_sliced_cost(x, y, max_iter=1)
    assert stopped <= max_sliced_cost(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_starts": 0}, "n_starts is 0"), ({"tol": 0}, "tol is 0"), ({"max_iter": 0}, "max_iter"), ({"p": 0}, "p is 0")],
)
def test_bad_input_names_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        max_sliced_wasserstein(np.zeros((3, 2)), np.ones((3, 2)), **options)
