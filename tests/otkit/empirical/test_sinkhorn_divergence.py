import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.empirical import sinkhorn_cost, sinkhorn_divergence, transport_cost
from otkit.testing import measures
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)


# Known answers


def test_of_a_translation_is_its_squared_length():
    """As ⟨x, v⟩ is a potential, the plan of a translate is that of the measure with itself."""
    x = rng.normal(size=(30, 3))
    assert sinkhorn_divergence(x, x + np.array([3.0, 4.0, 0.0]), reg=0.5, tol=1e-10) == pytest.approx(25.0, rel=1e-9)


def test_large_reg_gives_the_squared_distance_of_the_means():
    """Half the energy distance of |x - y|² is the squared distance of the means."""
    x, y = rng.normal(size=(2, 20, 2))
    assert sinkhorn_divergence(x, y, reg=1e5) == pytest.approx(((x.mean(0) - y.mean(0)) ** 2).sum(), rel=1e-3)


def test_small_reg_gives_the_transport_cost():
    x, y = rng.normal(size=(2, 20, 2))
    assert sinkhorn_divergence(x, y, reg=1e-4) == pytest.approx(transport_cost(x, y), rel=1e-3)


# Laws


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("reg", [1.0, 0.01])
def test_exactly_zero_with_gradient_zero_at_equal_measures(p, reg):
    x, a = torch.tensor(rng.normal(size=(3, 40, 2))), torch.tensor(weights(40))
    inputs = [t.clone().requires_grad_() for t in (x, x, a, a)]
    first, second, of_first, of_second = inputs
    value = sinkhorn_divergence(first, second, p, reg=reg, a=of_first, b=of_second)
    assert (value == 0).all()
    for gradient in torch.autograd.grad(value.sum(), inputs):
        assert (gradient == 0).all()


@given(measures(2), measures(2), st.sampled_from([1.0, 2.0]), st.sampled_from([0.03, 1.0]))
def test_non_negative_and_symmetric(first, second, p, relative):
    (x, a), (y, b) = first, second
    scale = float((np.linalg.norm(x[:, None] - y, axis=-1) ** p).max()) + 1e-3
    value = sinkhorn_divergence(x, y, p, reg=relative * scale, a=a, b=b)
    assert value >= 0
    assert value == pytest.approx(sinkhorn_divergence(y, x, p, reg=relative * scale, a=b, b=a), abs=1e-6 * scale)


def test_is_the_cost_less_half_of_each_with_itself_over_a_batch():
    x, y, a, b = rng.normal(size=(3, 12, 2)), rng.normal(size=(10, 2)), weights(12), weights(10)
    options = {"reg": 0.3, "tol": 1e-10}
    of_x = sinkhorn_cost(x, x + 0.0, a=a, b=a, **options)
    of_y = sinkhorn_cost(y, y + 0.0, a=b, b=b, **options)
    expected = sinkhorn_cost(x, y, a=a, b=b, **options) - of_x / 2 - of_y / 2
    np.testing.assert_allclose(sinkhorn_divergence(x, y, a=a, b=b, **options), expected, rtol=1e-8)
    np.testing.assert_allclose(sinkhorn_divergence(x, y, a=5 * a, b=5 * b, **options), 5 * expected, rtol=1e-8)


# Derivatives


@pytest.mark.parametrize("p", [1, 2, 3])
def test_gradients_by_finite_differences_with_weights_that_are_not_uniform(p):
    arrays = (rng.normal(size=(2, 6, 2)), rng.normal(size=(5, 2)) + 1, weights(6), weights(5))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return sinkhorn_divergence(x, y, p, reg=1.0, a=a / a.sum(), b=b / b.sum(), tol=1e-12)

    assert torch.autograd.gradcheck(on_the_simplex, tensors)


def test_second_derivatives_are_refused():
    x = torch.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    (grad,) = torch.autograd.grad(sinkhorn_divergence(x, x.detach() + 1, reg=1.0), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of sinkhorn_cost"):
        grad.sum().backward()


def test_float32_keeps_its_dtype_and_its_digits_far_from_the_origin():
    x = (torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) + 100).requires_grad_()
    value = sinkhorn_divergence(x, x.detach() + 0.25, reg=0.01)
    value.backward()
    assert value.dtype == x.grad.dtype == torch.float32
    assert value.item() == pytest.approx(3 / 16, rel=1e-4)


# Status


def test_not_converged_warns():
    x, y = rng.normal(size=(2, 20, 2))
    with pytest.warns(ConvergenceWarning, match="in 3 of 3 problems; raise max_iter or tol"):
        sinkhorn_divergence(x, y, reg=0.001, tol=1e-10, max_iter=2)


@pytest.mark.parametrize("reg", [1e-2, 1e-5])
def test_not_converged_is_near_all_the_same_and_zero_at_equal_measures(reg):
    x, y = np.random.default_rng(0).normal(size=(2, 40, 2))
    with pytest.warns(ConvergenceWarning):
        value, zero = sinkhorn_divergence(np.stack([x, y]), y, reg=reg, max_iter=2)
    assert value == pytest.approx(transport_cost(x, y), rel=0.3)
    assert zero == 0
