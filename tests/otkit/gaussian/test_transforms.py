"""The distances under torch.func and twice differentiated, validation included, and those by factors."""

import numpy as np
import pytest
import torch

from otkit.gaussian import w2, w2_squared, w2_squared_from_factors

d = 3


def spd(n, seed):
    X = torch.randn(n, d, 2 * d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return X @ X.mT / (2 * d)


def means(n, seed):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


ARGUMENTS = (means(4, 0), spd(4, 1), means(4, 2), spd(4, 3))
FUNCTIONS = {"w2_squared": w2_squared, "w2": w2, "w2_squared_from_factors": w2_squared_from_factors}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def test_vmap_is_the_batch(function):
    torch.testing.assert_close(torch.func.vmap(function)(*ARGUMENTS), function(*ARGUMENTS))
    one_to_many = torch.func.vmap(function, in_dims=(None, None, 0, 0))
    m, C, *rest = ARGUMENTS
    torch.testing.assert_close(one_to_many(m[0], C[0], *rest), function(m[:1], C[:1], *rest))


def test_grad_and_vmap_of_it(function):
    by_autograd = [t.clone().requires_grad_() for t in ARGUMENTS]
    function(*by_autograd).sum().backward()
    gradients = torch.func.vmap(torch.func.grad(function, argnums=(0, 1, 2, 3)))(*ARGUMENTS)
    for ours, theirs in zip(gradients, by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs.grad)
    of_vmap = torch.func.grad(lambda C: torch.func.vmap(function)(ARGUMENTS[0], C, *ARGUMENTS[2:]).sum())(ARGUMENTS[1])
    torch.testing.assert_close(of_vmap, by_autograd[1].grad)


def test_second_derivatives_by_jacrev(function):
    m1, C1, m2, C2 = (t[0] for t in ARGUMENTS)

    def along(t, shift):
        """Through a symmetric perturbation, against a central difference of the gradient."""
        return function(m1, C1 + t * shift, m2, C2 + 0.3 * t * shift)

    shift, zero = spd(1, 9)[0], torch.zeros((), dtype=torch.float64)
    second = torch.func.jacrev(torch.func.jacrev(along))(zero, shift)
    gradient = torch.func.grad(along)
    h = 1e-5
    torch.testing.assert_close(
        second, (gradient(zero + h, shift) - gradient(zero - h, shift)) / (2 * h), rtol=1e-7, atol=1e-8
    )


def test_validation_survives_vmap():
    bad = ARGUMENTS[1].clone()
    bad[2] = -bad[2]
    with pytest.raises(ValueError, match="cov1 must be positive semidefinite"):
        torch.func.vmap(w2_squared)(ARGUMENTS[0], bad, *ARGUMENTS[2:])


def test_fallbacks_survive_vmap_one_matrix_at_a_time():
    covs = ARGUMENTS[1].clone()
    covs[1] = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    covs[2] = 0
    m1, _, m2, C2 = ARGUMENTS
    batched = torch.func.vmap(w2_squared)(m1, covs, m2, C2)
    singly = torch.stack([w2_squared(*each) for each in zip(m1, covs, m2, C2, strict=True)])
    torch.testing.assert_close(batched, singly, rtol=1e-13, atol=0)
    assert singly[2].item() == pytest.approx(((m1[2] - m2[2]) ** 2).sum().item() + C2[2].trace().item(), rel=1e-14)


# Factors


def by_covariances(m1, F, m2, G):
    return w2_squared(m1, F @ F.mT, m2, G @ G.mT)


@pytest.mark.parametrize(("r", "s"), [(1, 1), (1, 3), (2, 3), (3, 3), (2, 7), (5, 4), (7, 3)])
def test_factors_of_any_shape(r, s):
    rng = np.random.default_rng(10 * r + s)
    m1, m2 = rng.normal(size=(2, 2, d))
    F, G = rng.normal(size=(2, d, r)), rng.normal(size=(2, d, s))
    tensors = [torch.tensor(array, requires_grad=True) for array in (m1, F, m2, G)]
    torch.testing.assert_close(w2_squared_from_factors(*tensors), by_covariances(*tensors), rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradcheck(w2_squared_from_factors, tensors)
    assert torch.autograd.gradgradcheck(w2_squared_from_factors, tensors)


@pytest.mark.parametrize("small", [1e-2, 1e-4, 1e-6, 1e-8, 1e-9])
def test_wide_factors_keep_the_digits_of_small_directions(small):
    """Between U diag(1, e) and U diag(1, 3e), whatever orthonormal rows come after, W2² is (2e)²."""
    rng = np.random.default_rng(0)
    U, *columns = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (2, 3, 5))
    rows = [c[:2] for c in columns]
    F, G = (
        torch.tensor(U @ np.diag([1.0, k * small]) @ r, requires_grad=True) for k, r in zip((1, 3), rows, strict=True)
    )
    zero = torch.zeros(2, dtype=torch.float64)
    value = w2_squared_from_factors(zero, F, zero, G)
    value.backward()
    unit = 8 * 2.2e-16 / (2 * small)
    assert value.item() == pytest.approx((2 * small) ** 2, rel=max(1e-13, unit), abs=0)
    for factor, k, r in ((F, -4, rows[0]), (G, 4, rows[1])):
        expected = U @ np.diag([0.0, k * small]) @ r
        np.testing.assert_allclose(factor.grad, expected, rtol=0, atol=max(1e-13, unit) * 4 * small)


def test_wide_factors_of_any_rank_have_finite_derivatives():
    """Of rank 0, 1 and 2 in three dimensions, where the square root has zero directions."""
    rng = np.random.default_rng(1)
    zero, G = torch.zeros(3, dtype=torch.float64), torch.from_numpy(rng.normal(size=(3, 4)))
    for rank in range(3):
        F = torch.tensor(rng.normal(size=(3, rank)) @ rng.normal(size=(rank, 5)), requires_grad=True)
        value = w2_squared_from_factors(zero, F, zero, G)
        expected = w2_squared(zero, F.detach() @ F.detach().mT, zero, G @ G.mT)
        assert value.item() == pytest.approx(expected.item(), rel=1e-7)
        (first,) = torch.autograd.grad(value, F, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), F)
        assert torch.isfinite(first).all()
        assert torch.isfinite(second).all()


