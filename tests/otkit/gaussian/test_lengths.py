"""Distances between Gaussians whose squares float64 does not hold."""

import numpy as np
import pytest
import torch

from otkit.gaussian import mixture_plan, mixture_w2, pairwise_w2, w2, w2_squared, w2_squared_from_factors

SIZES = [1e200, 1e160, 1e-155, 1e-160, 1e-170, 1e-300]
DIRECTION = torch.tensor([0.6, 0.8], dtype=torch.float64)
ONE = torch.ones(1, dtype=torch.float64)


def between(name):
    """W2 between N(0, cov) and N(m, cov), as a function of m and cov."""
    zero = torch.zeros(2, dtype=torch.float64)
    return {
        "w2": lambda m, cov: w2(zero, cov, m, cov),
        "trace": lambda m, cov: w2(zero, cov, m, cov, method="trace"),
        "pairwise_w2": lambda m, cov: pairwise_w2(torch.stack([zero, m]), cov.expand(2, 2, 2))[0, 1],
        "pairwise_w2 of two lists": lambda m, cov: pairwise_w2(zero[None], cov[None], m[None], cov[None])[0, 0],
        "mixture_w2": lambda m, cov: mixture_w2(ONE, zero[None], cov[None], ONE, m[None], cov[None]),
    }[name]


NAMES = ["w2", "trace", "pairwise_w2", "pairwise_w2 of two lists", "mixture_w2"]


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_the_distance_of_translates_is_the_length_at_any_scale(name, size, spread):
    m, cov = (size * DIRECTION).requires_grad_(), spread * torch.eye(2, dtype=torch.float64)
    if name == "trace" and size < 1 and spread:
        pytest.skip("the textbooks' formula ends at the root of rounding")
    value = between(name)(m, cov)
    torch.testing.assert_close(value.item(), size, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, m)[0], DIRECTION, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1e-300, 1e-310, 5e-324])
