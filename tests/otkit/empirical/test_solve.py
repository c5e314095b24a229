import dataclasses
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.empirical import (
    _costs,
    _simplex,
    _solve,
    _solved,
    sinkhorn_cost,
    solve,
    solve_matrix,
    transport_cost,
)
from otkit.testing import measures
from tests.otkit.empirical.linear_programme import linear_programme
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)
exponents = st.sampled_from([1.0, 1.5, 2.0, 3.0])
pairs = st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d)))


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*args, **options)


# Known answers


def test_two_points():
    found = solve_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.75, 0.25]), np.array([0.5, 0.5]))
    assert found.cost == found.value == 0.25
    assert found.converged
    np.testing.assert_allclose(found.plan, [[0.5, 0.25], [0, 0.25]], atol=1e-16)
    f, g = found.potentials
    assert f.mean() == pytest.approx(g.mean())
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.cost = 0.0


def test_negative_costs_are_legal():
    M, a, b = rng.normal(size=(6, 5)) - 3, weights(6), weights(5, 1)
    found = solve_matrix(M, a, b)
    assert found.cost == pytest.approx(linear_programme(a, b, M), rel=1e-9)
    assert found.lower_bound <= found.upper_bound == pytest.approx(found.cost, rel=1e-12)
    f, g = found.potentials
    assert (f[:, None] + g <= M + 1e-12).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e9, 1e200])
def test_no_scale_of_costs_is_too_small_or_too_large(scale):
    M, a, b = rng.random((8, 7)), weights(8), weights(7, 1)
    found = solve_matrix(scale * M, a, b)
    assert found.converged
    assert found.cost == pytest.approx(scale * linear_programme(a, b, M), rel=1e-9)


# Laws: the bounds hold whatever happens


@given(pairs, exponents, st.sampled_from([None, 1, 2, 3]))
def test_the_exact_cost_lies_between_the_bounds(both, p, max_iter):
    (x, a), (y, b) = both
    exact = transport_cost(x, y, p, a=a, b=b)
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    for found in (
        quietly(solve, x, y, p, a=a, b=b, max_iter=max_iter),
        quietly(solve_matrix, M, a, b, max_iter=max_iter),
    ):
        rounding = 1e-11 * (1 + M.max())
        assert found.lower_bound - rounding <= exact <= found.upper_bound + rounding
        assert max_iter is not None or (found.converged and found.marginal_error < 1e-12)
        if found.converged:
            assert found.upper_bound - found.lower_bound <= rounding


