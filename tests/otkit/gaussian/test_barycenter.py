import warnings

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.gaussian import barycenter, geodesic, transport_map, w2_squared
from otkit.testing import gaussians, rotations
from tests.otkit.random_inputs import spd

rng = np.random.default_rng(0)


def with_condition(K, d, cond):
    Q = np.linalg.qr(rng.normal(size=(K, d, d)))[0]
    C = (Q * np.geomspace(1, 1 / cond, d)) @ np.swapaxes(Q, -1, -2)
    return (C + np.swapaxes(C, -1, -2)) / 2


@st.composite
def families(draw):
    K, d = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    members = draw(st.lists(gaussians(d), min_size=K, max_size=K))
    weights = np.array(draw(st.lists(st.floats(0.1, 1), min_size=K, max_size=K)))
    locs, covs = (np.stack(part) for part in zip(*members, strict=True))
    return locs, covs, weights / weights.sum()


def objective(loc, cov, locs, covs, weights):
    return (weights * w2_squared(loc, cov, locs, covs)).sum()


# Known answers


def test_one_dimension():
    loc, cov = barycenter(np.array([[0.0], [1.0], [5.0]]), np.array([[[1.0]], [[4.0]], [[25.0]]]), [0.5, 0.3, 0.2])
    np.testing.assert_allclose([loc.item(), cov.item()], [1.3, 2.1**2], rtol=1e-14)


def test_commuting_covariances_average_their_roots():
    roots, w = rng.random((5, 4)), rng.dirichlet(np.ones(5))
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    covs = (Q * roots[:, None, :] ** 2) @ Q.T
    _, cov = barycenter(np.zeros((5, 4)), (covs + np.swapaxes(covs, -1, -2)) / 2, w)
    np.testing.assert_allclose(cov, (Q * (w @ roots) ** 2) @ Q.T, atol=1e-13)


@given(families())
def test_of_one_and_of_equals(family):
    locs, covs, weights = family
    for K, w in ((1, np.ones(1)), (len(weights), weights)):
        loc, cov = barycenter(np.stack([locs[0]] * K), np.stack([covs[0]] * K), w)
        np.testing.assert_allclose(loc, locs[0], atol=1e-13)
        np.testing.assert_allclose(cov, covs[0], atol=1e-13 * np.trace(covs[0]))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_of_two_is_on_the_geodesic(rank):
    A = rng.normal(size=(2, 3, rank))
    covs, locs = A @ np.swapaxes(A, -1, -2), rng.normal(size=(2, 3))
    loc, cov = barycenter(locs, covs, np.array([0.3, 0.7]))
    expected = geodesic(locs[0], covs[0], locs[1], covs[1], 0.7)
    np.testing.assert_allclose(loc, expected[0], atol=1e-14)
    np.testing.assert_allclose(cov, expected[1], atol=1e-10)


def test_batched_against_pot():
    locs, covs, w = rng.normal(size=(3, 4, 5)), spd(3, 4, 5, seed=rng), rng.dirichlet(np.ones(4), size=3)
    loc, cov = barycenter(locs, covs, w)
    for k in range(3):
        theirs = ot.gaussian.bures_wasserstein_barycenter(locs[k], covs[k], weights=w[k], num_iter=1000, eps=1e-13)
        np.testing.assert_allclose(loc[k], theirs[0], atol=1e-12)
        np.testing.assert_allclose(cov[k], theirs[1], atol=1e-10)


@pytest.mark.parametrize("cond", [1e2, 1e6, 1e8])
def test_the_maps_average_to_the_identity_at_high_condition_numbers(cond):
    covs = with_condition(4, 5, cond)
    _, cov = barycenter(np.zeros((4, 5)), covs)
    T, _ = transport_map(np.zeros(5), cov, np.zeros(5), covs)
    F = np.linalg.cholesky(cov)
    assert np.linalg.norm((T.mean(0) - np.eye(5)) @ F) <= 1e-11 * np.linalg.norm(F)


