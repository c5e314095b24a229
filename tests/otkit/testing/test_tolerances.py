"""What the laws grant is rounding: it scales as the data do, and an error of 1e-10 is more than that."""

import numpy as np
import pytest
import torch

from otkit import empirical, gaussian
from otkit.testing import (
    Gaussian,
    LawViolation,
    Measure,
    Problem,
    check_batch,
    check_bounds,
    check_convexity,
    check_dual_feasibility,
    check_gelbrich_bound,
    check_gradient,
    check_gradient_in_weights,
    check_identity,
    check_marginals,
    check_monotone_in_p,
    check_problem,
    check_relabelling,
    check_rotation,
    check_scaling,
    check_splitting,
    check_symmetry,
    check_talagrand,
    check_translation,
    check_triangle_inequality,
)

x = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
t = np.array([1.0, 0.5])
weighted = Measure(x, np.array([0.5, 0.25, 0.25]))
ERROR = 1e-10


def off_where(condition, sign=1):
    """W_p, too large by a relative error where the arguments say so, and else right."""

    def distance(x, y, p=2, a=None, b=None):
        return empirical.wasserstein(x, y, p, a=a, b=b) * (1 + sign * ERROR * condition(x, y, p))

    return distance


def first_at(value):
    return lambda x, y, p: x[0, 0] == value


always = off_where(lambda x, y, p: True)
below = off_where(lambda x, y, p: True, sign=-1)


def gaussian_off(loc1, cov1, loc2, cov2):
    return gaussian.w2(loc1, cov1, loc2, cov2) * (1 + ERROR)


def halves_off(x, y):
    values = empirical.wasserstein(x, y)
    return values * (1 + ERROR * np.array([0, 1])) if np.ndim(values) else values


def degree_off(x, y):
    return empirical.wasserstein(x, y) ** (1 + ERROR)


def gradient_off_in(name):
    """In the weights of x, or of y, alone."""

    def distance(x, y, a, b):
        weight = {"a": a, "b": b}[name][0]
        return empirical.transport_cost(x, y, a=a, b=b) + ERROR * (weight - weight.detach())

    return distance


def in_weights(name):
    pair = [(torch.as_tensor(x + shift), torch.as_tensor(weighted.weights)) for shift in (0, t)]
    return lambda: check_gradient_in_weights(gradient_off_in(name), *pair, [0.25, 0.5, 0.25], [0, 0.5, 0.5], power=True)


CASES = {
    "symmetry": lambda: check_symmetry(off_where(first_at(0)), x, x + t),
    "identity": lambda: check_identity(lambda x, y: 1e-6, x),
    "triangle inequality": lambda: check_triangle_inequality(
        off_where(lambda x, y, p: y[0, 0] - x[0, 0] == 2), x, x + t, x + 2 * t
    ),
    "translation of both": lambda: check_translation(off_where(first_at(1)), x, x + t, t),
    "translation of one": lambda: check_translation(off_where(lambda x, y, p: y[0, 0] - x[0, 0] == 2), x, x + 3 * t, t),
    "scaling": lambda: check_scaling(off_where(lambda x, y, p: x[1, 0] == 2), x, x + t),
    "rotation": lambda: check_rotation(off_where(lambda x, y, p: x[1, 0] == 2), x, x + t, np.eye(2)[::-1]),
    "relabelling": lambda: check_relabelling(off_where(first_at(3)), x, x + t, [2, 0, 1]),
    "splitting": lambda: check_splitting(off_where(lambda x, y, p: len(x) == 4), weighted, x + t),
    "bounds from below": lambda: check_bounds(below, x, x + t),
    "bounds from above": lambda: check_bounds(always, x[:1], x),
    "monotonicity in p": lambda: check_monotone_in_p(off_where(lambda x, y, p: p == 1), x, x + t),
    "Gelbrich bound": lambda: check_gelbrich_bound(below, x, x + t),
    "Gelbrich equality": lambda: check_gelbrich_bound(gaussian_off, (t, np.eye(2)), (-t, 4 * np.eye(2))),
    "convexity": lambda: check_convexity(off_where(lambda x, y, p: len(x) == 6), x, x + t, x, x + t),
    "Talagrand's inequality": lambda: check_talagrand(gaussian_off, (t, np.eye(2))),
    "known answers": lambda: check_problem(always, Problem(x, x + t, 2, 1.25**0.5, "a translation")),
    "batch": lambda: check_batch(halves_off, x, x + t, x, x + t),
    "gradient": lambda: check_gradient(degree_off, torch.as_tensor(x), torch.as_tensor(x + t)),
    "gradient in the weights of x": in_weights("a"),
    "gradient in the weights of y": in_weights("b"),
    "marginals": lambda: check_marginals(np.eye(2) * (0.5 + ERROR / 10), np.full(2, 0.5), np.full(2, 0.5)),
    "dual feasibility": lambda: check_dual_feasibility(np.full(2, ERROR), np.ones(2), np.ones((2, 2))),
}