@given(pairs, exponents, st.sampled_from([1, 3, 10_000]), st.sampled_from([0.01, 0.3, 10.0]))
def test_the_exact_cost_lies_between_the_bounds_of_sinkhorn(both, p, max_iter, reg):
    (x, a), (y, b) = both
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    reg = reg * (1e-3 + M.mean())
    found = quietly(solve, x, y, p, a=a, b=b, reg=reg, max_iter=max_iter)
    rounding = 1e-10 * (1 + M.max())
    assert found.lower_bound - rounding <= transport_cost(x, y, p, a=a, b=b) <= found.upper_bound + rounding
    assert found.lower_bound >= 0
    error = np.abs(found.plan.sum(1) - a).sum() + np.abs(found.plan.sum(0) - b).sum()
    assert found.marginal_error == pytest.approx(error, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("lift", [0.0, 10.0])
@pytest.mark.parametrize("reg", [None, 0.1])
def test_bounds_are_those_of_weights_of_one_sum(reg, lift):
    """Sums that differ as much as float32 rounds them: the weights of columns are taken relative to those of rows."""
    M, a, b = rng.random((20, 30)), weights(20), weights(30, 1)
    found = solve_matrix(
        (M + lift).astype(np.float32), a.astype(np.float32), (b * (1 - 2e-6)).astype(np.float32), reg=reg
    )
    same = solve_matrix((M + lift).astype(np.float32).astype(float), a, b, reg=reg)
    for name in ("value", "lower_bound", "upper_bound"):
        assert getattr(found, name) == pytest.approx(getattr(same, name), rel=3e-7)
    assert found.marginal_error < 1e-6
    assert found.converged


def test_a_plan_far_from_optimal_bounds_no_less_than_nothing():
    x = np.array([[0.0], [1.0], [2.0], [5.0]])
    assert solve(x, x, reg=30.0).lower_bound == 0
    # Costs of a matrix may be below 0; none is below the least of them.
    M = (x - x.T) ** 2 - 3
    assert solve_matrix(M, np.full(4, 0.25), np.full(4, 0.25), reg=30.0).lower_bound == -3


def test_unfinished_simplex_says_so_and_still_certifies():
    x, y = rng.normal(size=(2, 60, 2))
    with pytest.warns(
        ConvergenceWarning, match="stopped at max_iter in 1 of 1 problems; the exact cost is certain only"
    ):
        found = solve(x, y, max_iter=20)
    assert not found.converged
    assert found.lower_bound < transport_cost(x, y) < found.upper_bound
    assert found.marginal_error > 1e-3


def test_a_plan_whose_marginals_are_lost_in_rounding_has_not_converged():
    """Where f + g - M over reg keeps few digits, the potentials are right to tol, and the plan of them is not."""
    M = np.array([[0.0, 1.0, 2.0], [1.0, 0.5, 0.0], [3.0, 2.0, 1.0]])
    with pytest.warns(ConvergenceWarning, match=r"above tol = 1.0e-06, in 1 of 1 problems; .* take a larger reg"):
        found = solve_matrix(M, reg=1e-12)
    error = np.abs(found.plan.sum(0) - 1 / 3).sum() + np.abs(found.plan.sum(1) - 1 / 3).sum()
    assert 1e-6 < found.marginal_error == pytest.approx(error)
    assert not found.converged
    assert found.value == pytest.approx(0.5, abs=1e-11)


def test_unfinished_sinkhorn_says_so():
    x, y = rng.normal(size=(2, 30, 2))
    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol, or take a larger reg"):
        found = solve(x, y, reg=0.01, max_iter=2)
    assert not found.converged


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("max_iter", [1, 3, 10])
@pytest.mark.parametrize("relative", [1e-2, 1e-5])
def test_an_unfinished_sinkhorn_still_certifies(relative, max_iter, held, monkeypatch):
    """Also where the kernel of the final reg underflows beside potentials that are far from it."""
    x, y = np.random.default_rng(0).normal(size=(2, 40, 2))
    reg = relative * ((x[:, None] - y) ** 2).sum(-1).mean()
    exact, entropic = transport_cost(x, y), sinkhorn_cost(x, y, reg=reg)
    if not held:
        monkeypatch.setattr(_costs, "MATRIX_BYTES", 0)
    found = quietly(solve, x, y, reg=reg, max_iter=max_iter)
    assert not found.converged
    assert found.lower_bound <= exact <= found.upper_bound
    assert 0.5 * exact < found.value <= entropic
    np.testing.assert_allclose(found.plan.sum(1), 1 / 40, rtol=1e-9)
    assert found.marginal_error == pytest.approx(np.abs(found.plan.sum(0) - 1 / 40).sum(), rel=1e-9)


# Oracles


@given(st.integers(0, 10**6), exponents)
def test_against_linear_programming(seed, p):
    r = np.random.default_rng(seed)
    n, m = r.integers(2, 13, 2)
    x, y, a, b = r.normal(size=(n, 2)), r.normal(size=(m, 2)), r.random(n) + 0.01, r.random(m) + 0.01
    a, b = a / a.sum(), b / b.sum()
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    expected = linear_programme(a, b, M)
    found = solve(x, y, p, a=a, b=b)
    assert found.cost == pytest.approx(expected, rel=1e-9)
    assert found.lower_bound == pytest.approx(expected, rel=1e-9)
    assert found.cost == pytest.approx((found.plan * M).sum(), rel=1e-12)


def test_sinkhorn_value_is_that_of_sinkhorn_cost():
    x, y, a = rng.normal(size=(9, 2)), rng.normal(size=(7, 2)), weights(9)
    found = solve(x, y, a=3 * a, b=np.full(7, 3 / 7), reg=0.5, tol=1e-9)
    assert found.value == pytest.approx(sinkhorn_cost(x, y, a=3 * a, b=np.full(7, 3 / 7), reg=0.5, tol=1e-9), rel=1e-8)
    M, P = ((x[:, None] - y) ** 2).sum(-1), found.plan / 3
    assert found.cost == pytest.approx(3 * (P * M).sum(), rel=1e-12)
    entropy = (P * np.log(P / (a[:, None] / 7))).sum()
    assert found.value == pytest.approx(3 * ((P * M).sum() + 0.5 * entropy), rel=1e-6)
    assert solve_matrix(M - 1, a, reg=0.5).value == pytest.approx(found.value / 3 - 1, rel=1e-6)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("reg", [1e9, 1e12, 1e16, 1e100])
def test_a_huge_reg_keeps_the_digits_of_the_value(reg, held, monkeypatch):
    """It is the cost of the independent coupling, up to terms of 1 / reg."""
    if not held:
        monkeypatch.setattr(_costs, "MATRIX_BYTES", 0)
    x, y, a = rng.normal(size=(8, 2)), rng.normal(size=(7, 2)), weights(8)
    M = ((x[:, None] - y) ** 2).sum(-1)
    expected = (a @ M).mean()
    assert solve(x, y, a=a, reg=reg).value == pytest.approx(expected, rel=1e-8)
    assert solve_matrix(M, a, reg=reg).value == pytest.approx(expected, rel=1e-8)


# Derivatives


@pytest.mark.parametrize("reg", [None, 0.5])
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_gradients_in_points_and_weights(p, reg):
    tensors = [rng.normal(size=(2, 5, 2)), rng.normal(size=(4, 2)), weights(5), weights(4, 1)]
    tensors = [torch.tensor(t, requires_grad=True) for t in tensors]

    def value(x, y, a, b):
        return solve(x, y, p, a=a / a.sum(), b=b / b.sum(), reg=reg, tol=1e-10).value

    assert torch.autograd.gradcheck(value, tensors)


@pytest.mark.parametrize("reg", [None, 0.3])
def test_gradients_in_costs_and_weights(reg):
    tensors = [torch.tensor(t, requires_grad=True) for t in (rng.normal(size=(2, 5, 4)), weights(5), weights(4, 1))]

    def value(M, a, b):
        return solve_matrix(M, a / a.sum(), b / b.sum(), reg=reg, tol=1e-10).value

    assert torch.autograd.gradcheck(value, tensors)


def test_the_cost_of_an_entropic_plan_refuses_a_gradient():
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    found = solve(x, torch.randn(4, 2, dtype=torch.float64), reg=1.0)
    with pytest.raises(RuntimeError, match="differentiate value"):
        found.cost.backward()
    assert not solve(x.detach(), x.detach() + 1, reg=1.0).cost.requires_grad


@pytest.mark.parametrize(("reg", "said"), [(None, "of the exact cost in the weights"), (0.3, "of an entropic value")])
def test_second_derivatives_in_the_weights_are_refused(reg, said):
    a = torch.rand(4, dtype=torch.float64, requires_grad=True)
    value = solve_matrix(torch.rand(4, 5, dtype=torch.float64), a / a.sum(), reg=reg).value
    (gradient,) = torch.autograd.grad(value**2, a, create_graph=True)
    with pytest.raises(RuntimeError, match=said):
        gradient.square().sum().backward()


@pytest.mark.parametrize("p", [1.0, 1.5])
def test_points_at_one_place_have_no_part_in_the_gradient(p):
    """There |x - y|^p has a kink; by convention its gradient is 0, and what is left is that of the other pairs."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    found = solve(x, y, p, reg=0.5)
    found.value.backward()
    difference = x.detach()[:, None] - y
    length = difference.norm(dim=-1, keepdim=True)
    each = torch.where(length > 0, p * length ** (p - 2) * difference, 0.0)
    torch.testing.assert_close(x.grad, (found.plan.detach()[..., None] * each).sum(1), rtol=1e-6, atol=1e-9)


# Batches, kinds and sizes


def test_batches_and_kinds():
    x, y = rng.normal(size=(3, 1, 6, 2)).astype(np.float32), rng.normal(size=(2, 5, 2)).astype(np.float32)
    for reg in (None, 0.7):
        found = solve(x, y, reg=reg)
        assert found.value.shape == found.lower_bound.shape == found.marginal_error.shape == (3, 2)
        assert found.plan.shape == (3, 2, 6, 5)
        assert found.plan.dtype == found.value.dtype == found.potentials[0].dtype == np.float32
        assert [each.shape for each in found.potentials] == [(3, 2, 6), (3, 2, 5)]
        alone = solve(torch.tensor(x[1, 0]), torch.tensor(y[1]), reg=reg)
        assert isinstance(alone.plan, torch.Tensor)
        assert alone.value.item() == pytest.approx(found.value[1, 1], rel=1e-6)
        assert isinstance(alone.n_iter, int)
    empty = solve(x[:0], y)
    assert empty.plan.shape == (0, 2, 6, 5)
    assert empty.converged


@pytest.mark.parametrize("reg", [None, 0.5])
def test_a_batch_has_dense_plans_whatever_its_size(reg, monkeypatch):
    x, y, M = rng.normal(size=(2, 6, 2)), rng.normal(size=(5, 2)), rng.random((2, 6, 5))
    small = solve(x, y, reg=reg), solve_matrix(M, reg=reg)
    for module in (_solve, _solved):
        monkeypatch.setattr(module, "DENSE", 10)
    for found, expected in zip((solve(x, y, reg=reg), solve_matrix(M, reg=reg)), small, strict=True):
        np.testing.assert_array_equal(found.plan, expected.plan)
    assert reg is None or solve(x[0], y, reg=reg).plan is None


def test_zero_weights_and_duplicates_are_legal():
    x, y = np.repeat(rng.normal(size=(4, 2)), 2, 0), rng.normal(size=(5, 2))
    a, b = np.array([0.5, 0, 0, 0, 0.25, 0.25, 0, 0]), np.array([0.5, 0, 0.25, 0, 0.25])
    for reg in (None, 0.4):
        found, less = solve(x, y, a=a, b=b, reg=reg), solve(x[a > 0], y[b > 0], a=a[a > 0], b=b[b > 0], reg=reg)
        assert found.value == pytest.approx(less.value, rel=1e-9)
        assert found.lower_bound == pytest.approx(less.lower_bound, rel=1e-9)
        assert all(np.isfinite(each).all() for each in found.potentials)
        assert (found.plan[a == 0] == 0).all()


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01])
def test_points_of_weight_zero_that_face_each_other_have_no_part(reg):
    """Their potentials are those of the points that have weight, and add up to far more than their cost."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]], dtype=torch.float64, requires_grad=True)
    y, w = torch.tensor([[0.0, 0.5], [1.0, 1.0], [100.0, 0.0]], dtype=torch.float64), np.array([0.5, 0.5, 0.0])
    M = ((x.detach()[:, None] - y) ** 2).sum(-1).requires_grad_()
    a = torch.tensor(w)
    less = solve(x.detach()[:2], y[:2], reg=reg)
    for found, at in ((solve(x, y, a=a, b=a, reg=reg), x), (solve_matrix(M, a, a, reg=reg), M)):
        for name in ("value", "cost", "lower_bound", "upper_bound"):
            assert getattr(found, name).item() == pytest.approx(getattr(less, name).item(), rel=1e-9)
        assert (found.plan[2] == 0).all()
        (gradient,) = torch.autograd.grad(found.value, at)
        assert torch.isfinite(gradient).all()
        assert (gradient[2] == 0).all()


def test_a_gap_that_is_known_is_the_distance_of_the_bounds(monkeypatch):
    of = _solved.couple
    monkeypatch.setattr(_solved, "couple", lambda *args, **kept: of(*args, **kept)._replace(gap=0.25))
    M = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.warns(ConvergenceWarning, match="the gap of the simplex's plan is not at rounding"):
        found = solve_matrix(M)
    assert found.lower_bound <= -0.25 < found.upper_bound == 0


# Bad input

x2, y2, M2 = np.zeros((3, 2)), np.ones((4, 2)), np.ones((3, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iter": 0}, "max_iter is 0"),
        ({"method": "foo"}, "method is 'foo'; expected one of 'auto', 'sinkhorn'"),
        ({"method": "foo", "reg": 1.0}, "method is 'foo'; expected one of 'auto', 'sinkhorn'"),
        ({"tol": -1.0}, "tol is -1.0"),
    ],
)
def test_bad_options(options, message):
    for function, arguments in ((solve, (x2, y2)), (solve_matrix, (M2,))):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **options)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_reg_lost_in_rounding_is_named_as_it_came(scale):
    x, y = np.array([[0.0], [0.6]]), np.array([[0.0], [0.1]])
    M, reg = scale * (x - y.T) ** 2, scale * 2e-14
    for function, arguments in ((solve, (scale**0.5 * x, scale**0.5 * y)), (solve_matrix, (M,))):
        with pytest.raises(ValueError, match=re.escape(f"reg is {reg:g} beside a largest cost of {0.36 * scale:.3g};")):
            function(*arguments, reg=reg)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3),), r"M has shape \(3,\)"),
        ((np.where(np.eye(3) > 0, np.inf, 0),), "M must be finite; got 3 entries"),
        ((M2, np.ones(2)), r"a has shape \(2,\); expected \(..., 3\), a weight for each row of M"),
        ((M2, None, np.ones(3)), "a weight for each column of M"),
        ((np.array([[1.5e308, -1.5e308]]),), "expected a difference that float64 holds"),
    ],
)
def test_bad_costs_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_matrix(*arguments)


def test_methods_that_need_costs_that_are_not_held_are_refused(monkeypatch):
    monkeypatch.setattr(_costs, "MATRIX_BYTES", 2 * 8 * 12 - 1)
    with pytest.raises(ValueError, match="method is 'sinkhorn', which holds the 3 x 4 cost matrix"):
        solve(x2, y2, reg=1.0, method="sinkhorn")
    monkeypatch.setattr(_costs, "MATRIX_BYTES", 2 * 8 * 12)
    assert solve(x2, y2, reg=1.0, method="sinkhorn").value == pytest.approx(2.0)


def test_more_points_than_memory(monkeypatch):
    monkeypatch.setattr(_simplex, "EXACT_BYTES", 50_000)
    for distance in (transport_cost, solve):
        with pytest.raises(
            MemoryError, match=r"8000 bytes for each of the 7, .*sinkhorn_cost or solve with a reg, sliced"
        ):
            distance(x2, y2)
    monkeypatch.setattr(_solve, "PLAN_BYTES", 100)
    with pytest.raises(MemoryError, match="solve the batch in parts"):
        solve(np.zeros((2, 3, 2)), y2, reg=1.0)
