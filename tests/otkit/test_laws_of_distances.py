"""Every distance of otkit obeys every law that applies to it, and more sharply than a textbook's where it says so."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otkit import empirical, gaussian
from otkit.testing import (
    applicable_laws,
    check_dual_feasibility,
    check_marginals,
    check_problem,
    commuting_gaussians,
    entropic_gaussians_on_a_grid,
    find_violation,
    measures,
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


def by_quantiles(x, y, p, a=None, b=None):
    return empirical.wasserstein_1d(x[..., 0], y[..., 0], p, a=a, b=b)


def sliced(x, y, p, a=None, b=None):
    return empirical.sliced_wasserstein(x, y, p, a=a, b=b, n_projections=8, generator=0)


def sinkhorn_divergence(x, y, a=None, b=None):
    return empirical.sinkhorn_divergence(x, y, a=a, b=b, reg=1.0, tol=1e-11)


measure_pairs = st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d)))
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
# Fixed directions do not turn with the points, a translation counts by its mean square along them, and the answers
# known are those of other distances. The divergence is no distance, and its reg is absolute; its error is quadratic in
# that of the marginals.
SLICED = [
    "identity",
    "symmetry",
    "triangle inequality",
    "scaling",
    "relabelling",
    "splitting",
    "monotonicity in p",
    "convexity",
    "batch",
    "gradient",
    "gradient in the weights",
]
DIVERGENCE = ["identity", "symmetry", "translation", "rotation", "relabelling", "splitting", "gradient in the weights"]
SOME = [
    *((by_quantiles, law, {"dimensions": (1,)}) for law in applicable_laws(by_quantiles, on="measures", **BOTH)),
    *((sliced, law, {}) for law in SLICED),
    *((sinkhorn_divergence, law, {"power": True}) for law in DIVERGENCE),
]


@pytest.mark.parametrize(("distance", "on", "law", "options"), EACH)
def test_the_law_holds(distance, on, law, options):
    violation = find_violation(distance, law, on=on, max_examples=settings().max_examples * 3 // 8, **options)
    if violation is not None:
        raise violation


@pytest.mark.parametrize(("distance", "law", "options"), [pytest.param(*c, id=f"{c[0].__name__}-{c[1]}") for c in SOME])
def test_the_law_holds_of_other_transports(distance, law, options):
    violation = find_violation(
        distance, law, on="measures", max_examples=max(10, settings().max_examples // 4), **options
    )
    if violation is not None:
        raise violation


@given(measure_pairs, st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_a_plan_has_its_marginals_and_its_potentials_prove_it(pair, p):
    (x, a), (y, b) = pair
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    for found in (empirical.solve(x, y, p, a=a, b=b), empirical.solve_matrix(M, a, b)):
        check_marginals(found.plan, a, b)
        f, g = found.potentials
        # At a point without mass the potential is what a first grain of it would cost against those with mass.
        for rows, columns in ((a > 0, slice(None)), (slice(None), b > 0)):
            part = M[rows][:, columns]
            check_dual_feasibility(f[rows], g[columns], part, a=a[rows], b=b[columns], value=found.cost)


@given(measure_pairs, st.floats(0.2, 5.0))
def test_an_entropic_plan_has_its_marginals_and_its_bounds_are_bounds(pair, relative):
    (x, a), (y, b) = pair
    M = ((x[:, None] - y) ** 2).sum(-1)
    largest, tol = float(M.max()) or 1.0, 1e-9
    found = empirical.solve(x, y, a=a, b=b, reg=relative * largest, tol=tol)
    assert found.converged
    check_marginals(found.plan, a, b, tol=2 * tol * a.sum())
    exact, rounding = empirical.solve_matrix(M, a, b), 1e-14 * largest * a.sum()
    assert found.lower_bound <= exact.cost + rounding
    assert exact.cost <= found.upper_bound + rounding


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
