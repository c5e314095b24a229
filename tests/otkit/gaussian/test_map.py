import mpmath
import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.gaussian import barycenter, geodesic, transport_map, w2_squared
from otkit.testing import gaussians, psd_matrices, rotations
from tests.otkit.random_inputs import spd

rng = np.random.default_rng(0)
pair = st.integers(1, 4).flatmap(lambda d: st.tuples(gaussians(d), gaussians(d)))


def with_condition(d, cond):
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    C = (Q * np.geomspace(1, 1 / cond, d)) @ Q.T
    return (C + C.T) / 2


def exact(cov1, cov2):
    """The textbook formula at 60 digits, from the float inputs as they are."""

    def power(A, p):
        values, V = mpmath.eigsy((A + A.T) / 2)
        return V * mpmath.diag([v**p for v in values]) * V.T

    with mpmath.workdps(60):
        A, B, half = mpmath.matrix(cov1.tolist()), mpmath.matrix(cov2.tolist()), mpmath.mpf(1) / 2
        root, inverse = power(A, half), power(A, -half)
        return np.array((inverse * power(root * B * root, half) * inverse).tolist(), dtype=float)


# Known answers


def test_one_dimension():
    T, shift = transport_map(np.array([1.0]), np.array([[4.0]]), np.array([4.0]), np.array([[25.0]]))
    np.testing.assert_allclose([T.item(), shift.item()], [2.5, 1.5], rtol=1e-15)


