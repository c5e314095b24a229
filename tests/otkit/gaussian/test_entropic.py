import mpmath
import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.empirical import sinkhorn_cost
from otkit.gaussian import entropic_cost, sinkhorn_divergence, w2_squared
from otkit.testing import gaussians, psd_matrices, rotations
from tests.otkit.random_inputs import spd

both = pytest.mark.parametrize("cost", [entropic_cost, sinkhorn_divergence])
regs = st.floats(-4, 4).map(lambda e: 10.0**e)


def exact_cross(A, B, s):
    """Janati et al. at 60 digits: the sum of q - s - s log((q + s) / 2s) over D = (4 A^½ B A^½ + s²)^½."""
    values, V = mpmath.eigsy(A)
    half = V * mpmath.diag([mpmath.sqrt(max(e, 0)) for e in values]) * V.T
    inner = half * B * half
    qs = [mpmath.sqrt(4 * max(e, 0) + s**2) for e in mpmath.eigsy((inner + inner.T) / 2)[0]]
    return sum(q - s - s * mpmath.log((q + s) / (2 * s)) for q in qs)


def exact(loc1, cov1, loc2, cov2, reg, *, divergence):
    with mpmath.workdps(60):
        s, A, B = mpmath.mpf(reg) / 2, mpmath.matrix(cov1.tolist()), mpmath.matrix(cov2.tolist())
        means = sum((mpmath.mpf(float(p)) - mpmath.mpf(float(q))) ** 2 for p, q in zip(loc1, loc2, strict=True))
        trace = sum(A[i, i] + B[i, i] for i in range(A.rows))
        cost = means - exact_cross(A, B, s)
        self_terms = (exact_cross(A, A, s) + exact_cross(B, B, s)) / 2
        return float(cost + (self_terms if divergence else trace))


pair = st.integers(1, 3).flatmap(lambda d: st.tuples(*[gaussians(d, singular=True)] * 2))


# Known answers


def test_in_one_dimension():
    """σ1 = σ2 = 1, reg = 3 (s = 3/2): q = 5/2, T = 2 / (q + s) = 1/2."""
    zero, one = np.zeros(1), np.ones((1, 1))
    assert entropic_cost(zero, one, zero, one, reg=3.0) == pytest.approx(1 + 1.5 * np.log(4 / 3), rel=1e-15)
    cov = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    entropic_cost(torch.zeros(1, dtype=torch.float64), cov, torch.zeros(1).double(), cov.detach(), reg=3.0).backward()
    assert cov.grad.item() == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize("reg", [1e-300, 1.0, 1e300])
def test_to_a_dirac_there_is_one_coupling(reg):
    cov, zero = spd(3), np.zeros((3, 3))
    trace = np.trace(cov)
    assert entropic_cost(np.zeros(3), cov, np.ones(3), zero, reg=reg) == pytest.approx(3 + trace, rel=1e-13)
    assert entropic_cost(np.zeros(3), zero, np.ones(3), zero, reg=reg) == 3
    assert sinkhorn_divergence(np.zeros(3), zero, np.ones(3), zero, reg=reg) == 3


@pytest.mark.parametrize("rank", [4, 2])
def test_limits_in_reg(rank):
    d = 4
    X, Y = np.random.default_rng(0).normal(size=(2, d, rank))
    p, q = (np.zeros(d), X @ X.T), (np.ones(d), Y @ Y.T)
    for cost in (entropic_cost, sinkhorn_divergence):
        for reg in (1e-300, 1e-15):
            assert cost(*p, *q, reg=reg) == pytest.approx(w2_squared(*p, *q), rel=1e-7)
    independent = d + np.trace(p[1] + q[1])
    for reg in (1e15, 1e300):
        assert entropic_cost(*p, *q, reg=reg) == pytest.approx(independent, rel=1e-13)
        assert sinkhorn_divergence(*p, *q, reg=reg) == pytest.approx(d, rel=1e-13)


def test_batches_broadcast():
    m, C = np.zeros((4, 1, 3)), spd(5, 3)
    for cost in (entropic_cost, sinkhorn_divergence):
        value = cost(m, C, np.ones(3), np.eye(3), reg=1.0)
        assert value.shape == (4, 5)
        assert value[2, 3] == pytest.approx(cost(np.zeros(3), C[3], np.ones(3), np.eye(3), reg=1.0), rel=1e-14)
        assert cost(m[:0], C, np.ones(3), np.eye(3), reg=1.0).shape == (0, 5)


