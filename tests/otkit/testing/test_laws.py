"""The laws tell wrong distances, and say how."""

import pickle

import numpy as np
import pytest
import torch

from otkit import empirical, gaussian
from otkit.testing import (
    LAWS,
    Gaussian,
    LawViolation,
    check_convexity,
    check_gradient,
    check_identity,
    check_laws,
    check_scaling,
    check_symmetry,
    check_talagrand,
    find_violation,
)
from tests.otkit.testing import wrong_distances
from tests.otkit.testing.wrong_distances import WRONG

x, y, z = np.random.default_rng(0).normal(size=(3, 5, 2))


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
