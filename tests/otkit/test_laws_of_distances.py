"""Every distance of otkit obeys every law that applies to it, and more sharply than a textbook's where it says so."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import empirical, gaussian
from otkit.testing import (
    applicable_laws,
    check_problem,
    commuting_gaussians,
    entropic_gaussians_on_a_grid,
    find_violation,
)


def on_the_line(x, y, p):
    return empirical.wasserstein(x[:, None], y[:, None], p)


def by_trace(loc1, cov1, loc2, cov2):
    return gaussian.w2_squared(loc1, cov1, loc2, cov2, method="trace")


def by_factors(loc1, cov1, loc2, cov2):
    return gaussian.w2_squared_from_factors(loc1, np.linalg.cholesky(cov1), loc2, np.linalg.cholesky(cov2))


def by_scales(loc1, cov1, loc2, cov2):
    scales = (np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1)) for cov in (cov1, cov2))
    return gaussian.w2_squared_diagonal(loc1, next(scales), loc2, next(scales))


BOTH = {"batched": True, "differentiable": True}
POWER = {"power": True}
FLOAT32 = {"as_array": lambda array: torch.as_tensor(array, dtype=torch.float32)}
CASES = [
    (empirical.wasserstein, "points", BOTH, {}),
    (empirical.wasserstein, "points", {}, FLOAT32),
    (empirical.wasserstein, "measures", BOTH, {}),
    (empirical.transport_cost, "measures", BOTH, POWER),
    (on_the_line, "line", {}, {}),
    (gaussian.w2, "gaussians", BOTH, {}),
    (gaussian.w2, "gaussians", {}, FLOAT32),
    (gaussian.w2, "degenerate gaussians", BOTH, {}),
    (gaussian.w2_squared, "degenerate gaussians", BOTH, POWER),
    (by_trace, "gaussians", {"batched": True}, POWER),
    (by_factors, "gaussians", {"batched": True}, POWER),
    (by_scales, "diagonal gaussians", {"batched": True}, POWER),
]
EACH = [
    pytest.param(distance, on, law, options, id=f"{distance.__name__}-{on}-{law}{'-float32' * ('as_array' in options)}")
    for distance, on, has, options in CASES
    for law in applicable_laws(distance, on=on, **has)
]


@pytest.mark.parametrize(("distance", "on", "law", "options"), EACH)
def test_the_law_holds(distance, on, law, options):
    violation = find_violation(distance, law, on=on, **options)
    if violation is not None:
        raise violation


@given(st.integers(1, 4).flatmap(commuting_gaussians))
def test_gaussians_are_held_to_less_than_the_textbook_rounding(problem):
    """Relative to the distance itself where the inputs allow it: 16 units are granted by default."""
    check_problem(gaussian.w2, problem, slack=1.0)


@given(entropic_gaussians_on_a_grid())
def test_sinkhorn_on_a_grid_is_the_entropic_closed_form(problem):
    (x, a), (y, b) = problem.x, problem.y
    closed = gaussian.entropic_cost(*_gaussian(problem.x), *_gaussian(problem.y), reg=problem.reg)
    # The grid's own variance is that of the density to 1e-11, as the problem says.
    assert abs(closed - problem.value) <= problem.error
    tol = 1e-9
    value = empirical.sinkhorn_cost(x, y, a=a, b=b, reg=problem.reg, tol=tol)
    # A dual value with marginals off by tol is below the optimum by tol times the largest potential at most.
    potential = float(((x - y.T) ** 2).max())
    assert abs(value - problem.value) <= problem.error + tol * potential


def _gaussian(measure):
    points, weights = measure
    loc = weights @ points
    return loc, ((points - loc).T * weights) @ (points - loc)