# Oracles


def grid(loc, scale):
    x = np.linspace(loc - 8 * scale, loc + 8 * scale, 401)
    a = np.exp(-0.5 * ((x - loc) / scale) ** 2)
    return x, a / a.sum()


@pytest.mark.parametrize("reg", [0.5, 3.0])
def test_against_the_discretised_problem(reg):
    """On a grid as fine as this the quadrature of Gaussians is exact to rounding."""
    (x, a), (y, b) = grid(0.0, 1.0), grid(0.7, 1.6)
    p, q = (np.zeros(1), np.eye(1)), (np.array([0.7]), np.array([[1.6**2]]))
    value = entropic_cost(*p, *q, reg=reg)
    assert sinkhorn_cost(x[:, None], y[:, None], reg=reg, a=a, b=b, tol=1e-12) == pytest.approx(value, rel=1e-9)
    M = (x[:, None] - y) ** 2
    plan = ot.sinkhorn(a, b, M, reg, stopThr=1e-12)
    support = plan > 0
    kl = (plan[support] * np.log(plan[support] / np.outer(a, b)[support])).sum()
    assert (plan * M).sum() + reg * kl == pytest.approx(value, rel=1e-9)


@both
@given(problem=pair, reg=regs)
def test_against_sixty_digits(cost, problem, reg):
    p, q = problem
    value, reference = cost(*p, *q, reg=reg), exact(*p, *q, reg, divergence=cost is sinkhorn_divergence)
    size = ((p.loc - q.loc) ** 2).sum() + np.trace(p.cov) + np.trace(q.cov)
    assert value == pytest.approx(reference, rel=1e-10, abs=1e-12 * size)


