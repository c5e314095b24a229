"""With validate=False every function gives what it gives with it, to the last bit, and looks at no values."""

import inspect

import numpy as np
import pytest
import torch

from otkit import empirical, gaussian, linalg

rng = np.random.default_rng(0)
d, n, m, K = 2, 5, 4, 3
x, y, line = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(n, 1))
a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
(loc1, loc2), factors = rng.normal(size=(2, d)), rng.normal(size=(2, d, d))
cov1, cov2 = (F @ F.T for F in factors)
locs, covs = rng.normal(size=(K, d)), np.stack([cov1, cov2, np.eye(d)])
weights = np.array([0.5, 0.25, 0.25])
PAIR = (loc1, cov1, loc2, cov2)
MIXTURES = (weights, locs, covs, weights[::-1].copy(), locs + 1, covs)
POINTS = {"a": a, "b": b}
DIRECTIONS = np.eye(d)

CALLS = {
    linalg.sqrtm: ((cov1,), {}),
    linalg.inv_sqrtm: ((cov1,), {}),
    linalg.polar: ((factors[0],), {}),
    gaussian.w2_squared: (PAIR, {}),
    gaussian.w2: (PAIR, {}),
    gaussian.w2_squared_from_factors: ((loc1, factors[0], loc2, factors[1]), {}),
    gaussian.w2_squared_diagonal: ((loc1, abs(loc1), loc2, abs(loc2)), {}),
    gaussian.transport_map: (PAIR, {}),
    gaussian.geodesic: ((*PAIR, np.array(0.25)), {}),
    gaussian.barycenter: ((locs, covs, weights), {}),
    gaussian.entropic_cost: (PAIR, {"reg": 1.0}),
    gaussian.sinkhorn_divergence: (PAIR, {"reg": 1.0}),
    gaussian.mixture_w2: (MIXTURES, {}),
    gaussian.mixture_w2_squared: (MIXTURES, {}),
    gaussian.mixture_plan: (MIXTURES, {}),
    gaussian.fit: ((x,), {}),
    gaussian.frechet_distance: ((x, y), {}),
    gaussian.pairwise_w2: ((locs, covs), {}),
    gaussian.pairwise_w2_squared: ((locs, covs, locs[:2], covs[:2]), {}),
    empirical.transport_cost: ((x, y), POINTS),
    empirical.wasserstein: ((x, y), POINTS),
    empirical.sinkhorn_cost: ((x, y), {"reg": 1.0, **POINTS}),
    empirical.sinkhorn_divergence: ((x, y), {"reg": 1.0, **POINTS}),
    empirical.transport_cost_1d: ((line[:, 0], line[:4, 0] + 1), POINTS),
    empirical.wasserstein_1d: ((line[:, 0], line[:4, 0] + 1), POINTS),
    empirical.transport_cost_1d_to_normal: ((line[:, 0],), {"loc": np.array(0.5), "scale": np.array(2.0), "a": a}),
    empirical.wasserstein_1d_to_normal: ((line[:, 0],), {"loc": np.array(0.5), "scale": np.array(2.0), "a": a}),
    empirical.sliced_cost: ((x, y), {"projections": DIRECTIONS, **POINTS}),
    empirical.sliced_wasserstein: ((x, y), {"projections": DIRECTIONS, **POINTS}),
    empirical.sliced_cost_to_normal: ((x,), {"loc": loc1, "scale": abs(loc2), "projections": DIRECTIONS, "a": a}),
    empirical.sliced_wasserstein_to_normal: (
        (x,),
        {"loc": loc1, "scale": abs(loc2), "projections": DIRECTIONS, "a": a},
    ),
    empirical.max_sliced_cost: ((x, y), {"generator": 0, **POINTS}),
    empirical.max_sliced_wasserstein: ((x, y), {"generator": 0, **POINTS}),
    empirical.solve: ((x, y), POINTS),
    empirical.solve_matrix: ((np.abs(x[:, :1] - y[:, 0]), a, b), {}),
}


def numbers(result):
    """All arrays of a result, flat."""
    if isinstance(result, empirical.Transport):
        return [result.cost, result.value, result.plan, *result.potentials]
    return list(result) if isinstance(result, tuple) else [result]


def test_every_function_that_validates_is_here():
    public = [f for module in (linalg, gaussian, empirical) for f in vars(module).values() if inspect.isfunction(f)]
    assert {f for f in public if "validate" in inspect.signature(f).parameters} == set(CALLS)


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f"{f.__module__.split('.')[1]}.{f.__name__}")
def test_the_result_is_the_same(function):
    arguments, options = CALLS[function]
    checked, unchecked = (numbers(function(*arguments, **options, validate=v)) for v in (True, False))
    for one, other in zip(checked, unchecked, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()


@pytest.mark.parametrize(
    "function", [f for f in CALLS if f.__module__.startswith("otkit.gaussian")], ids=lambda f: f.__name__
)
def test_the_gradient_is_the_same(function):
    if function is gaussian.mixture_plan:
        pytest.skip("a constant")
    arguments, options = CALLS[function]
    found = []
    for validate in (True, False):
        tensors = [torch.tensor(part, requires_grad=True) for part in arguments]
        total = sum(part.square().sum() for part in numbers(function(*tensors, **options, validate=validate)))
        found.append(torch.autograd.grad(total, tensors, allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_trace_form_too():
    checked, unchecked = (gaussian.w2_squared(*PAIR, method="trace", validate=validate) for validate in (True, False))
    assert checked == unchecked == pytest.approx(gaussian.w2_squared(*PAIR), rel=1e-12)
