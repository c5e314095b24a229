"""Small costs beside large ones, of which the simplex alone keeps no digit."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from otkit.empirical import _costs, _simplex, solve, transport_cost
from otkit.empirical._costs import MatrixCosts
from otkit.empirical._refined import ReducedCosts, _typical


def normal(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


@pytest.fixture(params=["all arcs", "lists of arcs", "no matrix"])
def route(request, monkeypatch):
    if request.param != "all arcs":
        monkeypatch.setattr(_simplex, "DENSE", 30**2)
        monkeypatch.setattr(_simplex, "COARSEST", 12**2)
    if request.param == "no matrix":
        monkeypatch.setattr(_costs, "MATRIX_BYTES", 0)


# Known answers


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("far", [[1e6], [1e8], [1e10, -1e7, 1e4]])
def test_outliers_on_both_sides(far):
    """The gradient of a convex function moves every point by less than one."""
    x = normal(100)
    x[: len(far), 0] = far
    y, a = x + 0.3 * np.tanh(x), np.random.default_rng(1).random(100) + 0.1
    a /= a.sum()
    expected = a @ ((y - x) ** 2).sum(-1)
    assert transport_cost(x, y, a=a, b=a) == pytest.approx(expected, rel=1e-12)
    found = solve(x, y, a=a, b=a)
    assert found.converged
    assert found.lower_bound == pytest.approx(expected, rel=1e-9)
    assert found.upper_bound == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("far", [1e6, 1e9])
def test_one_outlier_and_the_matching_of_the_others(far):
    """It takes the point farthest to the right; the others are matched as if there were none."""
    x, y = normal(60), normal(60, 1)
    x[7] = [far, 0.0]
    right = y[:, 0].argmax()
    M = ((x[:, None] - y) ** 2).sum(-1)
    rows, columns = np.delete(np.arange(60), 7), np.delete(np.arange(60), right)
    i, j = linear_sum_assignment(M[np.ix_(rows, columns)])
    plan = solve(x, y).plan
    plan = plan if isinstance(plan, np.ndarray) else plan.toarray()
    assert plan[7, right] == pytest.approx(1 / 60)
    assert (plan * M)[rows].sum() == pytest.approx(M[rows[i], columns[j]].sum() / 60, rel=1e-12)


# Laws


def test_reduced_costs_lose_no_digit():
    rng = np.random.default_rng(0)
    M = rng.random((4, 5))
    f, g = (np.stack([s * 1e12 * rng.random(n), 1e-9 * rng.random(n)]) for s, n in ((1, 4), (-1, 5)))
    g[0] = -f[0, 0] + rng.random(5)
    reduced = ReducedCosts(MatrixCosts(M), f, g, 2.0)
    exact = [
        [float((Fraction(M[i, j]) - sum(map(Fraction, (*f[:, i], *g[:, j])))) / 2) for j in range(5)] for i in range(4)
    ]
    np.testing.assert_allclose(reduced.block(0, 4), np.minimum(exact, 1), rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(reduced.T.block(0, 5), reduced.block(0, 4).T)
    np.testing.assert_array_equal(reduced.at(np.array([1, 3]), np.array([4, 0])), reduced.block(0, 4)[[1, 3], [4, 0]])
    rows, columns = np.array([0, 2]), np.array([1, 2, 4])
    np.testing.assert_array_equal(reduced.within(rows, columns).block(0, 2), reduced.block(0, 4)[np.ix_(rows, columns)])


def test_a_typical_cost_is_one_that_is_paid():
    """Points that stay where they are say nothing of the scale of the others."""
    assert _typical(np.array([0.0, 2, 0, 0])) == 2
    assert _typical(np.zeros(3)) == np.inf
