"""One list of what can be wrong with an argument, run over every public function of otkit.gaussian and otkit.linalg."""

import inspect
import math
import re

import numpy as np
import pytest
import torch

from otkit import gaussian, linalg

d, K = 3, 2
LOC, COV = np.zeros(d), 2 * np.eye(d)
LOCS, COVS = np.zeros((K, d)), np.stack([COV] * K)
WEIGHTS = np.full(K, 1 / K)
GAUSSIANS = {"loc1": LOC, "cov1": COV, "loc2": LOC + 1, "cov2": np.eye(d)}
LISTS = {"locs1": LOCS, "covs1": COVS, "locs2": LOCS, "covs2": COVS}
MIXTURES = {"weights1": WEIGHTS, "locs1": LOCS, "covs1": COVS, "weights2": WEIGHTS, "locs2": LOCS, "covs2": COVS}
SAMPLES = np.random.default_rng(0).normal(size=(5, d))

CALLS = {
    "sqrtm": (linalg.sqrtm, {"A": COV}, {}),
    "inv_sqrtm": (linalg.inv_sqrtm, {"A": COV}, {}),
    "polar": (linalg.polar, {"M": COV}, {}),
    "w2": (gaussian.w2, GAUSSIANS, {}),
    "w2_squared": (gaussian.w2_squared, GAUSSIANS, {}),
    "w2_squared by trace": (gaussian.w2_squared, GAUSSIANS, {"method": "trace"}),
    "w2_squared_from_factors": (
        gaussian.w2_squared_from_factors,
        {"loc1": LOC, "factor1": COV, "loc2": LOC, "factor2": COV},
        {},
    ),
    "w2_squared_diagonal": (
        gaussian.w2_squared_diagonal,
        {"loc1": LOC, "scale1": LOC + 1, "loc2": LOC, "scale2": LOC + 2},
        {},
    ),
    "transport_map": (gaussian.transport_map, GAUSSIANS, {}),
    "geodesic": (gaussian.geodesic, {**GAUSSIANS, "t": np.array(0.5)}, {}),
    "entropic_cost": (gaussian.entropic_cost, GAUSSIANS, {"reg": 0.5}),
    "sinkhorn_divergence": (gaussian.sinkhorn_divergence, GAUSSIANS, {"reg": 0.5}),
    "barycenter": (gaussian.barycenter, {"locs": LOCS, "covs": COVS, "weights": WEIGHTS}, {}),
    "mixture_w2": (gaussian.mixture_w2, MIXTURES, {}),
    "mixture_w2_squared": (gaussian.mixture_w2_squared, MIXTURES, {}),
    "mixture_plan": (gaussian.mixture_plan, MIXTURES, {}),
    "pairwise_w2": (gaussian.pairwise_w2, LISTS, {}),
    "pairwise_w2_squared": (gaussian.pairwise_w2_squared, LISTS, {}),
    "fit": (gaussian.fit, {"x": SAMPLES}, {}),
    "frechet_distance": (gaussian.frechet_distance, {"x": SAMPLES, "y": SAMPLES + 1}, {}),
}

ARGUMENTS = [(call, name) for call, (_, arguments, _) in CALLS.items() for name in arguments]
COVARIANCES = [(call, name) for call, name in ARGUMENTS if name.startswith("cov") or name == "A"]
SQUARE = [*COVARIANCES, ("polar", "M")]
SECOND = [(call, name) for call, name in COVARIANCES if name.endswith("2")]
MEANS = [(call, name) for call, name in ARGUMENTS if name.startswith("loc")]
PROBABILITIES = [(call, name) for call, name in ARGUMENTS if name.startswith("weights")]
LISTED = [(call, name) for call, name in ARGUMENTS if name.startswith(("locs", "weights"))]
TWO = [call for call, (_, arguments, _) in CALLS.items() if len(arguments) > 1]
FIRST_AND_ANOTHER = [(call, name) for call in TWO for name in list(CALLS[call][1])[1:]]


def refused(call, changes, error, message):
    function, arguments, options = CALLS[call]
    with pytest.raises(error, match=message):
        function(**{**arguments, **changes}, **options)


def default(call, name):
    return CALLS[call][1][name]


def test_no_public_function_is_left_out():
    public = {name for module in (gaussian, linalg) for name in module.__all__}
    assert public == {call.split()[0] for call in CALLS}
    for call, (function, arguments, options) in CALLS.items():
        arrays = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.KEYWORD_ONLY]
        assert set(arrays) == set(arguments), call
        assert np.isfinite(np.concatenate([np.ravel(part) for part in _parts(function(**arguments, **options))])).all()


