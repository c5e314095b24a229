import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from otkit.empirical import transport_cost, transport_cost_1d, wasserstein, wasserstein_1d
from otkit.empirical._simplex import couple
from otkit.testing import measures
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)
exponents = st.sampled_from([1.0, 1.5, 2.0, 3.0])


# Known answers


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 50])
@pytest.mark.parametrize("scale", [2.0**-500, 1.0, 2.0**500])
def test_translation_is_exact(p, scale):
    """Steps of 1/8, which float64 holds: nothing is rounded but the sum of weights."""
    x = scale * rng.permutation(400) / 8
    assert wasserstein_1d(x, x + scale * 0.5, p) == pytest.approx(scale * 0.5, rel=1e-14)
    a = weights(400)
    assert wasserstein_1d(x, (x + scale * 0.5)[::-1].copy(), p, a=a, b=a[::-1].copy()) == pytest.approx(
        scale * 0.5, rel=1e-13
    )


def test_many_weights_do_not_lose_mass_on_the_way():
    x, a = rng.normal(size=200_000), weights(200_000)
    order = rng.permutation(len(x))
    assert transport_cost_1d(x, x[order], 1, a=a, b=a[order]) == 0
    assert transport_cost_1d(x, x[order] + 1000, 1, a=a, b=a[order]) == pytest.approx(1000, rel=1e-13)


def test_sizes_of_a_common_multiple():
    x = rng.normal(size=4)
    assert transport_cost_1d(np.repeat(x, 3), np.repeat(x, 5)) == 0
    assert transport_cost_1d(np.array([0.0]), x, 3) == pytest.approx((np.abs(x) ** 3).mean(), rel=1e-15)


# Oracles


@pytest.mark.parametrize(("n", "m"), [(7, 7), (7, 5), (6, 9), (1, 8)])
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_against_linear_programming_and_pot(n, m, p):
    x, y, a, b = rng.normal(size=n), rng.normal(size=m), weights(n), weights(m, 1)
    M = np.abs(x[:, None] - y) ** p
    A = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    expected = linprog(M.ravel(), A_eq=A, b_eq=np.concatenate([a, b])).fun
    assert transport_cost_1d(x, y, p, a=a, b=b) == pytest.approx(expected, rel=1e-9)
    assert transport_cost_1d(x, y, p, a=a, b=b) == pytest.approx(ot.wasserstein_1d(x, y, a, b, p), rel=1e-12)
    assert transport_cost_1d(x, y, p) == pytest.approx(ot.wasserstein_1d(x, y, p=p), rel=1e-12)


@given(measures(1), measures(1))
def test_against_scipy(one, other):
    (x, a), (y, b) = one, other
    expected = wasserstein_distance(x[:, 0], y[:, 0], a, b)
    assert wasserstein_1d(x[:, 0], y[:, 0], 1, a=a, b=b) == pytest.approx(expected, rel=1e-12, abs=1e-13)


@given(measures(1), measures(1), exponents)
def test_against_the_network_simplex(one, other, p):
    (x, a), (y, b) = one, other
    M = np.abs(x - y[:, 0]) ** p
    coupling = couple(a, b, M / (M.max() or 1.0))
    expected = coupling.mass @ M[coupling.rows, coupling.columns]
    assert transport_cost_1d(x[:, 0], y[:, 0], p, a=a, b=b) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_transport_cost_takes_it_in_one_dimension():
    x, y, a, b = rng.normal(size=(2, 9)), rng.normal(size=7), weights(9), weights(7)
    for p in (1, 3):
        expected = transport_cost_1d(x, y, p, a=a, b=b)
        assert (transport_cost(x[..., None], y[:, None], p, a=a, b=b) == expected).all()
        assert (wasserstein(x[..., None], y[:, None], p) == wasserstein_1d(x, y, p)).all()
    huge = rng.normal(size=(2, 100_000, 1))
    assert transport_cost(*huge) > 0  # a cost matrix would have 80 GB


def test_batches_broadcast():
    x, y, a = rng.normal(size=(4, 1, 9)), rng.normal(size=(3, 7)), rng.random((3, 9))
    a /= a.sum(-1, keepdims=True)
    ours = transport_cost_1d(x, y, a=a)
    assert ours.shape == (4, 3)
    for i, j in np.ndindex(4, 3):
        assert ours[i, j] == pytest.approx(transport_cost_1d(x[i, 0], y[j], a=a[j]), rel=1e-13)
    assert transport_cost_1d(np.zeros((0, 3)), np.zeros(4)).shape == (0,)


