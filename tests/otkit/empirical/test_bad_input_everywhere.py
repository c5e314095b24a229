"""One list of what can be wrong with an argument, run over every public function of otkit.empirical."""

import inspect
import re

import numpy as np
import pytest
import torch

from otkit import empirical

X, Y = np.random.default_rng(0).normal(size=(2, 5, 2))
X, A, B = X[:4], np.full(4, 1 / 4), np.full(5, 1 / 5)
PLANE, LINE = {"x": X, "y": Y, "a": A, "b": B}, {"x": X[:, 0], "y": Y[:, 0], "a": A, "b": B}
ENTROPIC, NORMAL = {**PLANE, "reg": 0.5}, ("x", "a")
COSTS = {"M": np.abs(X[:, None, 0] - Y[:, 0]), "a": A, "b": B}

CALLS = {
    "transport_cost": PLANE,
    "wasserstein": PLANE,
    "transport_cost_1d": LINE,
    "wasserstein_1d": LINE,
    "transport_cost_1d_to_normal": {name: LINE[name] for name in NORMAL},
    "wasserstein_1d_to_normal": {name: LINE[name] for name in NORMAL},
    "sliced_cost": PLANE,
    "sliced_wasserstein": PLANE,
    "sliced_cost_to_normal": {name: PLANE[name] for name in NORMAL},
    "sliced_wasserstein_to_normal": {name: PLANE[name] for name in NORMAL},
    "max_sliced_cost": PLANE,
    "max_sliced_wasserstein": PLANE,
    "sinkhorn_cost": ENTROPIC,
    "sinkhorn_divergence": ENTROPIC,
    "solve": ENTROPIC,
    "solve exactly": PLANE,
    "solve_matrix": {**COSTS, "reg": 0.5},
    "solve_matrix exactly": COSTS,
}


def function(call):
    return getattr(empirical, call.split()[0])


POINTS = [(call, name) for call, arguments in CALLS.items() for name in arguments if name in "xyM"]
WEIGHTS = [(call, name) for call, arguments in CALLS.items() for name in arguments if name in "ab"]
PAIRS = [call for call, arguments in CALLS.items() if "b" in arguments]
PLANAR = [call for call, arguments in CALLS.items() if "y" in arguments and arguments["x"].ndim == 2]
POWERS = [call for call in CALLS if "p" in inspect.signature(function(call)).parameters]
REGULARISED = [call for call, arguments in CALLS.items() if "reg" in arguments]


def refused(call, changes, error, message):
    with pytest.raises(error, match=message):
        function(call)(**{**CALLS[call], **changes})


def test_no_public_function_is_left_out():
    assert {call.split()[0] for call in CALLS} == set(empirical.__all__) - {"Estimate", "Transport"}
    for call, arguments in CALLS.items():
        result = function(call)(**arguments)
        assert np.isfinite(getattr(result, "cost", result)), call


@pytest.mark.parametrize(("call", "name"), POINTS)
def test_empty_sets(call, name):
    refused(call, {name: CALLS[call][name][:0]}, ValueError, rf"{name} has shape \(0.*; expected .*n >= 1")


@pytest.mark.parametrize(("call", "name"), POINTS)
def test_no_points_at_all(call, name):
    refused(call, {name: np.array(1.0)}, ValueError, rf"{name} has shape \(\); expected")