def _parts(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("call", "name"), SQUARE)
def test_not_square(call, name):
    for bad in (default(call, name)[..., :-1], np.zeros(d)):
        message = rf"{name} has shape {re.escape(str(bad.shape))}; expected .*square"
        refused(call, {name: bad}, ValueError, message)


@pytest.mark.parametrize(("call", "name"), COVARIANCES)
def test_asymmetric_beyond_rounding(call, name):
    bad = default(call, name) + np.triu(np.full((d, d), 1e-9), 1)
    refused(call, {name: bad}, ValueError, rf"{name} must be symmetric; got .*1e-09, where rounding allows")


@pytest.mark.parametrize(("call", "name"), COVARIANCES)
def test_indefinite_beyond_rounding_and_by_how_much(call, name):
    bad = default(call, name) - np.diag([0, 0, 2.5])
    least = default(call, name).min() + (default(call, name)[..., -1, -1].max() - 2.5)
    message = rf"{name} must be positive semidefinite; got a smallest eigenvalue of {least:g}"
    refused(call, {name: bad}, ValueError, message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("call", "name"), COVARIANCES)
def test_few_digits_excuse_no_more_than_half_of_them(call, name, dtype):
    """In many dimensions too, where the roundings of all of them would excuse anything in half precision."""
    n = 40
    few = {key: torch.from_numpy(np.asarray(value)).to(dtype) for key, value in CALLS[call][1].items()}
    wide = {key: value if value.ndim == 0 or key[:7] == "weights" else _wider(value, n) for key, value in few.items()}
    bad = wide[name].clone()
    bad[..., 0, 1] += 1.0
    refused(call, {**wide, name: bad}, ValueError, f"{name} must be symmetric")
    bad[..., 1, 0] += 1.0
    bad[..., 0, 1] += 1.5  # with 2 or 1 on the diagonal
    bad[..., 1, 0] += 1.5
    refused(call, {**wide, name: bad}, ValueError, f"{name} must be positive semidefinite")
    # What rounding to the dtype does to a covariance of rank 3 is none of that.
    F = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)))
    cov = (F @ F.mT).to(dtype).expand_as(wide[name])
    function, _, options = CALLS[call]
    if call not in ("transport_map", "barycenter"):  # these ask more of a singular one
        function(**{**wide, name: cov}, **options)


def _wider(value, n):
    """Means with zeros, covariances with ones on the diagonal, added up to n dimensions."""
    wide = value.new_zeros(*value.shape[:-1], n)
    if value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
        wide = torch.eye(n, dtype=value.dtype).expand(*value.shape[:-2], n, n).clone()
        wide[..., :d, :d] = value
        return wide
    wide[..., :d] = value
    return wide


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_nan_or_infinite(call, name, value):
    bad = default(call, name).copy()
    bad[(-1,) * bad.ndim if bad.ndim else ...] = value
    refused(call, {name: bad}, ValueError, rf"{name} must be finite; got 1 entries that are NaN or infinite")


@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_what_is_not_finite_is_named_by_its_own_index(call, name, batch):
    value = default(call, name)
    bad = np.broadcast_to(value, (*batch, *value.shape)).copy()
    index = tuple(size - 1 for size in bad.shape)
    bad[index] = np.nan
    refused(call, {name: bad}, ValueError, re.escape(f"the first nan at index {index}"))


@pytest.mark.parametrize("bad", ["asymmetric", "indefinite"])
@pytest.mark.parametrize(("call", "name"), COVARIANCES)
def test_the_matrix_of_a_batch_is_named(call, name, bad):
    value = default(call, name)
    covs = np.broadcast_to(value, (2, 3, *value.shape)).copy()
    index = (1, 2, *(size - 1 for size in value.shape[:-2]))
    covs[(*index, 0, 1)] = 1.0
    if bad == "indefinite":
        covs[(*index, 1, 0)], covs[(*index, 0, 0)] = 1.0, -1.0
    refused(call, {name: covs}, ValueError, re.escape(f", in matrix {index} of the batch"))


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_integers(call, name):
    bad = default(call, name).astype(int)
    refused(call, {name: bad}, TypeError, rf"{name} has dtype int64; expected float64 or float32")
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in CALLS[call][1].items()}
    refused(call, {**tensors, name: torch.from_numpy(bad)}, TypeError, rf"{name} has dtype torch.int64")


