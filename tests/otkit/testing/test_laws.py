"""The laws tell wrong distances, say how, and are called as their users' functions are."""

import pickle

import numpy as np
import ot
import pytest
import torch

import otkit
from otkit import empirical, gaussian
from otkit.testing import (
    LAWS,
    Gaussian,
    LawViolation,
    Measure,
    Problem,
    applicable_laws,
    check_bounds,
    check_convexity,
    check_dual_feasibility,
    check_gelbrich_bound,
    check_gradient,
    check_gradient_in_weights,
    check_identity,
    check_laws,
    check_marginals,
    check_monotone_in_p,
    check_problem,
    check_scaling,
    check_symmetry,
    check_talagrand,
    check_triangle_inequality,
    find_violation,
)
from tests.otkit.testing import wrong_distances
from tests.otkit.testing.wrong_distances import WRONG

rng = np.random.default_rng(0)
x, y, z = rng.normal(size=(3, 5, 2))
weighted = x, np.full(5, 0.2)


# What the laws find


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_distance_breaks_its_laws(wrong):
    options = {name: value for name, value in wrong.options.items() if name not in ("batched", "differentiable")}
    for law in wrong.breaks:
        violation = find_violation(wrong.distance, law, on=wrong.on, max_examples=500, shrink=False, **options)
        assert violation is not None, law
        assert violation.law == law
        assert violation.excess > violation.tolerance


def test_every_example_is_scaled_to_both_ends():
    # A search that draws the scale may leave one end out, and with it an error that does not scale.
    traces = set()

    def w2(loc1, cov1, loc2, cov2):
        traces.add(float(np.trace(cov1)))
        return gaussian.w2(loc1, cov1, loc2, cov2)

    assert find_violation(w2, "scaling", on="gaussians", dimensions=[1], max_examples=1) is None
    assert max(traces) > 1e11 * min(traces)


def test_every_example_is_scaled_to_the_other_side_too():
    def of_positive_parts(x, y):
        return empirical.wasserstein(np.maximum(x, 0), np.maximum(y, 0))

    violation = find_violation(of_positive_parts, "scaling", on="points", shrink=False)
    assert violation is not None
    assert violation.inputs["s"] == -1


def test_near_measures_are_among_the_examples():
    def blind(x, y):
        value = empirical.wasserstein(x, y)
        return value if value > 1e-3 or x.sum() > y.sum() else 0.0

    assert find_violation(blind, "symmetry", on="points", max_examples=300, shrink=False) is not None


def test_no_more_examples_are_tried_than_asked_for():
    tried = []

    def distance(x, y):
        tried.append(x)
        return 0.0

    assert find_violation(distance, "identity", on="points", max_examples=7) is None
    assert len(tried) == 7


def test_every_law_is_broken_by_a_wrong_distance():
    assert {law for wrong in WRONG for law in wrong.breaks} == set(LAWS)
    listed = {wrong.distance.__name__ for wrong in WRONG}
    defined = {n for n, f in vars(wrong_distances).items() if callable(f) and f.__module__ == wrong_distances.__name__}
    assert listed == {name for name in defined if not name.startswith("_")} - {"Wrong"}


# What they say


def test_the_message_has_all_that_repeats_it():
    with pytest.raises(LawViolation) as caught:
        check_laws(wrong_distances.squared_instead_of_root, on="points", laws=["scaling"])
    message = str(caught.value)
    assert message.startswith("squared_instead_of_root breaks the law of scaling: W(s x, s y) = |s| W(x, y)")
    for part in ("left side", "right side", "off by", "16 units", "a unit is the rounding of the data", "s = "):
        assert part in message
    shown = message[message.index("with\n") + 5 :]
    inputs = {}
    exec("\n".join(line.strip() for line in shown.splitlines()), {"np": np}, inputs)
    with pytest.raises(LawViolation) as again:
        check_scaling(wrong_distances.squared_instead_of_root, inputs["x"], inputs["y"], inputs["s"])
    assert str(again.value) == message