# Derivatives


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("distance", [transport_cost_1d, wasserstein_1d])
def test_derivatives_on_the_simplex(distance, p):
    arrays = (rng.normal(size=(2, 6)), rng.normal(size=5), weights(6), weights(5, 1))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return distance(x, y, p, a=a / a.sum(), b=b / b.sum())

    assert torch.autograd.gradcheck(on_the_simplex, tensors)
    assert torch.autograd.gradgradcheck(on_the_simplex, tensors)
    assert torch.autograd.gradcheck(lambda x, y: distance(x, y, p), tensors[:2])


@given(measures(1), measures(1), exponents)
def test_weight_gradients_are_dual_potentials(one, other, p):
    """Feasible at all points, and each worth half of the value; also at ties and points of weight zero."""
    (x, a), (y, b) = one, other
    a_, b_ = (torch.tensor(w, requires_grad=True) for w in (a, b))
    value = transport_cost_1d(torch.tensor(x[:, 0]), torch.tensor(y[:, 0]), p, a=a_, b=b_)
    value.backward()
    f, g = a_.grad.numpy(), b_.grad.numpy()
    M = np.abs(x - y[:, 0]) ** p
    scale = 1 + M.max()
    assert (f[:, None] + g - M).max() <= 1e-11 * scale
    for potential, w in ((f, a), (g, b)):
        assert potential @ w == pytest.approx(value.item() / 2, rel=1e-10, abs=1e-12 * scale)


def test_weight_gradients_are_those_of_the_network_simplex_up_to_a_constant():
    x, y, a, b = rng.normal(size=6), rng.normal(size=5), weights(6), weights(5, 1)
    a_ = torch.tensor(a, requires_grad=True)
    transport_cost_1d(torch.tensor(x), torch.tensor(y), a=a_, b=torch.tensor(b)).backward()
    off = a_.grad.numpy() - couple(a, b, (x[:, None] - y) ** 2).f
    assert np.ptp(off) < 1e-12


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_at_identical_measures_derivatives_are_finite_and_the_root_has_none(p):
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    value = wasserstein_1d(x, x.detach().flip(0), p)
    (grad,) = torch.autograd.grad(value, x)
    assert value == 0
    assert (grad == 0).all()
    (first,) = torch.autograd.grad(transport_cost_1d(x, x.detach(), p), x, create_graph=True)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
        assert torch.isfinite(second).all()


def test_transforms_sort_with_torch():
    x, y = torch.tensor(rng.normal(size=(2, 6)))
    by_transform = torch.func.grad(lambda x: transport_cost_1d(x, y))(x)
    leaf = x.clone().requires_grad_()
    transport_cost_1d(leaf, y).backward()
    torch.testing.assert_close(by_transform, leaf.grad)


def test_float32_keeps_its_dtype_and_its_digits():
    x = (rng.normal(size=50) + 5000).astype(np.float32)
    value = wasserstein_1d(x, x + np.float32(1))
    assert value.dtype == np.float32
    assert value == pytest.approx(1, rel=1e-6)


def test_zero_weights_and_any_mass():
    x, y, a = rng.normal(size=5), rng.normal(size=4), np.array([0.0, 0.5, 0.0, 0.5, 0.0])
    assert transport_cost_1d(x, y, a=a) == pytest.approx(transport_cost_1d(x[a > 0], y), rel=1e-14)
    assert transport_cost_1d(x, y, a=8 * a, b=np.full(4, 2.0)) == pytest.approx(8 * transport_cost_1d(x, y, a=a))
    assert transport_cost_1d(x, y[:3], a=np.full(5, 3.0), b=np.full(3, 5.0)) == pytest.approx(
        15 * transport_cost_1d(x, y[:3]), rel=1e-14
    )


def test_points_farther_apart_than_float64():
    for distance in (transport_cost_1d, wasserstein_1d):
        with pytest.raises(ValueError, match="farther apart than the largest float64"):
            distance(np.full(1, 1e308), np.full(1, -1e308))