@pytest.mark.parametrize("delta", [1.0, 1e-4, 1e-8])
@pytest.mark.parametrize("reg", [1e-8, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("cond", [1.0, 1e4, 1e8])
def test_the_divergence_keeps_its_digits_as_the_gaussians_approach(cond, reg, delta):
    d = 4
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    cov1 = (Q * np.geomspace(1, 1 / cond, d)) @ Q.T
    cov2 = cov1 + delta * spd(d, seed=5)
    cov1, cov2 = (cov1 + cov1.T) / 2, (cov2 + cov2.T) / 2
    zero = np.zeros(d)
    value = sinkhorn_divergence(zero, cov1, zero, cov2, reg=reg)
    reference = exact(zero, cov1, zero, cov2, reg, divergence=True)
    amplification = max(16, 2 * min(cond, np.trace(cov1 + cov2) / reg))
    assert abs(value / reference - 1) <= np.finfo(float).eps * amplification


def test_the_divergence_between_far_gaussians_of_large_condition():
    d, zero = 4, np.zeros(4)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    cov1, cov2 = (Q * np.geomspace(1, 1e-12, d)) @ Q.T, spd(d)
    cov1 = (cov1 + cov1.T) / 2
    reference = exact(zero, cov1, zero, cov2, 1e-14, divergence=True)
    assert sinkhorn_divergence(zero, cov1, zero, cov2, reg=1e-14) == pytest.approx(reference, rel=1e-7)


# Laws


@given(pair, regs)
def test_order_and_symmetry(problem, reg):
    """0 <= S <= OT, W2² <= OT <= the cost of independence; a larger reg costs more."""
    p, q = problem
    cost, divergence = entropic_cost(*p, *q, reg=reg), sinkhorn_divergence(*p, *q, reg=reg)
    independent = ((p.loc - q.loc) ** 2).sum() + np.trace(p.cov) + np.trace(q.cov)
    slack = 1e-12 * independent
    assert 0 <= divergence <= cost + slack
    assert w2_squared(*p, *q) - 1e-7 * independent <= cost <= entropic_cost(*p, *q, reg=2 * reg) + slack
    assert cost <= independent + slack
    assert cost == pytest.approx(entropic_cost(*q, *p, reg=reg), rel=1e-10, abs=slack)
    assert divergence == pytest.approx(sinkhorn_divergence(*q, *p, reg=reg), rel=1e-8, abs=slack)


@given(pair, regs)
def test_the_divergence_is_the_debiased_cost(problem, reg):
    p, q = problem
    parts = [entropic_cost(*first, *second, reg=reg) for first, second in ((p, q), (p, p), (q, q))]
    expected = parts[0] - (parts[1] + parts[2]) / 2
    assert sinkhorn_divergence(*p, *q, reg=reg) == pytest.approx(expected, rel=1e-10, abs=1e-12 * sum(parts))


@both
@given(problem=st.integers(1, 3).flatmap(lambda d: st.tuples(gaussians(d), gaussians(d), rotations(d))), reg=regs)
def test_rotation_and_units(cost, problem, reg):
    p, q, Q = problem
    moved = [(3 * Q @ m + 1, 9 * (Q @ C @ Q.T + (Q @ C @ Q.T).T) / 2) for m, C in (p, q)]
    size = ((p.loc - q.loc) ** 2).sum() + np.trace(p.cov) + np.trace(q.cov)
    expected = 9 * cost(*p, *q, reg=reg)
    assert cost(*moved[0], *moved[1], reg=9 * reg) == pytest.approx(expected, rel=1e-9, abs=1e-12 * size)


@given(st.integers(1, 4).flatmap(lambda d: gaussians(d, singular=True)), regs)
def test_identity_is_exact_with_gradient_zero(gaussian, reg):
    tensors = [torch.tensor(part, requires_grad=True) for part in (*gaussian, *gaussian)]
    value = sinkhorn_divergence(*tensors, reg=reg)
    assert value.item() == 0
    for grad in torch.autograd.grad(value, tensors):
        assert (grad == 0).all()


# Derivatives


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(*[psd_matrices(d, cond=100, singular=True)] * 2)), regs)
def test_the_gradient_solves_the_riccati_equation(covs, reg):
    A, B = (torch.tensor(C, requires_grad=True) for C in covs)
    zero, s = torch.zeros(len(A), dtype=torch.float64), reg / 2
    entropic_cost(zero, A, zero, B, reg=reg).backward()
    T = torch.eye(len(A)) - A.grad
    assert torch.linalg.eigvalsh(T).min() >= -1e-12 * T.abs().max()
    torch.testing.assert_close(T @ A @ T + s * T, B.detach(), rtol=1e-8, atol=1e-8)
    # Both maps belong to one plan, whose cross-covariance they give.
    torch.testing.assert_close(A @ T, (torch.eye(len(A)) - B.grad) @ B, rtol=1e-8, atol=1e-8)


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(*[gaussians(d, cond=100, singular=True)] * 2)), regs)
def test_the_gradient_of_the_divergence_is_that_of_its_parts(problem, reg):
    p, q = problem

    def gradient(cost, other):
        cov = torch.tensor(p.cov, requires_grad=True)
        loc, loc2, cov2 = (torch.tensor(t) for t in (p.loc, *other))
        return torch.autograd.grad(cost(loc, cov, loc2, cov2, reg=reg), cov)[0]

    # The self term depends on p twice, of which the half takes back one.
    parts = gradient(entropic_cost, q), gradient(entropic_cost, p)
    scale = max(1, *(part.abs().max().item() for part in parts))
    torch.testing.assert_close(gradient(sinkhorn_divergence, q), parts[0] - parts[1], rtol=1e-8, atol=1e-10 * scale)


def _with_history(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, create_graph=True)[0].detach()


@pytest.mark.parametrize(
    "gradient", [torch.autograd.functional.jacobian, _with_history, lambda f, x: torch.func.grad(f)(x)]
)
def test_the_gradient_keeps_its_digits_as_the_gaussians_approach(gradient):
    """Where all is diagonal the gradient is k(a) - 2b / (q(ab) + s), here at 60 digits."""
    a, b, s = [1.0, 0.01], [1.0 + 1e-9, 0.01 - 1e-10], 0.05
    A, B = (torch.diag(torch.tensor(each, dtype=torch.float64)) for each in (a, b))
    zero = torch.zeros(2, dtype=torch.float64)
    found = gradient(lambda A: sinkhorn_divergence(zero, A, zero, B, reg=2 * s), A)
    with mpmath.workdps(60):
        s, a, b = mpmath.mpf(2 * s) / 2, [mpmath.mpf(x) for x in a], [mpmath.mpf(x) for x in b]
        q = [[mpmath.sqrt(4 * x * y + s**2) for x, y in zip(a, other, strict=True)] for other in (a, b)]
        expected = [float(2 * x / (qa + s) - 2 * y / (qb + s)) for x, y, qa, qb in zip(a, b, *q, strict=True)]
    np.testing.assert_allclose(found.diagonal(), expected, rtol=1e-13)