def test_many_dimensions_and_few_samples_need_no_large_matrix():
    rng = np.random.default_rng(0)
    F, G = rng.normal(size=(100_000, 4)), rng.normal(size=(100_000, 3))
    zero = np.zeros(100_000)
    cross = np.linalg.svd(G.T @ F, compute_uv=False).sum()
    expected = (F**2).sum() + (G**2).sum() - 2 * cross
    assert w2_squared_from_factors(zero, F, zero, G) == pytest.approx(expected, rel=1e-12)


def test_equal_factors_are_exactly_zero_apart():
    F = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(5, dtype=torch.float64)
    value = w2_squared_from_factors(zero, F, zero, F.detach().clone())
    value.backward()
    assert value.item() == 0
    assert not F.grad.any()


SECOND = {
    "eager": torch.autograd.functional.hessian,
    "func": lambda f, x: torch.func.jacrev(torch.func.jacrev(f))(x),
}


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (3, 3), (2, 4)])
def test_second_derivatives_at_equal_factors_are_those_beside_them(second, shape):
    F = torch.from_numpy(np.random.default_rng(3).normal(size=shape))
    zero = torch.zeros(shape[0], dtype=torch.float64)

    def distance(X):
        return w2_squared_from_factors(zero, X, zero, F)

    apart = F + 1e-7 * torch.from_numpy(np.random.default_rng(4).normal(size=shape))
    torch.testing.assert_close(second(distance, F), second(distance, apart), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("ratio", [1e-60, 1e-32, 1e-20, 1e32])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_second_derivatives_between_covariances_of_very_different_size(second, ratio, d):
    """Between v I and w I, W2² is d (√v - √w)²."""
    zero, one = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    sizes = torch.tensor([1.0, ratio], dtype=torch.float64)
    found = second(lambda s: w2_squared(zero, s[0] * one, zero, s[1] * one), sizes)
    expected = [[ratio**0.5, -(ratio**-0.5)], [-(ratio**-0.5), ratio**-1.5]]
    torch.testing.assert_close(found, d / 2 * torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_concave_kink_gives_one_of_the_one_sided_derivatives():
    """F = (1, 0), G = (0, 1): 2 + ε² - 2|ε| along G = (ε, 1)."""
    F, G = (torch.tensor(column, dtype=torch.float64)[:, None].requires_grad_() for column in ([1.0, 0.0], [0.0, 1.0]))
    zero = torch.zeros(2, dtype=torch.float64)
    value = w2_squared_from_factors(zero, F, zero, G)
    value.backward()
    assert value.item() == pytest.approx(2)
    assert abs(G.grad[0].item()) == pytest.approx(2)


@pytest.mark.parametrize(
    ("factor1", "message"),
    [
        (np.ones((2, 1)), r"factor1 has shape \(2, 1\); expected \(..., 3, r\)"),
        (np.ones((3, 0)), r"factor1 has shape \(3, 0\); expected \(..., 3, r\), r >= 1"),
        (np.full((3, 1), np.nan), "factor1 must be finite"),
    ],
)
def test_bad_factors(factor1, message):
    with pytest.raises(ValueError, match=message):
        w2_squared_from_factors(np.zeros(3), factor1, np.zeros(3), np.ones((3, 1)))
