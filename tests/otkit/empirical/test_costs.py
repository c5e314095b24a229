"""Costs in any unit and precision, as the simplex has them."""

import numpy as np
import pytest
import torch

from otkit.empirical import _costs, _simplex, solve, solve_matrix
from otkit.empirical._costs import MatrixCosts

rng = np.random.default_rng(0)


@pytest.mark.parametrize("unit", [2.0**-30, 1.0, 64.0, 2.0**15, 2.0**40])
def test_costs_in_a_unit_are_those_divided_by_it(unit):
    M, f = rng.random((6, 7)), rng.normal(size=7)
    costs, plain = MatrixCosts(unit * M, unit), MatrixCosts(M)
    np.testing.assert_array_equal(costs.block(1, 4), M[1:4])
    np.testing.assert_array_equal(costs.T.at(np.array([6]), np.array([2])), M[2:3, 6])
    np.testing.assert_array_equal(costs.within(np.array([0, 3]), np.array([5])).block(0, 2), M[[0, 3]][:, [5]])
    np.testing.assert_array_equal(_costs.row_transform(costs, f), _costs.row_transform(plain, f))
    np.testing.assert_array_equal(_costs.column_transform(costs.T, f), _costs.column_transform(plain.T, f))


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**-3, 2.0**5, 2.0**15, 2.0**60])
def test_costs_of_any_unit_give_the_same_certificate_and_are_left_alone(unit):
    M = unit * rng.random((30, 20))
    before = M.copy()
    found, same = solve_matrix(M), solve_matrix(M / unit)
    np.testing.assert_array_equal(M, before)
    assert not np.shares_memory(M, found.plan)
    assert found.converged
    assert found.lower_bound <= found.cost * (1 + 1e-12)
    assert found.cost == pytest.approx(unit * same.cost, rel=1e-13)
    np.testing.assert_allclose(found.potentials[0], unit * same.potentials[0], atol=1e-13 * unit)
    np.testing.assert_allclose(found.plan.sum(0), 1 / 20, atol=1e-15)


@pytest.mark.parametrize(
    "entries", [(0, 1), (-0.0, 1), (-1, 2), (-3, -2), (np.nan, 1), (-np.nan, 1), (np.inf, 1), (-np.inf, 1), (5e-324, 0)]
)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, np.float32])
def test_extremes_of_costs(entries, layout):
    M = layout(np.tile(np.array(entries, float), (3, 2)))
    np.testing.assert_array_equal(_costs.extremes(M), (np.minimum(M.min(), 0), M.max()))


def test_costs_of_any_precision_are_given_to_the_simplex_in_its_own():
    M, a = rng.random((5, 5)).astype(np.float32), np.full(5, 0.2)
    found, same = (_simplex.couple(a, a, costs) for costs in (M, M.astype(np.float64)))
    assert found.mass @ M[found.rows, found.columns] == pytest.approx(same.mass @ M[same.rows, same.columns], rel=1e-7)


@pytest.mark.parametrize("exponent", [-960, -300, -34, -33, -32, -31, 0, 498, 499, 500, 501, 960])
def test_points_in_a_unit_have_costs_in_that_unit_whatever_their_squares(exponent):
    x, y = torch.from_numpy(rng.normal(size=(2, 3, 6, 2)))
    x[:, 0], y[:, 0] = 0, 1e-16
    unit = torch.tensor([2.0**exponent, 1.0, 0.0], dtype=torch.float64)[:, None, None]  # the last all in one place
    found, plain = _costs.costs_of_batch(unit * x, unit * y, 2), _costs.costs_of_batch(x, y, 2)
    for (costs, _), (same, _) in zip(found[:2], plain[:2], strict=True):
        np.testing.assert_array_equal(costs.block(0, 6), same.block(0, 6))
    assert [length for _, length in found[:2]] == [2.0**exponent * plain[0][1], plain[1][1]]
    assert not found[2][0].block(0, 6).any()


@pytest.mark.parametrize("p", [1, 2, 3, 5, 9.5])
@pytest.mark.parametrize("reg", [None, 0.05])
def test_costs_in_blocks_are_those_that_are_held_far_from_the_origin(p, reg, monkeypatch):
    x, y = rng.integers(0, 64, (2, 12, 2)) / 64 + 2.0**30  # whose differences do not round
    x[:3] += 1 / 3
    unit = np.linalg.norm(x[:, None] - y, axis=-1).max()
    options = {} if reg is None else {"reg": reg * unit**p, "tol": 1e-10}
    held = solve(x, y, p, **options)
    monkeypatch.setattr(_costs, "MATRIX_BYTES", 0)
    found = solve(x, y, p, **options)
    for name in ("value", "cost", "lower_bound", "upper_bound"):
        assert getattr(found, name) == pytest.approx(getattr(held, name), rel=1e-12 if reg is None else 1e-8)
    assert found.converged