@pytest.mark.parametrize("check", CASES.values(), ids=CASES)
def test_a_small_error_is_more_than_rounding(check):
    with pytest.raises(LawViolation):
        check()


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_the_tolerance_is_in_the_units_of_the_data(p):
    def of(scale):
        with pytest.raises(LawViolation) as caught:
            check_symmetry(lambda x, y: (x - y).sum(), scale * x, scale * (x + t), p=p)
        return caught.value.tolerance

    # The roots of two near numbers are subtracted, which leaves two digits.
    assert of(1024.0) == pytest.approx(1024 * of(1.0), rel=0.05, abs=0)


def test_the_tolerance_is_in_the_units_granted():
    def of(slack):
        with pytest.raises(LawViolation) as caught:
            check_convexity(lambda x, y: float(len(x) == 6), x, x, x, x, slack=slack)
        return caught.value.tolerance

    assert of(32.0) == pytest.approx(2 * of(16.0), rel=1e-12, abs=0)


@pytest.mark.parametrize("least", [1.0, 1e-4, 0.0])
def test_the_data_of_a_gaussian_move_with_the_root_of_its_condition_number(least):
    """eps (d |Σ| κ)^½, and κ = 1/eps where Σ is singular."""
    eps = 2.0**-52
    with pytest.raises(LawViolation) as caught:
        check_identity(lambda m1, C1, m2, C2: 1.0, Gaussian(np.zeros(2), np.diag([4.0, 4 * least])))
    once = eps * (2 * 4 / max(least, eps)) ** 0.5
    assert f"the rounding of the data, {2 * once:.1e}" in str(caught.value)


@pytest.mark.parametrize(("dtype", "eps"), [("float64", 2.2e-16), ("float32", 1.2e-7), ("float16", 9.8e-4)])
def test_the_rounding_is_that_of_the_dtype(dtype, eps):
    with pytest.raises(LawViolation, match=f"eps = {eps:.1e}"):
        check_identity(lambda x, y: 100.0, x.astype(dtype))


# What is not rounding


def test_what_a_problem_may_be_off_is_granted():
    check_problem(always, Problem(x, x + t, 2, 1.25**0.5, "a translation", error=2 * ERROR))


def test_a_power_below_zero_is_a_distance_below_zero():
    with pytest.raises(LawViolation, match=r"\|m_x - m_y\| <= W"):
        check_bounds(lambda x, y: -1.25, x, x + t, power=True)


def test_the_powers_of_two_exponents_are_rooted_by_their_own():
    for far in (0.1, 1.0, 10.0):
        check_monotone_in_p(empirical.transport_cost, x, x + far * t, (1, 3), power=True)


def test_nan_is_off_by_infinity():
    with pytest.raises(LawViolation) as caught:
        check_identity(lambda x, y: np.nan, x)
    assert caught.value.excess == np.inf


def test_potentials_without_weights_are_those_of_uniform_ones():
    check_dual_feasibility([0.0, 2.0], [1.0, 1.0, 1.0], [[1.0] * 3, [3.0] * 3], value=2.0)


def test_the_weight_of_a_mixture_is_of_its_first_part():
    """A quarter moves by t, the rest stays: W² is |t|²/4 of the mixture of points, |t|²/16 of averaged Gaussians."""
    check_convexity(empirical.wasserstein, weighted, (x + t, weighted.weights), weighted, weighted, weight=0.25)
    start, end = Gaussian(t, np.eye(2)), Gaussian(0 * t, np.eye(2))
    check_convexity(gaussian.w2, start, end, start, start, weight=0.25)
