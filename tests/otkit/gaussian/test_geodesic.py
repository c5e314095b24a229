import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.gaussian import geodesic, transport_map, w2
from otkit.testing import gaussians, rotations
from tests.otkit.random_inputs import spd

rng = np.random.default_rng(0)
pair = st.integers(1, 4).flatmap(lambda d: st.tuples(gaussians(d), gaussians(d)))
singular_pair = st.integers(1, 4).flatmap(lambda d: st.tuples(gaussians(d, singular=True), gaussians(d, singular=True)))
times = st.floats(0, 1)


def size(*gaussians):
    return sum(np.abs(m).max() ** 2 + np.trace(C) for m, C in gaussians)


# Known answers


def test_one_dimension():
    loc, cov = geodesic(np.zeros(1), np.array([[1.0]]), np.ones(1), np.array([[25.0]]), 0.25)
    np.testing.assert_allclose([loc.item(), cov.item()], [0.25, 4.0], rtol=1e-15)


def test_commuting_covariances_interpolate_their_roots():
    s1, s2 = rng.random((2, 4))
    _, cov = geodesic(np.zeros(4), np.diag(s1**2), np.zeros(4), np.diag(s2**2), 0.3)
    np.testing.assert_allclose(cov, np.diag((0.7 * s1 + 0.3 * s2) ** 2), atol=1e-15)


def test_to_a_dirac_it_shrinks():
    C = spd(3, seed=rng)
    _, cov = geodesic(np.zeros(3), C, np.ones(3), np.zeros((3, 3)), 0.25)
    np.testing.assert_allclose(cov, 0.75**2 * C, rtol=1e-15)


def test_orthogonal_ranges_move_independently():
    _, cov = geodesic(np.zeros(2), np.diag([4.0, 0.0]), np.zeros(2), np.diag([0.0, 4.0]), 0.5)
    np.testing.assert_array_equal(cov, np.eye(2))


def test_is_mccann_interpolation_by_the_map():
    C1, C2 = spd(5, 4, seed=rng), spd(5, 4, seed=rng)
    T, _ = transport_map(np.zeros(4), C1, np.zeros(4), C2)
    step = 0.6 * np.eye(4) + 0.4 * T
    _, cov = geodesic(np.zeros(4), C1, np.zeros(4), C2, 0.4)
    np.testing.assert_allclose(cov, step @ C1 @ step, rtol=1e-11, atol=1e-12)


def test_batches_and_times_broadcast():
    t = np.linspace(0, 1, 7)[:, None, None]
    loc, cov = geodesic(np.zeros((4, 1, 3)), spd(5, 3, seed=rng), np.ones(3), np.eye(3), t)
    assert loc.shape == (7, 4, 5, 3)
    assert cov.shape == (7, 4, 5, 3, 3)


# Laws


@given(singular_pair)
def test_exact_at_the_ends(both):
    (m1, C1), (m2, C2) = both
    loc, cov = geodesic(m1, C1, m2, C2, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(loc, [m1, m2])
    np.testing.assert_array_equal(cov, [C1, C2])


@given(pair, times, times)
def test_constant_speed(both, s, t):
    (m1, C1), (m2, C2) = both
    at_s, at_t = geodesic(m1, C1, m2, C2, s), geodesic(m1, C1, m2, C2, t)
    assert w2(*at_s, *at_t) == pytest.approx(abs(s - t) * w2(m1, C1, m2, C2), rel=1e-7, abs=1e-7 * size(*both) ** 0.5)


@given(singular_pair, times)
def test_between_the_ends_also_of_singular_covariances(both, t):
    (m1, C1), (m2, C2) = both
    middle = geodesic(m1, C1, m2, C2, t)
    whole, allowed = w2(m1, C1, m2, C2), 1e-6 * size(*both) ** 0.5
    assert w2(m1, C1, *middle) == pytest.approx(t * whole, rel=1e-6, abs=allowed)
    assert w2(*middle, m2, C2) == pytest.approx((1 - t) * whole, rel=1e-6, abs=allowed)


@given(singular_pair, times)
def test_symmetric_under_exchange(both, t):
    forth, back = geodesic(*both[0], *both[1], t), geodesic(*both[1], *both[0], 1 - t)
    np.testing.assert_allclose(forth[0], back[0], atol=1e-13)
    np.testing.assert_allclose(forth[1], back[1], atol=1e-10 * size(*both))


@given(pair, times, st.data())
def test_rotation(both, t, data):
    (m1, C1), (m2, C2) = both
    Q = data.draw(rotations(len(m1)))
    C3, C4 = ((Q @ C @ Q.T + (Q @ C @ Q.T).T) / 2 for C in (C1, C2))
    _, cov = geodesic(m1, C1, m2, C2, t)
    _, turned = geodesic(Q @ m1, C3, Q @ m2, C4, t)
    np.testing.assert_allclose(turned, Q @ cov @ Q.T, atol=1e-9 * size(*both))


# Derivatives


def parametrised(m1, A, m2, B, t):
    return geodesic(m1, A @ A.mT, m2, B @ B.mT, t)


def inputs(rank1, rank2, *, equal=False):
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    A, B = (torch.randn(2, 3, rank, dtype=torch.float64, generator=generator) for rank in (rank1, rank2))
    t = torch.tensor(0.3, dtype=torch.float64)
    return [each.clone().requires_grad_() for each in (m1, A, m2, A if equal else B, t)]


@pytest.mark.parametrize("equal", [False, True])
def test_first_and_second_derivatives(equal):
    assert torch.autograd.gradcheck(parametrised, inputs(3, 3, equal=equal))
    assert torch.autograd.gradgradcheck(parametrised, inputs(3, 3, equal=equal))


@pytest.mark.parametrize("ranks", [(3, 1), (1, 3), (2, 1), (1, 2), (2, 2), (1, 1)])
def test_gradient_at_singular_covariances_is_that_at_fixed_rank(ranks):
    assert torch.autograd.gradcheck(parametrised, inputs(*ranks))


@pytest.mark.parametrize("C1", [np.zeros((2, 2)), np.diag([1.0, 0.0])])
@pytest.mark.parametrize("C2", [np.zeros((2, 2)), np.diag([0.0, 1.0])])
def test_gradient_is_finite_where_the_coupling_is_not_unique(C1, C2):
    covs = [torch.tensor(C, requires_grad=True) for C in (C1, C2)]
    zero = torch.zeros(2, dtype=torch.float64)
    _, cov = geodesic(zero, covs[0], zero, covs[1], 0.5)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(cov.sum(), covs, retain_graph=True))
    first = torch.autograd.grad(cov.sum(), covs, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of geodesic need positive definite"):
        (first[0] + first[1]).sum().backward()


def test_float32_is_computed_in_float64():
    C = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    loc, cov = geodesic(torch.zeros(2), C, torch.ones(2), torch.eye(2), 0.25)
    assert loc.dtype == cov.dtype == torch.float32
    reference = geodesic(*(t.double() for t in (torch.zeros(2), C, torch.ones(2), torch.eye(2))), 0.25)[1]
    torch.testing.assert_close(cov, reference.float(), rtol=0, atol=0)


# Bad input


@pytest.mark.parametrize(("t", "got"), [(1.5, "1.5"), (np.array([0.0, -0.1]), "-0.1"), (np.nan, None)])
def test_times_outside_the_geodesic(t, got):
    message = "t must be finite" if got is None else rf"t must lie in \[0, 1\], between the two Gaussians; got {got}"
    with pytest.raises(ValueError, match=message):
        geodesic(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2), t)