def test_batched_against_pot():
    m1, m2 = rng.normal(size=(2, 6, 5))
    C1, C2 = spd(6, 5, seed=rng), spd(6, 5, seed=rng)
    T, shift = transport_map(m1, C1, m2, C2)
    for k in range(6):
        theirs = ot.gaussian.bures_wasserstein_mapping(m1[k], m2[k], C1[k], C2[k])
        np.testing.assert_allclose(T[k], theirs[0], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(shift[k], np.ravel(theirs[1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cond", [1.0, 1e4, 1e8])
def test_accuracy_at_high_condition_numbers(cond):
    C1, C2 = with_condition(4, cond), with_condition(4, cond)
    T, _ = transport_map(np.zeros(4), C1, np.zeros(4), C2)
    reference = exact(C1, C2)
    assert np.linalg.norm(T - reference) <= 8 * np.finfo(float).eps * cond * np.linalg.norm(reference) + 1e-14
    # Far better than the map itself is what it does.
    assert np.linalg.norm(T @ C1 @ T - C2) <= 1e-14 * np.sqrt(cond) * np.linalg.norm(C2)


@pytest.mark.parametrize("delta", [0.0, 1e-12, 1e-8, 1e-4])
def test_near_equality(delta):
    C1 = with_condition(4, 1e4)
    C2 = C1 + delta * np.eye(4)
    T, _ = transport_map(np.zeros(4), C1, np.zeros(4), C2)
    np.testing.assert_allclose(T, exact(C1, C2), atol=1e-13 * 1e2)


def test_batches_broadcast():
    T, shift = transport_map(np.zeros((4, 1, 3)), spd(5, 3, seed=rng), np.ones(3), np.eye(3))
    assert T.shape == (4, 5, 3, 3)
    assert shift.shape == (4, 5, 3)


# Singular covariances


def test_singular_target():
    C1, G = spd(3, seed=rng), rng.normal(size=(3, 1))
    T, _ = transport_map(np.zeros(3), C1, np.zeros(3), G @ G.T)
    np.testing.assert_allclose(T @ C1 @ T, G @ G.T, atol=1e-13)
    np.testing.assert_allclose(T, G @ G.T / np.sqrt(G.T @ C1 @ G), atol=1e-13)


def test_within_the_range_of_a_singular_source():
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0][:, :2]
    inner1, inner2 = spd(2, seed=rng), spd(2, seed=rng)
    T, shift = transport_map(np.ones(4), Q @ inner1 @ Q.T, np.zeros(4), Q @ inner2 @ Q.T)
    expected = Q @ transport_map(np.zeros(2), inner1, np.zeros(2), inner2)[0] @ Q.T
    np.testing.assert_allclose(T, expected, atol=1e-13)
    np.testing.assert_allclose(shift, -expected @ np.ones(4), atol=1e-13)


def test_between_diracs():
    T, shift = transport_map(np.ones(2), np.zeros((2, 2)), np.array([3.0, 4.0]), np.zeros((2, 2)))
    assert (T == 0).all()
    np.testing.assert_array_equal(shift, [3.0, 4.0])


@pytest.mark.parametrize("source", [np.diag([1.0, 0.0]), np.zeros((2, 2))])
def test_no_map_where_a_singular_source_has_nothing_to_carry(source):
    covs = np.stack([np.eye(2), source])
    with pytest.raises(
        ValueError, match=r"cov2 has variance that no map carries there from a singular cov1: a share of 1;"
    ):
        transport_map(np.zeros(2), covs, np.zeros(2), np.diag([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"a share of 0\.5; expected rank"):
        transport_map(np.zeros(2), np.diag([1.0, 0.0]), np.zeros(2), np.eye(2))


def test_out_of_the_range_of_a_singular_source():
    """From the first axis to the diagonal: x e1 goes to x (1, 1), and the smallest T that does so has rank one."""
    T, _ = transport_map(np.zeros(2), np.diag([4.0, 0.0]), np.zeros(2), np.full((2, 2), 4.0))
    np.testing.assert_allclose(T, np.ones((2, 2)), rtol=1e-15)


@pytest.mark.parametrize(("rank1", "rank2"), [(2, 1), (2, 2), (3, 2)])
def test_a_map_exists_where_the_product_has_the_rank_of_the_target(rank1, rank2):
    A, B = (np.random.default_rng(k).normal(size=(4, k)) for k in (rank1, rank2))
    cov1, cov2 = A @ A.T, B @ B.T
    T, _ = transport_map(np.zeros(4), cov1, np.zeros(4), cov2)
    np.testing.assert_allclose(T @ cov1 @ T, cov2, atol=1e-10)
    assert np.linalg.eigvalsh(T).min() >= -1e-12
    cost = np.trace(cov1 + cov2 - 2 * T @ cov1)
    assert cost == pytest.approx(w2_squared(np.zeros(4), cov1, np.zeros(4), cov2), rel=1e-7)
    with pytest.raises(ValueError, match="cov2 has variance that no map carries there"):
        transport_map(np.zeros(4), B[:, :1] @ B[:, :1].T, np.zeros(4), np.eye(4))


@pytest.mark.parametrize(("rank1", "rank2"), [(1, 1), (2, 1), (2, 2)])
def test_gradient_at_a_singular_source_is_that_at_fixed_rank(rank1, rank2):
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    A, B = (torch.randn(3, r, dtype=torch.float64, generator=generator) for r in (rank1, rank2))
    assert torch.autograd.gradcheck(parametrised, [t.requires_grad_() for t in (m1, A, m2, B)])


# Laws


@given(pair)
def test_pushes_forward_at_the_least_cost(both):
    (m1, C1), (m2, C2) = both
    T, shift = transport_map(m1, C1, m2, C2)
    np.testing.assert_array_equal(T, T.T)
    assert np.linalg.eigvalsh(T).min() >= -1e-12 * np.linalg.norm(T)
    np.testing.assert_allclose(T @ m1 + shift, m2, atol=1e-10)
    np.testing.assert_allclose(T @ C1 @ T, C2, atol=1e-10 * np.linalg.norm(C2))
    residual = np.eye(len(T)) - T
    cost = ((m1 - m2) ** 2).sum() + np.trace(residual @ C1 @ residual)
    assert cost == pytest.approx(w2_squared(m1, C1, m2, C2), rel=1e-7, abs=1e-9)


@given(pair)
def test_the_way_back_is_the_inverse(both):
    T = transport_map(*both[0], *both[1])[0]
    back = transport_map(*both[1], *both[0])[0]
    np.testing.assert_allclose(T @ back, np.eye(len(T)), atol=1e-8)


@given(pair, st.floats(0.1, 10), st.data())
def test_scaling_and_rotation(both, scale, data):
    (m1, C1), (m2, C2) = both
    Q = data.draw(rotations(len(m1)))
    C3, C4 = ((Q @ C @ Q.T + (Q @ C @ Q.T).T) / 2 for C in (C1, C2))
    T, turned = (transport_map(m1, A, m2, B)[0] for A, B in ((C1, C2), (C3, scale**2 * C4)))
    np.testing.assert_allclose(turned, scale * Q @ T @ Q.T, atol=1e-8 * scale * np.linalg.norm(T))


@given(st.integers(1, 4).flatmap(lambda d: psd_matrices(d)))
def test_identity_between_equal_covariances(C):
    T, _ = transport_map(np.zeros(len(C)), C, np.zeros(len(C)), C)
    np.testing.assert_allclose(T, np.eye(len(C)), atol=1e-11)


# Derivatives


def parametrised(m1, A, m2, B):
    return transport_map(m1, A @ A.mT, m2, B @ B.mT)


@pytest.mark.parametrize("which", ["different", "equal", "isotropic"])
def test_first_and_second_derivatives(which):
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    A, B = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    if which == "isotropic":
        A = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    inputs = [t.clone().requires_grad_() for t in (m1, A, m2, B if which == "different" else A)]
    assert torch.autograd.gradcheck(parametrised, inputs)
    assert torch.autograd.gradgradcheck(parametrised, inputs)


def test_gradient_at_high_condition_numbers():
    # Between diagonals, ∂T_ii/∂Σ1_ii = -T_ii / 2 Σ1_ii and ∂T_ij/∂Σ1_ij = -T_i T_j / (s_i + s_j), s = Σ1 T.
    c1 = torch.tensor([1.0, 1e-8, 2e-8], dtype=torch.float64)
    C1 = torch.diag(c1).requires_grad_()
    C2 = torch.diag(4 * c1)
    zero = torch.zeros(3, dtype=torch.float64)
    transport_map(zero, C1, zero, C2)[0].sum().backward()
    expected = -4 / (2 * c1.unsqueeze(-1) + 2 * c1)
    torch.testing.assert_close(C1.grad, expected, rtol=1e-10, atol=0)


def test_gradient_at_a_singular_target_is_that_at_fixed_rank():
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    A, B = (torch.randn(3, r, dtype=torch.float64, generator=generator) for r in (3, 1))
    assert torch.autograd.gradcheck(parametrised, [t.requires_grad_() for t in (m1, A, m2, B)])


@pytest.mark.parametrize("singular", [1, 2])
def test_second_derivatives_at_singular_covariances_are_refused(singular):
    C = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)).requires_grad_()
    zero, other = torch.zeros(2, dtype=torch.float64), C.detach() if singular == 1 else torch.eye(2).double()
    covs = (C, other) if singular == 1 else (other, C)
    T, _ = transport_map(zero, covs[0], zero, covs[1])
    assert torch.isfinite(torch.autograd.grad(T.sum(), C, retain_graph=True)[0]).all()
    (first,) = torch.autograd.grad(T.sum(), C, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of transport_map need positive definite"):
        first.sum().backward()


def test_float32_is_computed_in_float64():
    C = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    zero = torch.zeros(2)
    T, shift = transport_map(zero, C, zero, torch.eye(2))
    assert T.dtype == shift.dtype == torch.float32
    reference = transport_map(*(t.double() for t in (zero, C, zero, torch.eye(2))))[0]
    torch.testing.assert_close(T, reference.float(), rtol=0, atol=0)


def test_what_was_broadcast_can_be_written_to():
    locs, cov = np.zeros((3, 2)), np.eye(2)
    results = [
        transport_map(locs, cov, locs, cov)[0],
        geodesic(locs, cov, locs, cov, 0.5)[1],
        barycenter(np.zeros((3, 4, 2)), np.stack([cov] * 4))[1],
    ]
    for result in results:
        assert result.shape == (3, 2, 2)
        result[0, 0, 0] = 99
        np.testing.assert_allclose(result[1], cov, atol=1e-12)
