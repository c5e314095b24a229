"""Covariances, reg and squared lengths times s: results, and their gradients, are times powers of s, at any scale."""

import functools

import numpy as np
import pytest
import torch

from otkit import gaussian
from tests.otkit.random_inputs import spd

SCALES = [-990, -660, -330, 330, 660, 990]
"""Exponents of two, from 1e-298 to 1e298; even, so that also roots scale without rounding."""


def gaussians(d):
    locs = np.random.default_rng(1).normal(size=(2, d))
    cov1, cov2 = spd(2, d)
    return {"loc1": locs[0], "cov1": cov1, "loc2": locs[1], "cov2": cov2}


def mixtures(d, *, weights):
    locs, covs = np.random.default_rng(1).normal(size=(2, 3, d)), spd(2, 3, d)
    w = np.array([0.2, 0.3, 0.5])
    return {
        f"{name}{k + 1}": part
        for k in range(2)
        for name, part in [*[("weights", w)] * weights, ("locs", locs[k]), ("covs", covs[k])]
    }


def samples(d):
    x, y = np.random.default_rng(2).normal(size=(2, 9, d))
    return {"x": x, "y": y @ spd(d)}


def factors(d):
    given = gaussians(d)
    return {name.replace("cov", "factor"): part for name, part in given.items()}


def scales(d):
    locs, (scale1, scale2) = np.random.default_rng(1).normal(size=(2, d)), np.arange(1.0, 2 * d + 1).reshape(2, d)
    return {"loc1": locs[0], "scale1": scale1, "loc2": locs[1], "scale2": scale2}


# Arguments and the powers of s of the results.
CALLS = {
    "w2_squared": (gaussian.w2_squared, gaussians, [1]),
    "w2": (gaussian.w2, gaussians, [0.5]),
    "w2_squared by trace": (functools.partial(gaussian.w2_squared, method="trace"), gaussians, [1]),
    "w2_squared_from_factors": (gaussian.w2_squared_from_factors, factors, [1]),
    "w2_squared_diagonal": (gaussian.w2_squared_diagonal, scales, [1]),
    "transport_map": (gaussian.transport_map, gaussians, [0, 0.5]),
    "geodesic": (gaussian.geodesic, lambda d: {**gaussians(d), "t": np.array(0.3)}, [0.5, 1]),
    "entropic_cost": (gaussian.entropic_cost, gaussians, [1]),
    "sinkhorn_divergence": (gaussian.sinkhorn_divergence, gaussians, [1]),
    "barycenter": (
        gaussian.barycenter,
        lambda d: {"locs": np.ones((3, d)), "covs": spd(3, d), "weights": np.array([0.2, 0.3, 0.5])},
        [0.5, 1],
    ),
    "mixture_w2_squared": (gaussian.mixture_w2_squared, lambda d: mixtures(d, weights=True), [1]),
    "mixture_w2": (gaussian.mixture_w2, lambda d: mixtures(d, weights=True), [0.5]),
    "mixture_plan": (gaussian.mixture_plan, lambda d: mixtures(d, weights=True), [0]),
    "pairwise_w2_squared": (gaussian.pairwise_w2_squared, lambda d: mixtures(d, weights=False), [1]),
    "pairwise_w2": (gaussian.pairwise_w2, lambda d: mixtures(d, weights=False), [0.5]),
    "fit": (gaussian.fit, lambda d: {"x": samples(d)["x"]}, [0.5, 1]),
    "frechet_distance": (gaussian.frechet_distance, samples, [1]),
}


def power_of(name):
    return 1 if name.startswith("cov") else 0 if name.startswith("weights") or name == "t" else 0.5


def options_of(call, s):
    return {"reg": 0.5 * s} if call in ("entropic_cost", "sinkhorn_divergence") else {}


def results(call, d, s):
    """The results over their powers of s, each with its gradients in all arguments over theirs."""
    function, arguments, powers = CALLS[call]
    given = {k: torch.tensor(v * s ** power_of(k), requires_grad=True) for k, v in arguments(d).items()}
    out = function(**given, **options_of(call, s))
    for part, power in zip(out if isinstance(out, tuple) else (out,), powers, strict=True):
        yield part.detach().numpy() / s**power
        if part.requires_grad:
            total = (part * torch.linspace(1, 2, part.numel()).reshape(part.shape)).sum()
            gradients = torch.autograd.grad(total, list(given.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(given, gradients, strict=True):
                if gradient is not None:
                    yield gradient.numpy() / s ** (power - power_of(name))


def test_no_public_function_is_left_out():
    assert set(gaussian.__all__) == set(CALLS) - {"w2_squared by trace"}


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("call", CALLS)
def test_values_and_gradients_scale(call, d):
    ordinary = list(results(call, d, 1.0))
    assert all(np.isfinite(part).all() for part in ordinary)
    for exponent in SCALES:
        for here, there in zip(ordinary, results(call, d, 2.0**exponent), strict=True):
            np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-11 * np.abs(here).max(), err_msg=f"{exponent}")


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("call", [call for call in CALLS if call != "mixture_plan"])
def test_a_gradient_is_the_same_where_no_other_argument_has_one(call, d):
    function, arguments, _ = CALLS[call]
    given = {name: torch.tensor(value) for name, value in arguments(d).items()}

    def gradients(*names):
        inputs = {name: given[name].clone().requires_grad_() for name in names}
        out = function(**given | inputs, **options_of(call, 1.0))
        total = sum(part.square().sum() for part in (out if isinstance(out, tuple) else (out,)))
        return torch.autograd.grad(total, list(inputs.values()))

    for name, expected in zip(given, gradients(*given), strict=True):
        torch.testing.assert_close(gradients(name)[0], expected, rtol=1e-9, atol=1e-11)
