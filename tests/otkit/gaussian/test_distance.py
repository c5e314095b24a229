import mpmath
import numpy as np
import ot
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from otkit.gaussian import pairwise_w2, w2, w2_squared, w2_squared_diagonal, w2_squared_from_factors
from otkit.testing import gaussians, psd_matrices, rotations
from tests.otkit.random_inputs import spd


def exact(loc1, cov1, loc2, cov2):
    """The trace formula at 60 digits, from the float inputs as they are."""
    with mpmath.workdps(60):
        A, B = mpmath.matrix(cov1.tolist()), mpmath.matrix(cov2.tolist())
        roots = mpmath.eigsy(A)
        half = roots[1] * mpmath.diag([mpmath.sqrt(max(e, 0)) for e in roots[0]]) * roots[1].T
        inner = half * B * half
        cross = sum(mpmath.sqrt(max(e, 0)) for e in mpmath.eigsy((inner + inner.T) / 2)[0])
        trace = sum(A[i, i] + B[i, i] for i in range(A.rows))
        means = sum((mpmath.mpf(float(p)) - mpmath.mpf(float(q))) ** 2 for p, q in zip(loc1, loc2, strict=True))
        return float(means + trace - 2 * cross)


pair = st.integers(1, 4).flatmap(lambda d: st.tuples(gaussians(d), gaussians(d)))
singular_pair = st.integers(1, 4).flatmap(lambda d: st.tuples(gaussians(d, singular=True), gaussians(d, singular=True)))


# Known answers


def test_one_dimension():
    assert w2_squared(np.array([1.0]), np.array([[4.0]]), np.array([4.0]), np.array([[25.0]])) == pytest.approx(
        18.0, rel=1e-15
    )


def test_between_diracs_it_is_the_euclidean_distance():
    zero = np.zeros((2, 2))
    assert w2(np.zeros(2), zero, np.array([3.0, 4.0]), zero) == 5.0


def test_to_a_dirac_it_is_the_second_moment():
    cov = spd(3)
    assert w2_squared(np.zeros(3), cov, np.ones(3), np.zeros((3, 3))) == pytest.approx(3 + np.trace(cov), rel=1e-15)


def test_orthogonal_ranges_need_a_completed_polar_factor():
    assert w2_squared(np.zeros(2), np.diag([2.0, 0.0]), np.zeros(2), np.diag([0.0, 2.0])) == pytest.approx(
        4.0, rel=1e-15
    )