@pytest.mark.parametrize("call", TWO)
def test_mixed_kinds_dtypes_and_devices(call):
    arguments = CALLS[call][1]
    name = list(arguments)[-1]
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in arguments.items()}
    refused(call, {name: tensors[name]}, TypeError, rf"arrays of one kind expected, .*{name}: torch")
    refused(call, {name: arguments[name].astype(np.float32)}, TypeError, rf"{name} has dtype torch.float32 but")
    refused(call, {**tensors, name: tensors[name].to("meta")}, TypeError, rf"{name} has device meta but")


@pytest.mark.parametrize(("call", "other"), FIRST_AND_ANOTHER)
def test_batches_that_do_not_broadcast(call, other):
    first = next(iter(CALLS[call][1]))
    bad = {
        name: np.broadcast_to(default(call, name), (n, *default(call, name).shape)).copy()
        for name, n in ((first, 2), (other, 3))
    }
    refused(call, bad, ValueError, rf"batch shapes do not broadcast; got (?=.*\b{first}: )(?=.*\b{other}: )")


@pytest.mark.parametrize(("call", "name"), MEANS)
def test_dimensions_that_do_not_match(call, name):
    bad = default(call, name)[..., :-1]
    message = "factor1 has shape" if (call, name) == ("w2_squared_from_factors", "loc1") else f"{name} has shape"
    message = "scale1 has shape" if (call, name) == ("w2_squared_diagonal", "loc1") else message
    refused(call, {name: bad}, ValueError, message)


@pytest.mark.parametrize(("call", "name"), SECOND)
def test_two_spaces(call, name):
    loc = name.replace("cov", "loc")
    bad = {loc: default(call, loc)[..., :-1], name: default(call, name)[..., :-1, :-1]}
    refused(call, bad, ValueError, rf"{name} has shape .*, a Gaussian in 2 dimensions; expected 3, as cov")


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, name in COVARIANCES if name.startswith("covs")])
def test_covariances_that_are_no_list(call, name):
    refused(call, {name: COV}, ValueError, rf"{name} has shape \(3, 3\); expected a list of covariances")


@pytest.mark.parametrize(("call", "name"), LISTED)
def test_lists_of_another_length_and_no_lists(call, name):
    expected = r"\(\.\.\., 2, 3\)" if name.startswith("locs") else r"\(\.\.\., 2\)"
    for bad in (default(call, name)[:1], default(call, name)[0]):
        message = rf"{name} has shape {re.escape(str(bad.shape))}; expected {expected}, as covs"
        refused(call, {name: bad}, ValueError, message)


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_texts(call, name):
    refused(call, {name: "a"}, TypeError, f"{name} is a str that does not convert to an array of numbers")


@pytest.mark.parametrize(("call", "name"), PROBABILITIES)
def test_weights_that_do_not_sum_to_one_or_are_negative(call, name):
    refused(call, {name: WEIGHTS * 1.001}, ValueError, rf"{name} must sum to one; got 1.001")
    refused(call, {name: np.array([1.5, -0.5])}, ValueError, rf"{name} must not be negative; got -0.5")


@pytest.mark.parametrize("exponent", [-150, -140, 140, 150])
@pytest.mark.parametrize("call", CALLS)
def test_extreme_scales(call, exponent):
    """Covariances of size 10^exponent, lengths of its root: results are powers of that, and no gradient is NaN."""
    function, arguments, options = CALLS[call]
    unit = 10.0**exponent
    powers = {name: 1 if name[:3] == "cov" or name == "A" else 0.5 for name in arguments}
    powers |= {name: 0 for name in arguments if name.startswith("weights") or name == "t"}
    scaled = {name: value * unit ** powers[name] for name, value in arguments.items()}
    if "reg" in options:
        options = {"reg": options["reg"] * unit}
    ordinary = _parts(function(**arguments, **CALLS[call][2]))
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in scaled.items()}
    extreme = _parts(function(**tensors, **options))
    for here, there in zip(ordinary, extreme, strict=True):
        there = there.detach().numpy()
        assert not np.isnan(there).any()
        most = np.abs(here).max()
        if most > 1e-9:
            power = round(2 * math.log10(np.abs(there).max() / most) / exponent) / 2
            np.testing.assert_allclose(there / unit**power, here, rtol=1e-8, atol=1e-10)
    total = sum(part.sum() for part in extreme)
    if total.requires_grad:
        for grad in torch.autograd.grad(total, list(tensors.values()), allow_unused=True):
            assert grad is None or not grad.isnan().any()