def test_a_counterexample_is_small():
    violation = find_violation(wrong_distances.zero, "bounds", on="points")
    assert violation is not None
    assert violation.inputs["x"].shape == violation.inputs["y"].shape == (1, 1)
    assert sorted([*violation.inputs["x"].flat, *violation.inputs["y"].flat]) in ([0.0, 1.0], [-1.0, 0.0])


def test_the_other_broken_laws_are_noted():
    with pytest.raises(LawViolation) as caught:
        check_laws(wrong_distances.zero, on="points", laws=["bounds", "symmetry", "Gelbrich bound"])
    assert caught.value.law == "bounds"
    assert caught.value.__notes__ == ["It also breaks: Gelbrich bound."]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_what_is_no_distance_breaks_laws(bad):
    with pytest.raises(LawViolation):
        check_identity(lambda x, y: bad, x)


def test_an_infinite_distance_is_not_within_its_own_rounding():
    standard = Gaussian(np.zeros(1), 2 * np.eye(1))
    with pytest.raises(LawViolation, match="off by inf"):
        check_talagrand(lambda m1, C1, m2, C2: np.inf, standard)
    with pytest.raises(LawViolation, match="off by inf"):
        check_convexity(lambda x, y: np.inf if len(x) > 5 else 1.0, x, y, z, x)
    with pytest.raises(LawViolation, match="off by inf"):
        check_gradient(lambda x, y: np.inf + 0 * x.sum(), torch.as_tensor(x), torch.as_tensor(y), power=True)


def test_large_inputs_are_named_not_shown():
    with pytest.raises(LawViolation, match=r"x = <array of shape \(100, 2\), not shown>"):
        check_symmetry(lambda x, y: x.sum() - y.sum(), np.ones((100, 2)), np.zeros((3, 2)))


def test_an_error_of_the_distance_says_for_what():
    def fails(x, y):
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError) as caught:
        check_symmetry(fails, np.ones((1, 1)), np.zeros((1, 1)))
    assert caught.value.__notes__ == ["raised by fails for\n    x = np.array([[1.0]])\n    y = np.array([[0.0]])"]


# How they call


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


zero, w2, normal = wrong_distances.zero, gaussian.w2, Gaussian(np.zeros(2), np.eye(2))


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


# Problems, gradients, plans, potentials


def test_a_problem_is_checked_by_its_answer():
    problem = Problem(x, x + 1.0, 2, 2**0.5, "a translation")
    check_problem(empirical.wasserstein, problem)
    with pytest.raises(LawViolation, match=r"W\(x, y\) = the answer \(a translation\)"):
        check_problem(empirical.transport_cost, problem)


def test_the_gradient_of_a_power_has_its_degree():
    check_gradient(empirical.transport_cost, torch.as_tensor(x), torch.as_tensor(y), p=3, power=True)
    with pytest.raises(LawViolation, match="Euler"):
        check_gradient(lambda x, y: (x - y).square().sum(), torch.as_tensor(x), torch.as_tensor(y))


