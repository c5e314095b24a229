"""Large exponents and large points: the right number, infinity where that is the number, or an error that says why."""

import json
import warnings

import numpy as np
import pytest
import torch

import otkit
from otkit import ConvergenceWarning, cli, empirical
from otkit.gaussian import mixture_w2_squared

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
STEP = np.array([1.0, 0.0])
HUGE = 1e160
DIRACS = torch.zeros(3, 2, 2, dtype=torch.float64)


@pytest.mark.parametrize("p", [3.0, 5.0, 2000.0, 1e5])
def test_on_the_line_any_exponent_is_served(p):
    y = torch.tensor([1.5, 5.0], dtype=torch.float64, requires_grad=True)
    distance = empirical.wasserstein_1d(torch.tensor([0.0, 5.0], dtype=torch.float64), y, p)
    assert distance.item() == pytest.approx(1.5 * 0.5 ** (1 / p), rel=1e-14)
    [gradient] = torch.autograd.grad(distance, y)
    np.testing.assert_allclose(gradient, [0.5 ** (1 / p), 0.0], rtol=1e-11)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("p", [1, 2, 50])
def test_a_point_of_weight_zero_does_not_hide_the_others(p, held):
    x, y = (torch.tensor(each, dtype=torch.float64) for each in ([0.0, 1.0, 1e200], [1e-3, 1.003]))
    a = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=held)
    distance = empirical.wasserstein_1d(x, y, p, a=a)
    assert distance.item() == pytest.approx((0.5 * 1e-3**p + 0.5 * 3e-3**p) ** (1 / p), rel=1e-12)
    assert not held or torch.autograd.grad(distance, a)[0].isfinite().all()


@pytest.mark.parametrize("far", [1e10, 1e160, 1e200])
def test_nor_does_it_in_a_distance_to_a_normal_distribution(far):
    x, a = torch.tensor([1.0, 2.0, far], dtype=torch.float64), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    cost = empirical.transport_cost_1d_to_normal(x, a=a.requires_grad_())
    alone = a.detach()[:2].clone().requires_grad_()
    expected = empirical.transport_cost_1d_to_normal(x[:2], a=alone)
    assert cost.item() == pytest.approx(expected.item(), rel=1e-12)
    slopes = [torch.autograd.grad(*each)[0].diff()[0].item() for each in ((cost, a), (expected, alone))]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


@pytest.mark.parametrize("place", [0.0, 1.0, 1e10])
@pytest.mark.parametrize("apart", [0.0, 2e-16])
@pytest.mark.parametrize(
    "cost",
    [
        lambda x, y, a: empirical.transport_cost(x, y, a=a),
        lambda x, y, a: empirical.solve(x, y, a=a).value,
        lambda x, y, a: empirical.transport_cost(x[:, :1], y[:, :1], a=a) * 2,
        lambda x, y, a: empirical.sliced_cost(x, y, a=a, projections=torch.eye(2, dtype=torch.float64)) * 2,
        lambda x, y, a: empirical.sinkhorn_cost(x, y, a=a, reg=1e-2),
        lambda x, y, a: mixture_w2_squared(a, x, DIRACS, torch.ones_like(y[:, 0]), y, DIRACS[:1]),
    ],
    ids=["exact", "solve", "line", "sliced", "sinkhorn", "mixture"],
)
def test_where_all_is_in_one_place_the_first_grain_elsewhere_has_its_price(cost, place, apart):
    """And what is too far for float64's powers a large one; that of another place does not depend on rounding."""
    for far, price in ((5.0, 50.0), (1e160, None), (1e200, None)):
        x = torch.tensor([[place] * 2, [place] * 2, [place + far] * 2], dtype=torch.float64)
        a = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
        value = cost(x, x[:1] + apart, a)
        slope = torch.autograd.grad(value, a)[0]
        assert value.item() == pytest.approx(0, abs=1e-30)
        assert slope.isfinite().all()
        difference = (slope[2] - slope[0]).item()
        assert difference == pytest.approx(price, rel=1e-6) if price else difference > 1e60


def test_a_large_exponent_is_right_or_refused():
    assert empirical.wasserstein(POINTS, POINTS + STEP, 50) == pytest.approx(1, rel=1e-12)
    for p in (900, 1000, 1e5):
        for function in (empirical.wasserstein, empirical.transport_cost, empirical.solve):
            with pytest.raises(ValueError, match=f"p is {p:g}, and "):
                function(POINTS, POINTS + STEP, p)