@pytest.mark.parametrize("call", PAIRS)
@pytest.mark.parametrize(("dtype", "excess"), [(torch.float32, 9e-4), (torch.float16, 0.9), (torch.bfloat16, 0.9)])
def test_few_digits_excuse_no_other_mass(call, dtype, excess):
    """Not with many points either; what rounding alone does to weights of sum one is excused."""
    n = 600
    arguments = {}
    for key, value in CALLS[call].items():
        tensor = torch.as_tensor(value, dtype=dtype)
        if key in "xyM" and tensor.ndim:
            tensor = tensor[0].expand(n, *tensor.shape[1:]) if key != "M" else torch.zeros(n, n, dtype=dtype)
        arguments[key] = torch.full((n,), 1 / n, dtype=dtype) if key in "ab" else value if key == "reg" else tensor
    heavy = torch.full((n,), (1 + excess) / n, dtype=dtype)
    refused(call, {**arguments, "b": heavy}, ValueError, "a and b must have the same sum")
    uneven = torch.from_numpy(np.random.default_rng(0).random(n))
    function(call)(**{**arguments, "b": (uneven / uneven.sum()).to(dtype)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("call", "name"), [*POINTS, *WEIGHTS])
def test_nan_or_infinite(call, name, value):
    bad = CALLS[call][name].copy()
    bad.flat[-1] = value
    refused(call, {name: bad}, ValueError, rf"{name} must be finite; got 1 entries that are NaN or infinite")


@pytest.mark.parametrize(("call", "name"), [*POINTS, *WEIGHTS])
def test_what_is_not_finite_is_named_by_its_own_index(call, name):
    bad = CALLS[call][name].copy()
    bad.flat[-2] = np.nan
    index = tuple(int(i) for i in np.argwhere(np.isnan(bad))[0])
    refused(call, {name: bad}, ValueError, re.escape(f"the first nan at index {index}"))


@pytest.mark.parametrize(("call", "name"), POINTS)
def test_integers(call, name):
    bad = np.zeros(CALLS[call][name].shape, dtype=int)
    refused(call, {name: bad}, TypeError, rf"{name} has dtype int64; expected float64 or float32")


@pytest.mark.parametrize("call", [call for call, arguments in CALLS.items() if "y" in arguments])
def test_mixed_kinds_and_dtypes(call):
    refused(call, {"y": CALLS[call]["y"].astype(np.float32)}, TypeError, "y has dtype torch.float32 but x has dtype")
    refused(call, {"y": torch.from_numpy(CALLS[call]["y"])}, TypeError, "arrays of one kind expected, .*y: torch")


@pytest.mark.parametrize("call", PLANAR)
def test_dimensions_that_do_not_match(call):
    refused(call, {"y": Y[:, :1]}, ValueError, "y has shape .*, points in 1 dimensions; expected 2, as x")


@pytest.mark.parametrize(("call", "name"), WEIGHTS)
def test_negative_weights(call, name):
    bad = CALLS[call][name].copy()
    bad[:2] = bad[0] + 0.5, bad[0] - 0.5
    refused(call, {name: bad}, ValueError, rf"{name} must not be negative; got a smallest weight of -0\.[23]")


@pytest.mark.parametrize(("call", "name"), WEIGHTS)
def test_weights_of_another_number(call, name):
    refused(call, {name: np.full(3, 1 / 3)}, ValueError, rf"{name} has shape \(3,\); expected \(\.\.\., [45]\)")


@pytest.mark.parametrize("call", PAIRS)
def test_sums_that_differ_are_both_said(call):
    refused(call, {"a": 1.01 * A}, ValueError, "a and b must have the same sum; got 1.01 for a and 1 for b")


@pytest.mark.parametrize("call", CALLS)
def test_weights_that_are_all_zero(call):
    zero = {name: 0 * CALLS[call][name] for name in "ab" if name in CALLS[call]}
    refused(call, zero, ValueError, "a has weights that are all zero; expected a positive sum")


@pytest.mark.parametrize("p", [0.5, 0, -1, np.inf, np.nan])
@pytest.mark.parametrize("call", POWERS)
def test_powers_that_are_none(call, p):
    refused(call, {"p": p}, ValueError, rf"p is {p}; expected 1 <= p < inf")


@pytest.mark.parametrize("call", POWERS)
def test_powers_that_are_no_numbers(call):
    refused(call, {"p": "2"}, TypeError, "p is '2' of type str; expected a number")


@pytest.mark.parametrize("reg", [0, -1, np.inf, np.nan])
@pytest.mark.parametrize("call", REGULARISED)
def test_no_regularisation(call, reg):
    refused(call, {"reg": reg}, ValueError, rf"reg is {reg}; expected a finite number > 0")


@pytest.mark.parametrize("call", REGULARISED)
def test_regularisations_that_are_no_numbers(call):
    refused(call, {"reg": "1"}, TypeError, "reg is '1' of type str; expected a number")


@pytest.mark.parametrize("call", REGULARISED)
def test_so_little_regularisation_that_nothing_could_converge(call):
    refused(
        call, {"reg": 1e-30}, ValueError, "reg is 1e-30 beside a largest cost of .*; expected a reg that is not lost"
    )


@pytest.mark.parametrize("call", CALLS)
def test_zero_weights_and_duplicate_points_are_legal(call):
    arguments = {name: part.copy() if isinstance(part, np.ndarray) else part for name, part in CALLS[call].items()}
    for name in POINT_NAMES & arguments.keys():
        arguments[name][1] = arguments[name][0]
    arguments["a"] = np.array([0.5, 0.0, 0.25, 0.25])
    result = function(call)(**arguments)
    assert np.isfinite(getattr(result, "cost", result))


POINT_NAMES = {"x", "y", "M"}