@both
@pytest.mark.parametrize("reg", [0.02, 5.0])
@pytest.mark.parametrize("rank", [3, 1])
def test_derivatives_by_finite_differences(cost, reg, rank):
    """Through factors of full and of low rank: at singular covariances too, there is one derivative and a second."""
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    X, Y = torch.randn(2, 2, 3, rank, dtype=torch.float64, generator=generator)

    def parametrised(m1, X, m2, Y):
        return cost(m1, X @ X.mT, m2, Y @ Y.mT, reg=reg)

    for second in (Y, X):
        inputs = [t.clone().requires_grad_() for t in (m1, X, m2, second)]
        assert torch.autograd.gradcheck(parametrised, inputs)
        assert torch.autograd.gradgradcheck(parametrised, inputs)


@both
@pytest.mark.parametrize("rank", [3, 1])
def test_the_gradient_is_the_same_with_and_without_history(cost, rank):
    X, Y = np.random.default_rng(0).normal(size=(2, 3, rank))
    inputs = [torch.tensor(t, requires_grad=True) for t in (np.zeros(3), X @ X.T, np.ones(3), Y @ Y.T)]
    value = cost(*inputs, reg=0.3)
    plain = torch.autograd.grad(value, inputs, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(value, inputs, create_graph=True), plain)


@both
def test_one_sided_difference_off_a_singular_covariance(cost):
    """Smooth at the boundary: the gradient predicts the change towards full rank, to second order."""
    A, B, zero = torch.diag(torch.tensor([1.0, 0.0])).double(), torch.from_numpy(spd(2)), torch.zeros(2).double()
    A.requires_grad_()
    value = cost(zero, A, zero, B, reg=0.5)
    value.backward()
    step = torch.tensor([[0.0, 0.0], [0.0, 1e-6]], dtype=torch.float64)
    change = cost(zero, A.detach() + step, zero, B, reg=0.5) - value.detach()
    assert change.item() == pytest.approx((A.grad * step).sum().item(), rel=1e-4)


@both
def test_third_derivatives(cost):
    x = torch.tensor([0.3, 1.1, 0.4], dtype=torch.float64, requires_grad=True)
    zero, B = torch.zeros(2, dtype=torch.float64), torch.from_numpy(spd(2))

    def second(x):
        cov = torch.stack([torch.stack([x[0] ** 2, x[0] * x[1]]), torch.stack([x[0] * x[1], x[1] ** 2 + x[2] ** 2])])
        (first,) = torch.autograd.grad(cost(zero, cov, zero, B, reg=0.7), x, create_graph=True)
        return torch.autograd.grad(first.sin().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (x,))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_low_precision_is_computed_in_a_higher_one(cost, dtype):
    C = torch.from_numpy(spd(4)).to(dtype)
    C = (C.tril() + C.tril(-1).mT).requires_grad_()
    others = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype), torch.eye(4, dtype=dtype)
    value = cost(others[0], C, *others[1:], reg=0.1)
    value.backward()
    assert value.dtype == C.grad.dtype == dtype
    reference = cost(*(t.detach().double() for t in (others[0], C, *others[1:])), reg=0.1)
    assert value.item() == pytest.approx(reference.item(), rel=2 * torch.finfo(dtype).eps)


# Bad input


@both
@pytest.mark.parametrize(
    ("reg", "error", "message"),
    [
        (0.0, ValueError, "reg is 0.0; expected a finite number > 0"),
        (np.inf, ValueError, "reg is inf"),
        ("1", TypeError, "reg is '1' of type str"),
    ],
)
def test_bad_reg(cost, reg, error, message):
    eye, zero = np.eye(2), np.zeros(2)
    with pytest.raises(error, match=message):
        cost(zero, eye, zero, eye, reg=reg)