@pytest.mark.parametrize("name", ["w2", "pairwise_w2 of two lists", "mixture_w2"])
def test_means_as_near_as_numbers_go_have_gradients(name, size):
    m, cov = torch.tensor([size, 0.0], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    in_m, in_cov = torch.autograd.grad(between(name)(m.requires_grad_(), cov.requires_grad_()), (m, cov))
    torch.testing.assert_close(in_m, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)
    assert not in_cov.any()


@pytest.mark.parametrize("name", NAMES)
def test_at_equal_gaussians_nothing_changes(name):
    m, cov = torch.zeros(2, dtype=torch.float64, requires_grad=True), torch.zeros(2, 2, dtype=torch.float64)
    value = between(name)(m, cov)
    assert value == 0
    assert not torch.autograd.grad(value, m)[0].any()


@pytest.mark.parametrize("name", ["w2", "pairwise_w2 of two lists", "mixture_w2"])
def test_a_batch_of_all_scales_is_its_elements(name):
    sizes = torch.tensor([*SIZES, 0.0, 1.0], dtype=torch.float64)
    cov = torch.eye(2, dtype=torch.float64)
    values = torch.func.vmap(between(name), in_dims=(0, None))(sizes[:, None] * DIRECTION, cov)
    torch.testing.assert_close(values, sizes, rtol=1e-12, atol=0)


def test_a_batch_of_mixtures_of_all_scales():
    sizes, zero, cov, one = np.array([*SIZES, 0.0, 1.0]), np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones(1)
    values = mixture_w2(one, zero, cov, one, sizes[:, None, None] * DIRECTION.numpy(), cov)
    np.testing.assert_allclose(values, sizes, rtol=1e-12, atol=0)


def test_a_matrix_of_all_scales():
    sizes = np.array([0.0, 1e-170, 1.0, 1e200])
    locs, covs = sizes[:, None] * DIRECTION.numpy(), np.stack([np.eye(2)] * 4)
    expected = np.maximum.outer(sizes, sizes) * (1 - np.eye(4))
    np.testing.assert_allclose(pairwise_w2(locs, covs), expected, rtol=1e-12, atol=0)


def test_dispersions_count_beside_lengths_of_their_size():
    loc, cov = np.array([0.0]), np.array([[1e-280]])
    far = 3e-140
    assert w2(loc, cov, loc + far, 25 * cov) == pytest.approx(5e-140, rel=1e-12)
    assert pairwise_w2(loc[None], cov[None], loc[None] + far, 25 * cov[None]) == pytest.approx(5e-140, rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_coordinate_that_does_not_differ_changes_nothing(name, size):
    m, cov = torch.tensor([size, 0.0], dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    torch.testing.assert_close(between(name)(m, cov).item(), size, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("first", "second"), [(-1e154, 1e154), (1e-148, 1e-148 * (1 + 2**-51))])
def test_coordinates_of_which_only_the_difference_has_no_square(first, second):
    locs, cov, one = np.array([[first], [second]]), np.zeros((2, 1, 1)), np.ones(1)
    distance = pytest.approx(second - first, rel=1e-12, abs=0)
    assert pairwise_w2(locs, cov)[0, 1] == distance
    assert mixture_w2(one, locs[:1], cov[:1], one, locs[1:], cov[1:]) == distance


def test_a_length_far_below_the_dispersion_does_not_count():
    zero, near, cov, one = np.zeros((1, 1)), np.full((1, 1), 1e-170), np.ones((1, 1, 1)), np.ones(1)
    assert w2(zero, cov, near, 4 * cov) == 1
    assert pairwise_w2(zero, cov, near, 4 * cov) == 1
    assert mixture_w2(one, zero, cov, one, near, 4 * cov) == 1


def test_a_dispersion_that_rounding_made_negative_does_not_hide_a_length():
    X = np.random.default_rng(0).normal(size=(40, 3, 6))
    covs, loc = X @ X.mT, np.zeros((40, 3))
    assert (w2_squared(loc, covs, loc, covs, method="trace") < 0).any()
    np.testing.assert_allclose(w2(loc, covs, loc + 1e200, covs, method="trace"), 3**0.5 * 1e200, rtol=1e-12)


def test_of_an_empty_batch():
    assert w2(np.zeros((0, 2)), np.eye(2), np.zeros(2), np.eye(2)).shape == (0,)


def test_second_derivatives():
    def along(t, unit):
        m = torch.stack([unit * torch.ones_like(t), unit * t])
        return between("pairwise_w2 of two lists")(m, torch.eye(2, dtype=torch.float64)) / unit

    for unit in (1.0, 1e200, 1e-170):
        t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        second = torch.func.grad(torch.func.grad(lambda t, unit=unit: along(t, unit)))(t)
        torch.testing.assert_close(second.item(), 1.25**-1.5, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["w2", "pairwise_w2 of two lists", "mixture_w2"])
@pytest.mark.parametrize("apart", [0.0, 1e-9, 0.5, 1e200])
def test_second_derivatives_in_a_mean_by_any_mode(name, apart):
    """Those of (|m|² + D)^½, at coinciding means as well."""
    m, cov = apart * DIRECTION, torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64))

    def distance(m):
        zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        lists = (zero[None], one[None]), (m[None], cov[None])
        if name == "w2":
            return w2(zero, one, m, cov)
        return (
            pairwise_w2(*lists[0], *lists[1])[0, 0]
            if "pairwise" in name
            else mixture_w2(ONE, *lists[0], ONE, *lists[1])
        )

    length = float(np.hypot(apart, 5**0.5))
    expected = (torch.eye(2) - (apart / length) ** 2 * torch.outer(DIRECTION, DIRECTION)) / length
    for found in (
        torch.func.jacrev(torch.func.jacrev(distance))(m),
        torch.autograd.functional.hessian(distance, m),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14 / length)


@pytest.mark.parametrize("size", [1e200, 1e-170])
def test_plans_between_components_at_any_scale(size):
    locs, covs, weights = size * np.array([[0.0], [4.0]]), np.zeros((2, 1, 1)), np.array([0.75, 0.25])
    plan = mixture_plan(weights, locs, covs, np.array([0.5, 0.5]), locs, covs)
    np.testing.assert_array_equal(plan, [[0.5, 0.25], [0.0, 0.25]])
    assert mixture_w2(weights, locs, covs, np.array([0.5, 0.5]), locs, covs) == pytest.approx(2 * size)


@pytest.mark.parametrize("columns", [(1, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("transform", ["backward", "func"])
def test_factors_whose_product_is_beyond_float64(columns, transform):
    """The value then is infinite, and its gradient, of degree one, is not."""
    zero = torch.zeros(3, dtype=torch.float64)
    first, second = (torch.randn(3, r, dtype=torch.float64) for r in columns)

    def gradient(size):
        F, G = (size * first).requires_grad_(), size * second
        if transform == "func":
            return torch.func.grad(lambda F: w2_squared_from_factors(zero, F, zero, G))(F)
        value = w2_squared_from_factors(zero, F, zero, G)
        assert bool(value.isinf()) == (size > 1)
        return torch.autograd.grad(value, F)[0]

    torch.testing.assert_close(gradient(1e200) / 1e200, gradient(1.0), rtol=1e-9, atol=0)


def test_near_factors_whose_squares_are_beyond_float64():
    zero, F = torch.zeros(2, dtype=torch.float64), 1e160 * torch.eye(2, dtype=torch.float64)
    near = w2_squared_from_factors(zero, F, zero, F * (1 + 2**-30))
    assert near.item() == pytest.approx(2 * (1e160 * 2**-30) ** 2)
    assert w2_squared_from_factors(zero, 1e15 * F, zero, 1e15 * F).item() == 0
