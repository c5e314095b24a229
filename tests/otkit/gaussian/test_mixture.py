import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from otkit import ConvergenceWarning
from otkit.empirical import transport_cost
from otkit.gaussian import _mixture, mixture_plan, mixture_w2, mixture_w2_squared, w2, w2_squared
from otkit.testing import gaussians, measures
from tests.otkit.random_inputs import spd

rng = np.random.default_rng(0)


def mixture(K, d, seed):
    generator = np.random.default_rng(seed)
    weights = generator.random(K) + 0.1
    return weights / weights.sum(), generator.normal(size=(K, d)), spd(K, d, seed=seed)


def tensors(*arrays):
    return [torch.tensor(array, requires_grad=True) for array in arrays]


@st.composite
def mixtures(draw, d):
    """Weights of zero and equal components among them."""
    components = draw(st.lists(gaussians(d, cond=100, singular=True), min_size=1, max_size=4))
    weights = np.array([draw(st.integers(0, 8)) for _ in components], dtype=float)
    weights[0] += 1
    locs, covs = (np.array(part) for part in zip(*components, strict=True))
    return weights / weights.sum(), locs, covs


def moments(weights, locs, covs):
    loc = weights @ locs
    centred = locs - loc
    return loc, np.einsum("k,kij->ij", weights, covs) + np.einsum("k,ki,kj->ij", weights, centred, centred)


# Known answers


def test_of_single_gaussians_it_is_w2():
    one = np.ones(1)
    m1, m2, C1, C2 = rng.normal(size=3), rng.normal(size=3), spd(3), spd(3, seed=1)
    value = mixture_w2(one, m1[None], C1[None], one, m2[None], C2[None])
    assert value == pytest.approx(w2(m1, C1, m2, C2), rel=1e-14)


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d))))
def test_of_diracs_it_is_exact_transport(both):
    (x, a), (y, b) = both
    none = [np.zeros((*points.shape, points.shape[-1])) for points in (x, y)]
    value = mixture_w2_squared(a, x, none[0], b, y, none[1])
    assert value == pytest.approx(transport_cost(x, y, a=a, b=b), rel=1e-12, abs=1e-12)


def test_translation():
    weights, locs, covs = mixture(4, 2, 0)
    assert mixture_w2(weights, locs, covs, weights, locs + np.array([3.0, 4.0]), covs) == pytest.approx(5, rel=1e-14)


def test_plan_of_separated_components_is_their_matching():
    weights, locs, covs = np.array([0.2, 0.3, 0.5]), np.array([[0.0], [100.0], [200.0]]), np.ones((3, 1, 1))
    order = [2, 0, 1]
    plan = mixture_plan(weights, locs, covs, weights[order], locs[order] + 1, covs[order])
    np.testing.assert_allclose(plan, np.diag(weights)[:, order], atol=1e-16)


# Oracles


def test_against_linear_programming():
    p, q = mixture(5, 3, 0), mixture(4, 3, 1)
    M = w2_squared(p[1][:, None], p[2][:, None], q[1], q[2])
    rows, columns = np.kron(np.eye(5), np.ones(4)), np.kron(np.ones(5), np.eye(4))
    expected = linprog(M.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p[0], q[0]]))
    assert mixture_w2_squared(*p, *q) == pytest.approx(expected.fun, rel=1e-10)
    np.testing.assert_allclose(mixture_plan(*p, *q), expected.x.reshape(5, 4), atol=1e-10)


def test_batched_against_pot():
    p, q = mixture(5, 3, 0), mixture(4, 3, 1)
    shifts = rng.normal(size=(2, 1, 3))
    weights = np.stack([q[0], q[0][::-1]])[:, None]
    ours = mixture_w2_squared(*p, weights, q[1] + shifts, q[2])
    plans = mixture_plan(*p, weights, q[1] + shifts, q[2])
    assert ours.shape == (2, 2)
    assert plans.shape == (2, 2, 5, 4)
    for i in range(2):
        for j in range(2):
            problem = (p[1], q[1] + shifts[j], p[2], q[2], p[0], np.ascontiguousarray(weights[i, 0]))
            assert ours[i, j] == pytest.approx(ot.gmm.gmm_ot_loss(*problem), rel=1e-10)
            np.testing.assert_allclose(plans[i, j], ot.gmm.gmm_ot_plan(*problem), atol=1e-12)


