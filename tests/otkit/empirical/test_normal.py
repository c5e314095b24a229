import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from otkit.empirical import (
    sliced_cost_to_normal,
    transport_cost_1d,
    transport_cost_1d_to_normal,
    wasserstein_1d_to_normal,
)

rng = np.random.default_rng(0)


def by_quadrature(x, a, loc, scale):
    order = np.argsort(x)
    x, a = x[order], a[order]
    edges = norm.ppf(np.minimum(np.concatenate([[0], np.cumsum(a)[:-1], [1]]), 1)).clip(-40, 40)
    return sum(
        quad(lambda z, u=u: (u - loc - scale * z) ** 2 * norm.pdf(z), low, high, epsabs=1e-14, epsrel=1e-13)[0]
        for u, low, high in zip(x, edges[:-1], edges[1:], strict=True)
    )


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (0.3, 2.0), (-100.0, 0.01)])
def test_against_quadrature(loc, scale):
    x, a = rng.normal(size=8), rng.random(8)
    a[[2, 5]] = 0
    a /= a.sum()
    uniform = np.full(8, 1 / 8)
    for weights in (a, uniform):
        value = transport_cost_1d_to_normal(x, loc=loc, scale=scale, a=weights)
        assert value == pytest.approx(by_quadrature(x, weights, loc, scale), rel=1e-12)
    assert transport_cost_1d_to_normal(x) == pytest.approx(by_quadrature(x, uniform, 0, 1), rel=1e-12)


def test_it_is_the_limit_of_fine_samples_of_the_normal():
    x, n = rng.normal(size=20), 400_000
    fine = norm.ppf((np.arange(n) + 0.5) / n)
    assert transport_cost_1d_to_normal(x) == pytest.approx(transport_cost_1d(x, fine), rel=1e-4)


def test_a_dirac_and_a_scale_of_zero():
    assert transport_cost_1d_to_normal(np.array([3.0]), loc=1.0, scale=0.5) == 4.25
    x = rng.normal(size=5)
    assert transport_cost_1d_to_normal(x, loc=1.0, scale=0.0) == pytest.approx(((x - 1) ** 2).mean(), rel=1e-14)
    assert wasserstein_1d_to_normal(np.ones(3), loc=1.0, scale=0.0) == 0


@pytest.mark.parametrize("scale", [1e-150, 1e-3, 1e6, 1e150])
def test_moves_with_translation_and_scale(scale):
    x = rng.normal(size=30)
    expected = wasserstein_1d_to_normal(x)
    moved = wasserstein_1d_to_normal(scale * (x + 8), loc=8 * scale, scale=scale)
    assert moved == pytest.approx(scale * expected, rel=1e-12)


def test_many_points_in_the_tails():
    """The middles of a million cells: most of the cost is in the two outermost, and both tails are alike."""
    n = 1_000_000
    x = norm.ppf((np.arange(n) + 0.5) / n)
    value = transport_cost_1d_to_normal(x)
    assert value == pytest.approx(transport_cost_1d_to_normal(-x), rel=1e-6)
    outer = 2 * quad(lambda t: (x[0] - norm.ppf(t)) ** 2, 0, 1 / n)[0]
    assert outer < value < 4 * outer


def test_weights_as_uniform_ones_are_the_same():
    x = rng.normal(size=(3, 40))
    same = transport_cost_1d_to_normal(x, a=np.full(40, 1 / 40) + 1e-18 * np.arange(40))
    almost = np.full(40, 1 / 40)
    almost[0] += 1e-15
    np.testing.assert_allclose(same, transport_cost_1d_to_normal(x, a=almost), rtol=1e-12)


def test_derivatives_of_both_orders():
    x, a = torch.tensor(rng.normal(size=(2, 5))), torch.tensor(rng.random(5) + 0.1)
    loc, scale = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    tensors = [t.requires_grad_() for t in (x, loc, scale, a)]

    def weighted(x, loc, scale, a):
        return wasserstein_1d_to_normal(x, loc=loc, scale=scale, a=a / a.sum())

    def uniform(x, loc, scale):
        return transport_cost_1d_to_normal(x, loc=loc, scale=scale)

    for function, inputs in ((weighted, tensors), (uniform, tensors[:3])):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_the_gradient_at_a_zero_weight_in_the_tail_is_finite():
    a = torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    transport_cost_1d_to_normal(torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64), a=a).backward()
    assert torch.isfinite(a.grad).all()
    assert (a.grad[[0, 3]] < a.grad[[1, 2]]).all()


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros(3), {"p": 1}, "p is 1; the distance to a normal distribution is computed for p = 2 only"),
        (np.zeros(0), {}, r"x has shape \(0,\)"),
        (np.full(3, np.inf), {}, "x must be finite"),
        (np.zeros(3), {"scale": -1.0}, "scale must not be negative; got -1"),
        (np.zeros(3), {"loc": np.nan}, "loc must be finite"),
        (np.zeros((2, 3)), {"loc": np.zeros(3)}, "batch shapes do not broadcast"),
        (np.zeros(3), {"a": np.ones(3)}, "a must have the sum of a normal distribution, 1; got 3"),
    ],
)
def test_bad_input_names_the_argument(x, options, message):
    for distance in (transport_cost_1d_to_normal, wasserstein_1d_to_normal):
        with pytest.raises(ValueError, match=message):
            distance(x, **options)


def slope_in_scale(function, x, scale):
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(function(x, scale), scale)[0]


def test_the_gradient_at_a_scale_of_zero_is_the_limit():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)))
    on_the_line = slope_in_scale(lambda x, scale: transport_cost_1d_to_normal(x, scale=scale), x[:, 0], 0.0)
    for d in (1, 3):
        at_zero, near = (
            slope_in_scale(lambda x, scale: sliced_cost_to_normal(x, scale=scale, generator=0), x[:, :d], scale)
            for scale in (0.0, 1e-12)
        )
        torch.testing.assert_close(at_zero, near, rtol=1e-10, atol=0)
        if d == 1:
            torch.testing.assert_close(at_zero, on_the_line)