def test_batches_broadcast():
    loc, cov = barycenter(np.zeros((4, 1, 2, 3)), spd(5, 2, 3, seed=rng), np.array([0.5, 0.5]))
    assert loc.shape == (4, 5, 3)
    assert cov.shape == (4, 5, 3, 3)
    assert barycenter(np.zeros((0, 2, 3)), np.zeros((0, 2, 3, 3)))[1].shape == (0, 3, 3)


def test_of_diracs_and_of_weight_zero():
    loc, cov = barycenter(np.eye(3), np.zeros((3, 3, 3)))
    np.testing.assert_allclose(loc, np.full(3, 1 / 3))
    assert (cov == 0).all()
    C = spd(2, 3, seed=rng)
    np.testing.assert_allclose(barycenter(np.zeros((2, 3)), C, [0.0, 1.0])[1], C[1], atol=1e-14)


# Laws


@given(families(), st.randoms(use_true_random=False))
def test_nothing_near_is_better(family, random):
    locs, covs, weights = family
    loc, cov = barycenter(locs, covs, weights)
    least = objective(loc, cov, locs, covs, weights)
    direction = np.random.default_rng(random.randrange(2**32)).normal(size=cov.shape)
    for step in (1e-1, 1e-2, 1e-3):
        for sign in (1, -1):
            M = np.eye(len(cov)) + sign * step * direction
            moved = M @ cov @ M.T
            there = objective(loc + sign * step, (moved + moved.T) / 2, locs, covs, weights)
            assert there >= least * (1 - 1e-11) - 1e-11 * np.trace(covs.sum(0))


@pytest.mark.parametrize("rank", [1, 2])
def test_optimal_also_for_singular_covariances(rank):
    A = rng.normal(size=(4, 3, rank))
    locs, covs, weights = np.zeros((4, 3)), A @ np.swapaxes(A, -1, -2), np.full(4, 0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        loc, cov = barycenter(locs, covs)
    least = objective(loc, cov, locs, covs, weights)
    for step in (1e-2, 1e-4, 1e-6):
        X = rng.normal(size=(3, 3))
        assert objective(loc, (1 - step) * cov + step * X @ X.T, locs, covs, weights) >= least * (1 - 1e-10)


@given(families(), st.floats(0.1, 10), st.data())
def test_permutation_rotation_scaling(family, scale, data):
    locs, covs, weights = family
    loc, cov = barycenter(locs, covs, weights)
    order = data.draw(st.permutations(range(len(weights))))
    Q = scale * data.draw(rotations(len(cov)))
    moved = Q @ covs[order] @ Q.T
    there = barycenter(locs[order] @ Q.T + 1.0, (moved + np.swapaxes(moved, -1, -2)) / 2, weights[order])
    np.testing.assert_allclose(there[0], Q @ loc + 1.0, atol=1e-12 * scale * (1 + np.abs(locs).max()) * 10)
    np.testing.assert_allclose(there[1], Q @ cov @ Q.T, atol=1e-8 * scale**2 * np.trace(cov))


# Derivatives


def parametrised(locs, A, logits):
    return barycenter(locs, A @ A.mT, logits.softmax(-1))


@pytest.mark.parametrize("which", ["different", "equal", "isotropic"])
def test_gradients_by_finite_differences(which):
    generator = torch.Generator().manual_seed(0)
    locs, A = (torch.randn(2, 3, 3, *rest, dtype=torch.float64, generator=generator) for rest in ((), (3,)))
    if which != "different":
        A = (A[:, :1] if which == "equal" else torch.eye(3, dtype=torch.float64)).expand(2, 3, 3, 3).clone()
    logits = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(parametrised, [t.requires_grad_() for t in (locs, A, logits)])


def test_gradient_of_two_is_that_of_the_geodesic():
    C = torch.from_numpy(with_condition(2, 4, 1e6)).requires_grad_()
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    zero, grad = torch.zeros(2, 4, dtype=torch.float64), torch.from_numpy(spd(4, seed=rng))
    by_weights = barycenter(zero, C, torch.stack([1 - t, t]))[1]
    by_time = geodesic(zero[0], C[0], zero[0], C[1], t)[1]
    ours, theirs = (torch.autograd.grad((S * grad).sum(), (C, t)) for S in (by_weights, by_time))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-9 * theirs[0].abs().max().item())
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-9, atol=0)