def test_empty_batch():
    p = mixture(3, 2, 0)
    assert mixture_w2(np.zeros((0, 3)) + p[0], *p[1:], *p).shape == (0,)


# Laws


@given(st.integers(1, 2).flatmap(lambda d: st.tuples(*[mixtures(d)] * 3)))
def test_distance(three):
    p, q, r = three
    assert mixture_w2(*p, *p) == pytest.approx(0, abs=1e-6)
    assert mixture_w2(*p, *q) == pytest.approx(mixture_w2(*q, *p), rel=1e-8, abs=1e-6)
    assert mixture_w2(*p, *r) <= (mixture_w2(*p, *q) + mixture_w2(*q, *r)) * (1 + 1e-8) + 1e-6


@given(st.integers(1, 2).flatmap(lambda d: st.tuples(*[mixtures(d)] * 2)))
def test_between_two_bounds(both):
    """Gelbrich's, of the moments, from below; the independent plan from above."""
    p, q = both
    value = mixture_w2_squared(*p, *q)
    independent = p[0] @ w2_squared(p[1][:, None], p[2][:, None], q[1], q[2]) @ q[0]
    assert value <= independent * (1 + 1e-10)
    first, second = moments(*p), moments(*q)
    size = np.trace(first[1]) + np.trace(second[1])
    assert value >= w2_squared(*first, *second, validate=False) - 1e-7 * size


@given(st.integers(1, 2).flatmap(mixtures))
def test_components_can_be_split_and_reordered(p):
    weights, locs, covs = p
    split = np.concatenate([weights / 4, 3 * weights / 4])[::-1], np.tile(locs, (2, 1))[::-1], np.tile(covs, (2, 1, 1))
    other = mixture(3, locs.shape[-1], 0)
    value = mixture_w2_squared(split[0], split[1], split[2][::-1], *other)
    assert value == pytest.approx(mixture_w2_squared(*p, *other), rel=1e-10)


# Derivatives


@pytest.mark.parametrize("distance", [mixture_w2, mixture_w2_squared])
def test_gradients_by_finite_differences(distance):
    (a, m1, _), (b, m2, _) = mixture(3, 2, 0), mixture(2, 2, 1)
    X, Y = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=(2, 2, 2))

    def parametrised(a, m1, X, b, m2, Y):
        return distance(a / a.sum(), m1, X @ X.mT, b / b.sum(), m2, Y @ Y.mT)

    assert torch.autograd.gradcheck(parametrised, tensors(a, m1, X, b, m2, Y))


def test_second_derivatives_in_the_components():
    (a, m1, _), (b, m2, _) = mixture(2, 2, 0), mixture(2, 2, 1)
    X, Y = rng.normal(size=(2, 2, 2, 2))
    a, b = torch.tensor(a), torch.tensor(b)

    def parametrised(m1, X, m2, Y):
        return mixture_w2_squared(a, m1, X @ X.mT, b, m2, Y @ Y.mT)

    assert torch.autograd.gradgradcheck(parametrised, tensors(m1, X, m2, Y))


@pytest.mark.parametrize(
    "second", [torch.autograd.functional.hessian, lambda f, m: torch.func.jacrev(torch.func.jacrev(f))(m)]
)
def test_the_second_derivative_in_a_mean_that_meets_another_is_two(second):
    one, zero, cov = torch.tensor([1.0]).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    hessian = second(lambda m: mixture_w2_squared(one, zero, cov, one, m, cov), zero)
    torch.testing.assert_close(hessian.reshape(2, 2), 2 * cov[0])


