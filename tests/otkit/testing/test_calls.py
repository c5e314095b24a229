"""Distances are called as their users' functions are, and laws say what they expected."""

import numpy as np
import pytest
import torch

import otkit
from otkit import empirical, gaussian
from otkit.testing import (
    Gaussian,
    LawViolation,
    Measure,
    applicable_laws,
    check_bounds,
    check_convexity,
    check_dual_feasibility,
    check_gelbrich_bound,
    check_gradient_in_weights,
    check_identity,
    check_laws,
    check_marginals,
    check_monotone_in_p,
    check_scaling,
    check_symmetry,
    check_talagrand,
    check_triangle_inequality,
    find_violation,
)
from tests.otkit.testing import wrong_distances

x, y, z = np.random.default_rng(0).normal(size=(3, 5, 2))
weighted = x, np.full(5, 0.2)
zero, w2, normal = wrong_distances.zero, gaussian.w2, Gaussian(np.zeros(2), np.eye(2))


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_numpy_and_torch_come_as_they_are(convert):
    seen = []

    def distance(x, y):
        seen.append((type(x), x.dtype))
        return empirical.wasserstein(x, y)

    check_triangle_inequality(distance, *(convert(part) for part in (x, y, z)))
    check_triangle_inequality(distance, *(convert(part.astype(np.float32)) for part in (x, y, z)))
    assert {kind for kind, _ in seen} == {type(convert(x))}
    assert {str(dtype).rpartition(".")[-1] for _, dtype in seen} == {"float64", "float32"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_granted_its_rounding(dtype):
    halves = [torch.as_tensor(part).to(dtype) for part in (x, y, z)]
    check_triangle_inequality(empirical.wasserstein, *halves)
    check_symmetry(lambda x, y: empirical.wasserstein(x, y) * (1 + (x.sum() > y.sum()) * 2**-8), *halves[:2])
    with pytest.raises(LawViolation, match=r"eps = 9.8e-04" if dtype == torch.float16 else r"eps = 7.8e-03"):
        check_symmetry(lambda x, y: x.sum() - y.sum(), *halves[:2])
    check_marginals(torch.eye(2, dtype=dtype) / 2, torch.full((2,), 0.5, dtype=dtype), np.full(2, 0.5))


def test_weights_go_by_name_and_p_is_asked_for():
    seen = []

    def distance(x, y, p, a=None, b=None):
        seen.append((p, a is None, b is None))
        return empirical.wasserstein(x, y, p, a=a, b=b)

    check_symmetry(distance, Measure(x, np.full(5, 0.2)), y, p=3)
    check_symmetry(distance, (x, np.full(5, 0.2)), (y, np.full(5, 0.2)), p=1)
    check_symmetry(distance, x, y)
    assert seen == [(3.0, False, True), (3.0, True, False), *[(1.0, False, False)] * 2, *[(2.0, True, True)] * 2]


def test_gaussians_are_pairs():
    check_symmetry(gaussian.w2, (np.zeros(2), np.eye(2)), (np.ones(2), 2 * np.eye(2)))
    check_talagrand(gaussian.w2_squared, (torch.ones(2), 2 * torch.eye(2)), power=True)


def test_at_a_singular_gaussian_the_divergence_is_infinite():
    for largest in (1.0, 5.0, 1e10):
        check_talagrand(gaussian.w2, (np.zeros(2), np.diag([0.0, largest])))


def test_a_power_is_rooted():
    check_triangle_inequality(empirical.transport_cost, x, y, z, p=3, power=True)
    with pytest.raises(LawViolation):
        check_scaling(empirical.transport_cost, x, y, p=3)


def test_the_slack_is_what_decides():
    def slightly_off(x, y):
        return empirical.wasserstein(x, y) * (1 + 1e-13 * (x.sum() > y.sum()))

    check_symmetry(slightly_off, x, y, slack=1e4)
    with pytest.raises(LawViolation):
        check_symmetry(slightly_off, x, y, slack=1.0)


def test_laws_are_chosen_by_what_the_distance_takes():
    assert "monotonicity in p" in applicable_laws(empirical.wasserstein, on="points")
    assert "monotonicity in p" not in applicable_laws(wrong_distances.zero, on="points")
    assert "Gelbrich bound" not in applicable_laws(wrong_distances.zero, on="points", p=1)
    assert "bounds" not in applicable_laws(gaussian.w2, on="gaussians", p=1)
    assert "gradient in the weights" not in applicable_laws(empirical.wasserstein, on="points", differentiable=True)
    assert "gradient in the weights" not in applicable_laws(empirical.wasserstein, on="measures")
    assert {"batch", "gradient"} <= set(applicable_laws(gaussian.w2, on="gaussians", batched=True, differentiable=True))


def test_only_the_exponents_given_are_asked_for():
    asked = set()

    def distance(x, y, p):
        asked.add(p)
        return empirical.wasserstein(x, y, p)

    for exponents in ((1.0,), (2.0,), (2.0, 1.0), (1.25, 4.0)):
        asked.clear()
        asking = ["symmetry", "monotonicity in p", "Gelbrich bound", "known answers"]
        check_laws(distance, on="points", laws=asking, exponents=exponents, max_examples=10)
        assert asked == set(exponents)


def test_where_sizes_have_to_be_equal_they_are():
    def distance(x, y, a, b):
        assert len(x) == len(y)
        return empirical.wasserstein(x, y, a=a, b=b)

    check_laws(distance, on="measures", equal_sizes=True, max_examples=5)
    assert "splitting" in applicable_laws(distance, on="measures")
    assert "splitting" not in applicable_laws(distance, on="measures", equal_sizes=True)


def test_errors_of_large_sets_and_of_tiny_weights_are_found():
    def of_large_sets(x, y):
        return empirical.wasserstein(x, y) * (1 + (len(x) > 8))

    check_laws(of_large_sets, on="points", laws=["symmetry"], max_examples=20)
    with pytest.raises(LawViolation):
        check_laws(of_large_sets, on="points", laws=["symmetry"], max_points=20, shrink=False)

    def without_tiny_weights(x, y, p, a, b):
        a, b = (np.where(w > 1e-3, w, 0) for w in (a, b))
        return empirical.wasserstein(x, y, p, a=a / a.sum(), b=b / b.sum())

    with pytest.raises(LawViolation):
        check_laws(without_tiny_weights, on="measures", laws=["bounds"], max_examples=300, shrink=False)


def test_any_name_may_be_that_of_weights():
    check_laws(otkit.wasserstein, on="measures", laws=["symmetry"], max_examples=5)
    with pytest.raises(TypeError, match="w2 has no parameters a and b"):
        check_laws(w2, on="measures", laws=["symmetry"], max_examples=5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_laws(w2, on="matrices"), ValueError, "on is 'matrices'; expected one of points, line"),
        (lambda: check_laws(w2, on="gaussians", laws="symmetry"), TypeError, "laws is 'symmetry', one name"),
        (lambda: check_laws(w2, on="gaussians", laws=["splitting"]), ValueError, "laws 'splitting'; expected some of"),
        (lambda: find_violation(zero, "symetry", on="points"), ValueError, "law is 'symetry'; expected one of"),
        (lambda: find_violation(w2, "splitting", on="gaussians"), ValueError, "law is 'splitting'; expected one of"),
        (lambda: find_violation(zero, "symmetry", on="matrices"), ValueError, "on is 'matrices'; expected one of"),
        (lambda: check_symmetry(zero, (x, y), y), ValueError, "expected points .n, d. with weights"),
        (lambda: check_symmetry(zero, (x,), y), ValueError, "x is a tuple of 1"),
        (lambda: check_symmetry(zero, x, np.zeros((2, 2, 2))), ValueError, r"y has shape \(2, 2, 2\)"),
        (lambda: check_symmetry(zero, (x, np.ones(5) / 5), y), TypeError, "zero has no parameters a and b"),
        (lambda: check_symmetry(w2, (x[0], np.eye(2)), y), TypeError, "a Gaussian beside points"),
        (lambda: check_identity(lambda x, y: np.zeros(2), x), TypeError, r"returned an array of shape \(2,\)"),
        (lambda: check_monotone_in_p(zero, x, y), TypeError, "zero has no parameter p"),
        (lambda: check_gelbrich_bound(zero, x, y, p=1), ValueError, "p is 1; the bound holds for p >= 2"),
        (lambda: check_convexity(zero, x, y, x[:3], y), ValueError, "5 and 3 points"),
        (
            lambda: check_marginals(np.eye(2) / 2, [0.5], [0.5, 0.5]),
            ValueError,
            r"plan has shape \(2, 2\), a \(1,\) and b",
        ),
        (lambda: check_marginals(np.eye(2), np.ones(2), np.ones((1, 2))), ValueError, r"b \(1, 2\); expected \(n, m\)"),
        (
            lambda: check_dual_feasibility([0, 0], [0, 0], np.ones((1, 2))),
            ValueError,
            r"M has shape \(1, 2\), f \(2,\)",
        ),
        (lambda: check_bounds(w2, normal, normal, p=1), ValueError, "p is 1; between Gaussians the law of bounds is"),
        (lambda: check_gelbrich_bound(w2, normal, normal, p=3), ValueError, "p is 3; between Gaussians"),
        (lambda: check_convexity(w2, *[normal] * 4, p=1), ValueError, "p is 1; between Gaussians"),
        (lambda: check_talagrand(w2, normal, p=3), ValueError, "p is 3; between Gaussians"),
        (lambda: find_violation(w2, "known answers", on="gaussians", p=1), ValueError, "law is 'known answers'"),
        (lambda: check_laws(3), TypeError, "distance is 3 of type int; expected a function"),
        (lambda: check_identity(lambda x, y: None, x), TypeError, "<lambda> returned None of type NoneType; expected"),
        (lambda: check_laws(zero, max_points=0), ValueError, "max_points is 0"),
        (lambda: check_talagrand(zero, x), TypeError, "x is a set of points"),
        (
            lambda: check_gradient_in_weights(empirical.wasserstein, x, weighted, [1.0], weighted[1]),
            TypeError,
            "x and y are not both points with weights",
        ),
        (
            lambda: check_gradient_in_weights(empirical.wasserstein, weighted, weighted, weighted[1], [0.5, 0.5]),
            ValueError,
            r"b has shape \(2,\) and sum 1; expected \(5,\) and 1 as the weights have",
        ),
        (
            lambda: check_gradient_in_weights(empirical.wasserstein, weighted, weighted, np.full(5, 0.3), weighted[1]),
            ValueError,
            r"a has shape \(5,\) and sum 1.5; expected \(5,\) and 1",
        ),
    ],
)
def test_misuse_says_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