def test_gradients_are_granted_the_rounding_of_the_data_and_no_more():
    """Two points 1 apart, far from the origin: a cost by |x|² + |y|² - 2<x, y> has eps times their size to lose."""
    x, y = torch.tensor([[1e3]], dtype=torch.float64), torch.tensor([[1e3 + 1]], dtype=torch.float64)

    def off_by(error):
        def cost(x, y):
            return (x - y).square().sum() + error * x.sum() - error * x.sum().detach()

        return lambda: check_gradient(cost, x, y, power=True)

    off_by(1e-13)()
    with pytest.raises(LawViolation, match="breaks the law of gradient"):
        off_by(1e-9)()


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("power", [True, False])
def test_gradients_in_the_weights_are_subgradients_also_at_kinks_and_zero_weights(p, power):
    points = torch.as_tensor(x)
    exact = empirical.transport_cost if power else empirical.wasserstein

    def check(distance=exact, a=(1.0, 0.0, 0.0, 0.0, 0.0), b=(0.2, 0.2, 0.2, 0.2, 0.2)):
        first, second = ((cloud, torch.tensor(w, dtype=torch.float64)) for cloud, w in ((points, a), (points + 1, b)))
        other = np.array([0.0, 0.5, 0.0, 0.3, 0.2])
        for step in (1.0, 0.1, 0.01):
            others = [(1 - step) * np.array(w) + step * to for w, to in ((a, other), (b, other[::-1]))]
            check_gradient_in_weights(distance, first, second, *others, p=p, power=power)

    check()
    check(a=(0.2, 0.2, 0.2, 0.2, 0.2))
    check(a=(0.0, 0.5, 0.5, 0.0, 0.0), b=(0.0, 0.5, 0.5, 0.0, 0.0))
    check(lambda x, y, p, a, b: exact(x, y, p, a=a, b=b) + a.sum() - b.sum())  # a constant on each side
    for wrong in (
        lambda x, y, p, a, b: exact(x, y, p, a=a.detach(), b=b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=b.detach()),
        lambda x, y, p, a, b: exact(x, y, p, a=2 * a - a.detach(), b=b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=2 * b.detach() - b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=b) + 0 * torch.log(a).sum(),
    ):
        with pytest.raises(LawViolation, match="breaks the law of gradient in the weights"):
            check(wrong)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 0.0), (torch.float64, 5e-10)])
def test_other_weights_may_have_the_sum_but_for_rounding(dtype, off):
    """In float32 those of x sum to 1 + 1.5e-8, those of y to 1 + 3.7e-8."""
    points, a, b = (torch.tensor(part, dtype=dtype) for part in (x[:3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]))
    others = np.array([0.7, 0.2, 0.1]) * (1 + off), [0.1, 0.2, 0.7]
    check_gradient_in_weights(empirical.wasserstein, (points, a), (points + 1, b), *others)


def test_plans_and_potentials():
    a, b = np.full(5, 0.2), np.array([0.1, 0.2, 0.3, 0.4])
    M = ot.dist(x, y[:4])
    plan, log = ot.emd(a, b, M, log=True)
    check_marginals(plan, a, b)
    check_dual_feasibility(log["u"], log["v"], M, a=a, b=b, value=(plan * M).sum())
    with pytest.raises(LawViolation, match=r"\|P 1 - a\|_1 = 0"):
        check_marginals(plan * 1.001, a, b)
    with pytest.raises(LawViolation, match=r"\|P\^T 1 - b\|_1 = 0"):
        check_marginals(plan[:, ::-1], a, b)
    with pytest.raises(LawViolation, match="0 <= min P"):
        check_marginals(plan - 1e-9, a, b)
    check_marginals(plan * 1.001, a, b, tol=1e-2)
    with pytest.raises(LawViolation, match=r"f\[\d\] \+ g\[\d\] <= M\[\d, \d\]"):
        check_dual_feasibility(log["u"] + 1e-6, log["v"], M)
    with pytest.raises(LawViolation, match="= the value"):
        check_dual_feasibility(log["u"] - 1e-6, log["v"], M, a=a, b=b, value=(plan * M).sum())


def test_a_violation_is_an_assertion_with_its_parts():
    with pytest.raises(AssertionError) as caught:
        check_identity(lambda m1, C1, m2, C2: 1.0, Gaussian(np.zeros(1), np.eye(1)))
    violation = caught.value
    assert (violation.law, violation.left, violation.right, violation.excess) == ("identity", 1.0, 0.0, 1.0)
    assert "x = Gaussian(np.array([0.0]), np.array([[1.0]]))" in str(violation)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_violation_comes_back_from_another_process(protocol):
    violation = find_violation(wrong_distances.zero, "bounds", on="points", shrink=False)
    assert violation is not None
    violation.add_note("It also breaks: none.")
    again = pickle.loads(pickle.dumps(violation, protocol))
    assert (type(again), str(again), again.__notes__) == (LawViolation, str(violation), violation.__notes__)
    assert (again.law, again.excess, list(again.inputs)) == ("bounds", violation.excess, ["x", "y"])