def test_gradient_at_singular_covariances_with_a_regular_barycenter():
    A = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)[:, :, :2] + 0
    A[1], A[2] = A[1].roll(1, 0), A[2].roll(2, 0)
    A += 0.1 * torch.randn(A.shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    locs, logits = torch.zeros(3, 3, dtype=A.dtype), torch.zeros(3, dtype=A.dtype)
    # A Aᵀ is singular only to rounding, which moves the value by its root: a large step.
    inputs = [t.requires_grad_() for t in (locs, A, logits)]
    assert torch.autograd.gradcheck(parametrised, inputs, eps=1e-4, atol=1e-5)


def test_gradient_within_a_common_range():
    C = torch.from_numpy(spd(3, 2, seed=rng))
    padded = torch.zeros(3, 3, 3, dtype=C.dtype)
    padded[:, :2, :2] = C
    zero, tensors = torch.zeros(3, 3, dtype=C.dtype), [C.requires_grad_(), padded.requires_grad_()]
    for each in tensors:
        barycenter(zero[:, : each.shape[-1]], each)[1][:2, :2].sum().backward()
    torch.testing.assert_close(padded.grad[:, :2, :2], C.grad)
    assert torch.isfinite(padded.grad).all()


def test_gradient_at_a_singular_barycenter_that_does_not_hold_the_covariances_is_finite():
    zero = torch.zeros(2, 2, dtype=torch.float64)
    A = torch.tensor([[[1.0], [0.0]], [[1.0], [1.0]]], dtype=torch.float64)
    C, w = (A @ A.mT).requires_grad_(), torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    S = barycenter(zero, C, w)[1]
    S.diagonal().sum().backward()
    assert torch.isfinite(C.grad).all()
    assert torch.isfinite(w.grad).all()
    # Scaling all covariances moves S along its range, and there the gradient is exact.
    assert (C.grad * C).sum().item() == pytest.approx(S.trace().item(), rel=1e-10)


def test_second_derivatives_are_refused():
    zero = torch.zeros(2, 2, dtype=torch.float64)
    C = torch.from_numpy(spd(2, 2, seed=rng)).requires_grad_()
    (grad,) = torch.autograd.grad(barycenter(zero, C)[1].square().sum(), C, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of barycenter are not implemented"):
        grad.sum().backward()


# Convergence and precision


def test_warns_when_not_converged_and_names_what_to_change():
    covs = np.stack([with_condition(3, 4, 1e4), np.stack([np.eye(4)] * 3)])
    with pytest.warns(ConvergenceWarning, match="in 1 of 2 problems; raise max_iter or tol") as record:
        barycenter(np.zeros((3, 4)), covs, max_iter=3)
    assert record[0].filename == __file__


def test_a_batch_gives_what_its_problems_give():
    covs = np.stack([with_condition(3, 4, cond) for cond in (1.0, 1e2, 1e6)])
    together = barycenter(np.zeros((3, 4)), covs)[1]
    for k in range(3):
        np.testing.assert_allclose(together[k], barycenter(np.zeros((3, 4)), covs[k])[1], atol=1e-15)


def test_float32_is_computed_in_float64():
    C = torch.tensor([[[2.0, 1.0], [1.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    loc, cov = barycenter(torch.zeros(2, 2), C)
    cov.sum().backward()
    assert loc.dtype == cov.dtype == C.grad.dtype == torch.float32
    reference = barycenter(torch.zeros(2, 2).double(), C.detach().double())[1]
    torch.testing.assert_close(cov.detach(), reference.float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tol": 0.0}, "tol is 0.0"), ({"max_iter": 0}, "max_iter is 0; expected a whole number >= 1")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        barycenter(np.zeros((3, 2)), np.stack([np.eye(2)] * 3), **options)