@pytest.mark.parametrize("p", [20, 60, 87, 142, 300])
def test_a_plan_that_may_not_be_optimal_is_said_to(p):
    x = np.random.default_rng(0).normal(size=(70, 2))[40:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distance = empirical.wasserstein(x, x + 0.5 * STEP, p)
        found = empirical.solve(x, x + 0.5 * STEP, p)
    assert {warning.category for warning in caught} <= {ConvergenceWarning}
    assert found.converged == (not caught)
    if not caught:
        assert distance == pytest.approx(0.5, rel=1e-9)
    assert distance >= 0.5 - 1e-9


def test_projections_with_a_large_exponent_are_right_or_refused():
    x, y = np.random.default_rng(0).normal(size=(2, 20, 2))
    for p in (1100, 2000):
        distance, direction = empirical.max_sliced_wasserstein(x, y, p, return_direction=True)
        assert distance == pytest.approx(empirical.wasserstein_1d(x @ direction, y @ direction, p), rel=1e-9)
    for function in (empirical.sliced_wasserstein, empirical.max_sliced_wasserstein):
        with pytest.raises(ValueError, match="p is 100000, and distances between projections"):
            function(x, y, 1e5)
        assert function(x, x, 1e5) == 0


COSTS = {
    "transport_cost": empirical.transport_cost,
    "sliced_cost": lambda x, y: empirical.sliced_cost(x, y, generator=0),
    "max_sliced_cost": empirical.max_sliced_cost,
    "transport_cost_1d": lambda x, y: empirical.transport_cost_1d(x[:, 1], y[:, 1]),
}


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_of_huge_points(name):
    x = torch.tensor(HUGE * POINTS, requires_grad=True)
    cost = COSTS[name](x, x.detach())
    assert cost.item() == 0
    assert torch.autograd.grad(cost, x)[0].eq(0).all()
    assert COSTS[name](x, x.detach() + HUGE) == torch.inf


@pytest.mark.parametrize("name", ["sliced_cost", "max_sliced_cost"])
def test_equal_points_whose_sum_overflows(name):
    x = np.array([[1e308, 0.0], [1.1e308, 1e308]])
    assert COSTS[name](x, x) == 0


TO_NORMAL = {
    "transport_cost_1d_to_normal": lambda x, loc: empirical.transport_cost_1d_to_normal(x[:, 0], loc=loc),
    "wasserstein_1d_to_normal": lambda x, loc: empirical.wasserstein_1d_to_normal(x[:, 0], loc=loc),
    "sliced_cost_to_normal": lambda x, loc: empirical.sliced_cost_to_normal(x, loc=loc, generator=0),
    "sliced_wasserstein_to_normal": lambda x, loc: empirical.sliced_wasserstein_to_normal(x, loc=loc, generator=0),
}


@pytest.mark.parametrize("name", ["transport_cost", "transport_cost_1d", *TO_NORMAL])
def test_what_is_farther_apart_than_float64_holds_is_refused(name):
    x = np.full((1, 2), 1e308)
    to = TO_NORMAL.get(name)
    with pytest.raises(ValueError, match=f"x and {'loc' if to else 'y'} are farther apart than the largest float64"):
        to(x, -1e308) if to else COSTS[name](x, -x)


@pytest.mark.parametrize("cost", [empirical.transport_cost_1d, empirical.transport_cost])
def test_of_a_batch_each_must_be_within_float64(cost):
    x = np.array([[1e308], [1.0]]) if cost is empirical.transport_cost_1d else np.array([[[1e308]], [[1.0]]])
    with pytest.raises(ValueError, match="x and y are farther apart than the largest float64"):
        cost(x, -x)


def test_the_standard_error_of_no_cost_is_zero():
    value, error = empirical.sliced_cost(HUGE * POINTS, HUGE * POINTS, generator=0, return_error=True)
    assert value == error == 0


@pytest.mark.parametrize("p", [1, 1.5, 2, 3.5])
def test_a_cost_that_float64_holds_though_the_longest_does_not(p):
    """Most points stay, one of small weight moves."""
    x = np.array([[0.0, 0.0], [1e250, 0.0]])
    a = np.array([1.0, 1e-280])
    cost = empirical.transport_cost(x, x + np.array([0.0, 1e200]), p, a=a, b=a)
    expected = float(np.exp(p * np.log(1e200))) if p * 200 < 308 else np.inf
    assert cost == pytest.approx(expected, rel=1e-9)


def test_solve_refuses_costs_beyond_float64():
    for reg in (None, 1.0):
        with pytest.raises(ValueError, match=r"p is 2, and points of x and y are up to 5.62e\+160 apart"):
            empirical.solve(HUGE * POINTS, HUGE * POINTS, reg=reg)


def test_solve_refuses_a_regularisation_that_is_infinite_beside_the_costs():
    for size in (1e-155, 1e-300):
        with pytest.raises(ValueError, match=r"reg is 1 beside a largest cost of .*, and their quotient is more than"):
            empirical.solve(size * POINTS, size * POINTS, reg=1.0)


def test_bounds_of_huge_distances(tmp_path, capsys):
    x, y = HUGE * POINTS, HUGE * (POINTS + STEP)
    assert otkit.pairwise_distances([x, y], bounds=True)[0, 1].tolist()[:3] == pytest.approx(3 * [HUGE], rel=1e-12)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    assert cli.main(["distance", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report[name] for name in ("lower_bound", "value", "upper_bound")] == pytest.approx(3 * [HUGE], rel=1e-12)