@pytest.mark.parametrize("method", ["procrustes", "trace"])
def test_batched_against_pot(method):
    m1, m2 = np.random.default_rng(1).normal(size=(2, 6, 5))
    C1, C2 = spd(6, 5, seed=2), spd(6, 5, seed=3)
    ours = w2(m1, C1, m2, C2, method=method)
    theirs = [ot.gaussian.bures_wasserstein_distance(*each) for each in zip(m1, m2, C1, C2, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("delta", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("cond", [1.0, 1e4])
def test_keeps_its_digits_as_the_gaussians_approach(cond, delta):
    d = 4
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    cov1 = (Q * np.geomspace(1, 1 / cond, d)) @ Q.T
    change = spd(d, seed=5)
    cov1, cov2 = ((C + C.T) / 2 for C in (cov1, cov1 + delta * (change + change.T)))
    zero = np.zeros(d)
    value, reference = w2_squared(zero, cov1, zero, cov2), exact(zero, cov1, zero, cov2)
    trace = np.trace(cov1) + np.trace(cov2)
    bound = max(1e-13, 8 * np.finfo(float).eps * np.sqrt(cond * trace / reference))
    assert abs(value / reference - 1) <= bound


def test_diagonal_is_the_full_form_on_diagonals():
    m1, m2, s1, s2 = np.random.default_rng(0).random((4, 7, 3))
    full = w2_squared(m1, s1[..., None] ** 2 * np.eye(3), m2, s2[..., None] ** 2 * np.eye(3))
    np.testing.assert_allclose(w2_squared_diagonal(m1, s1, m2, s2), full, rtol=1e-12)


def test_batches_broadcast():
    m, C = np.zeros((4, 1, 3)), spd(5, 3)
    assert w2_squared(m, C, np.ones(3), np.eye(3)).shape == (4, 5)


# Laws


@given(singular_pair)
def test_symmetry_and_known_value(both):
    (m1, C1), (m2, C2) = both
    value = w2_squared(m1, C1, m2, C2)
    assert value >= 0
    scale = ((m1 - m2) ** 2).sum() + np.trace(C1) + np.trace(C2)
    assert value == pytest.approx(w2_squared(m2, C2, m1, C1), rel=1e-10, abs=1e-12 * scale)
    assert value == pytest.approx(exact(m1, C1, m2, C2), rel=1e-7, abs=1e-12 * scale)


# W2² was rounding, which the gradient of its root divided by.
NEAR_SINGULAR = np.diag(np.geomspace(1, 1e-16, 4)) + 1e-9 * (1 - np.eye(4))


@given(st.integers(1, 4).flatmap(lambda d: gaussians(d, singular=True)))
@example((np.ones(4), NEAR_SINGULAR @ NEAR_SINGULAR))
def test_identity_is_exact_with_gradient_zero(gaussian):
    tensors = [torch.tensor(part, requires_grad=True) for part in (*gaussian, *gaussian)]
    for distance in (w2, w2_squared):
        value = distance(*tensors)
        assert value.item() == 0
        for grad in torch.autograd.grad(value, tensors):
            assert (grad == 0).all()


@pytest.mark.parametrize("distance", [w2, w2_squared_from_factors, lambda *both: pairwise_w2(*both).diagonal()])
@pytest.mark.parametrize(("d", "cond", "unit"), [(5, 1e8, 1e-150), (32, 1e12, 1.0), (32, 1e17, 1.0), (100, 1e17, 1.0)])
def test_identity_is_exact_at_near_singular_covariances(distance, d, cond, unit):
    """Polar factors there are not I, and what they leave is not rounding of the trace."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(2, d, d)))[0]
    C = unit * (Q * np.geomspace(1, 1 / cond, d)) @ np.swapaxes(Q, -1, -2)
    arrays = np.ones((2, d)), (C + np.swapaxes(C, -1, -2)) / 2
    tensors = [torch.tensor(part, requires_grad=True) for part in (*arrays, *arrays)]
    value = distance(*tensors)
    assert (value == 0).all()
    for grad in torch.autograd.grad(value.sum(), tensors):
        assert (grad == 0).all()


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(*[gaussians(d, singular=True)] * 3)))
def test_triangle_inequality(three):
    first, second, third = three
    assert w2(*first, *third) <= (w2(*first, *second) + w2(*second, *third)) * (1 + 1e-8) + 1e-8


@given(pair, st.floats(0.1, 10), st.data())
def test_translation_scaling_rotation(both, scale, data):
    (m1, C1), (m2, C2) = both
    Q = data.draw(rotations(len(m1)))
    value = w2_squared(m1, C1, m2, C2)
    size = ((m1 - m2) ** 2).sum() + np.trace(C1) + np.trace(C2)
    moved = [
        (scale * Q @ m + 1.0, (scale**2 * (Q @ C @ Q.T) + scale**2 * (Q @ C @ Q.T).T) / 2)
        for m, C in ((m1, C1), (m2, C2))
    ]
    assert w2_squared(*moved[0], *moved[1]) == pytest.approx(
        scale**2 * value, rel=1e-8, abs=1e-11 * scale**2 * size + 1e-13
    )


# Derivatives


@pytest.mark.parametrize("equal", [False, True])
def test_derivatives_of_the_diagonal_form(equal):
    """At equal Gaussians too: the square has no kink, and its second derivatives are those of |Δm|² + |Δs|²."""
    values = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0], [2.0, 0.25]], dtype=torch.float64)
    m1, s1, m2, s2 = (each.clone().requires_grad_() for each in (values[[0, 1, 0, 1]] if equal else values))
    assert torch.autograd.gradcheck(w2_squared_diagonal, (m1, s1, m2, s2))
    assert torch.autograd.gradgradcheck(w2_squared_diagonal, (m1, s1, m2, s2))


def test_the_diagonal_form_in_low_precision():
    """float32 inputs are computed as they are, to a few roundings of the sizes squared."""
    m1, s1, m2, s2 = np.abs(np.random.default_rng(0).normal(size=(4, 50))).astype(np.float32)
    low, high = w2_squared_diagonal(m1, s1, m2, s2), w2_squared_diagonal(*(v.astype(float) for v in (m1, s1, m2, s2)))
    assert low.dtype == np.float32
    assert low == pytest.approx(high, rel=50 * 2**-23)


def parametrised(m1, A, m2, B):
    return w2_squared(m1, A @ A.mT, m2, B @ B.mT)


def test_gradients_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    A, B = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    inputs = [t.requires_grad_() for t in (m1, A, m2, B)]
    assert torch.autograd.gradcheck(parametrised, inputs)
    assert torch.autograd.gradcheck(lambda *t: parametrised(*t).sqrt(), inputs)


@given(st.integers(1, 4).flatmap(lambda d: st.tuples(psd_matrices(d, cond=100), psd_matrices(d, cond=100))))
def test_covariance_gradient_is_identity_minus_map(covs):
    C1, C2 = (torch.tensor(C, requires_grad=True) for C in covs)
    zero = torch.zeros(len(C1), dtype=torch.float64)
    w2_squared(zero, C1, zero, C2).backward()
    T = torch.eye(len(C1), dtype=torch.float64) - C1.grad
    # The optimal map pushes one covariance onto the other, and the gradients belong to a map and its inverse.
    torch.testing.assert_close(T @ C1 @ T, C2, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        T @ (torch.eye(len(T), dtype=T.dtype) - C2.grad), torch.eye(len(T), dtype=T.dtype), rtol=1e-8, atol=1e-8
    )


def test_gradient_at_equal_covariances_and_different_means():
    m = torch.zeros(3, dtype=torch.float64)
    C = torch.eye(3, dtype=torch.float64, requires_grad=True)
    other = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    w2(m, C, other, torch.eye(3, dtype=torch.float64)).backward()
    assert (C.grad == 0).all()
    torch.testing.assert_close(other.grad, other.detach() / 5)


@pytest.mark.parametrize("variances", [(4.0, 0.0), (0.0, 4.0), (0.0, 0.0)])
def test_gradient_is_finite_at_points_on_the_line(variances):
    tensors = [
        torch.tensor(part, dtype=torch.float64, requires_grad=True) for v in variances for part in ([0.0], [[v]])
    ]
    value = w2_squared(*tensors)
    assert value.item() == sum(variances)
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(value, tensors))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_gradient_is_finite_at_singular_covariances(rank):
    C1 = torch.diag((torch.arange(3) < rank).double()).requires_grad_()
    C2 = torch.from_numpy(spd(3)).requires_grad_()
    zero = torch.zeros(3, dtype=torch.float64)
    w2_squared(zero, C1, zero, C2).backward()
    assert torch.isfinite(C1.grad).all()
    assert torch.isfinite(C2.grad).all()
    assert (C1.grad.diagonal()[rank:] == 1).all()


def test_second_derivatives():
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    A, B = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
    for second in (B, A):  # equal Gaussians included, where the Hessian of W2² is smooth
        inputs = [t.clone().requires_grad_() for t in (m1, A, m2, second)]
        assert torch.autograd.gradgradcheck(parametrised, inputs)


def test_second_derivatives_at_singular_covariances_are_finite():
    C = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)).requires_grad_()
    zero, eye = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    (grad,) = torch.autograd.grad(w2_squared(zero, C, zero, eye), C, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), C)
    # Within the range it is that of (sqrt(c) - 1)², which is c^(-3/2) / 2.
    torch.testing.assert_close(second, torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_a_higher_one(dtype):
    C = torch.from_numpy(spd(4)).to(dtype)
    C = C.tril() + C.tril(-1).mT
    inputs = [
        t.requires_grad_()
        for t in (torch.zeros(4, dtype=dtype), C, torch.ones(4, dtype=dtype), torch.eye(4, dtype=dtype))
    ]
    value = w2_squared(*inputs)
    value.backward()
    assert value.dtype == dtype
    assert inputs[1].grad.dtype == dtype
    reference = w2_squared(*(t.detach().double() for t in inputs))
    assert value.item() == pytest.approx(reference.item(), rel=2 * torch.finfo(dtype).eps)


def test_float32_does_not_overflow_on_the_way_to_the_root():
    far, C = np.full(1, 1e25, dtype=np.float32), np.eye(1, dtype=np.float32)
    assert w2(far, C, -far, C) == np.float32(2e25)


def test_bfloat16_covariances_are_judged_by_their_own_rounding():
    X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    C = (X @ X.mT).bfloat16()
    zero = torch.zeros(6, dtype=torch.bfloat16)
    assert w2(zero, C, zero, C).item() == 0


# Bad input

eye, zero = np.eye(2), np.zeros(2)


def test_unknown_method():
    with pytest.raises(ValueError, match="method is 'newton'; expected 'procrustes' or 'trace'"):
        w2(zero, eye, zero, eye, method="newton")


def test_negative_scale():
    with pytest.raises(ValueError, match="scale2 must not be negative; got -1"):
        w2_squared_diagonal(zero, zero, zero, zero - 1)