def test_second_derivatives_in_the_weights_are_refused():
    p, q = tensors(*mixture(3, 2, 0)), tensors(*mixture(2, 2, 1))
    for weights in (p[0], q[0]):
        (grad,) = torch.autograd.grad(mixture_w2_squared(*p, *q), weights, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives of mixture_w2_squared in weights1 and weights2"):
            grad.sum().backward()


@given(st.integers(1, 2).flatmap(lambda d: st.tuples(*[mixtures(d)] * 2)))
def test_weight_gradients_are_dual_potentials(both):
    """Feasible, and of the same value: also at components of weight zero."""
    p, q = (tensors(*each) for each in both)
    value = mixture_w2_squared(*p, *q)
    value.backward()
    f, g = p[0].grad.numpy(), q[0].grad.numpy()
    M = w2_squared(both[0][1][:, None], both[0][2][:, None], both[1][1], both[1][2])
    positive = np.ix_(both[0][0] > 0, both[1][0] > 0)
    assert (f[:, None] + g - M)[positive].max() <= 1e-9 * (1 + M.max())
    assert f @ both[0][0] + g @ both[1][0] == pytest.approx(value.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("far", [1e10, 1e154, 1e160, 1e200])
@pytest.mark.parametrize("broad", [1.0, 1e100, 1e300])
def test_components_of_weight_zero_take_no_digits_however_far_or_broad(far, broad):
    (weights, locs, covs), q = mixture(3, 2, 0), mixture(4, 2, 1)
    filled = (
        np.append(weights, 0.0),
        np.concatenate([locs, np.full((1, 2), far)]),
        np.concatenate([covs, broad * np.eye(2)[None]]),
    )
    np.testing.assert_allclose(mixture_plan(*filled, *q)[:3], mixture_plan(weights, locs, covs, *q), rtol=1e-12)
    found = []
    for p in ((weights, locs, covs), filled):
        p = tensors(*p)
        value = mixture_w2(*p, *tensors(*q))
        value.backward()
        found.append((value.detach(), p[0].grad[1:3] - p[0].grad[0], p[1].grad[:3], p[2].grad[:3]))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_at_equal_mixtures_value_and_gradient_are_zero():
    p, order = mixture(4, 2, 0), [2, 0, 3, 1]
    weights = np.array([0.25, 0.125, 0.5, 0.125])
    first, second = tensors(weights, *p[1:]), tensors(weights[order], p[1][order], p[2][order])
    value = mixture_w2(*first, *second)
    value.backward()
    assert value.item() == 0
    assert all((t.grad == 0).all() for t in first + second)


def test_the_plan_is_a_constant():
    p = tensors(*mixture(3, 2, 0))
    assert not mixture_plan(*p, *p).requires_grad


def test_float32_keeps_its_dtype():
    p, q = ([t.detach().float().requires_grad_() for t in tensors(*mixture(3, 2, seed))] for seed in (0, 1))
    value = mixture_w2_squared(*p, *q)
    value.backward()
    assert value.dtype == mixture_plan(*p, *q).dtype == torch.float32
    assert all(t.grad.dtype == torch.float32 for t in p + q)
    reference = mixture_w2_squared(*(t.detach().double() for t in p + q), validate=False)
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)


def test_float32_covariances_are_semidefinite_to_their_own_rounding():
    F = np.random.default_rng(0).normal(size=(8, 4, 3))
    weights, locs, covs = (part.astype(np.float32) for part in (np.full(8, 0.125), 100 * F[..., 0], F @ F.mT))
    assert (np.linalg.eigvalsh(covs.astype(float)) < -1e-9).any()
    assert mixture_w2_squared(weights, locs, covs, weights, locs + np.float32(1), covs) == pytest.approx(4, rel=1e-4)


def test_a_simplex_that_stops_early_warns(monkeypatch):
    p, q, couple = mixture(30, 2, 0), mixture(30, 2, 1), _mixture.couple
    monkeypatch.setattr(_mixture, "couple", lambda a, b, M: couple(a, b, M, 1))
    with pytest.warns(ConvergenceWarning, match="between the components"):
        mixture_w2_squared(*p, *q)


@pytest.mark.parametrize("function", [mixture_w2, mixture_w2_squared, mixture_plan])
def test_a_mixture_of_nothing(function):
    w, m, C = np.full(2, 0.5), np.zeros((2, 3)), np.stack([np.eye(3)] * 2)
    with pytest.raises(ValueError, match=r"covs1 has shape \(0, 3, 3\); expected at least one covariance"):
        function(w[:0], m[:0], C[:0], w, m, C)
