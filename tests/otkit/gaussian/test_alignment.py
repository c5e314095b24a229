"""The gradient of W2 between factors shows Q: in every direction that the factors know, however small."""

import mpmath
import numpy as np
import pytest
import torch

from otkit.gaussian import w2_squared_from_factors

EPS = np.finfo(float).eps


def value_and_gradients(F, G):
    zero = torch.zeros(len(F), dtype=torch.float64)
    F, G = (torch.tensor(factor, requires_grad=True) for factor in (F, G))
    value = w2_squared_from_factors(zero, F, zero, G)
    return value.item(), *(gradient.numpy() for gradient in torch.autograd.grad(value, (F, G)))


def at_ninety_digits(F, G):
    """|F - G Qᵀ|² and its gradients, Q being the polar factor of FᵀG, whose null space is that of F or G."""
    if F.shape[1] < G.shape[1]:
        value, second, first = at_ninety_digits(G, F)
        return value, first, second
    with mpmath.workdps(90):
        F, G = mpmath.matrix(F.tolist()), mpmath.matrix(G.tolist())
        M = F.T * G
        h, V = mpmath.eigsy(M.T * M)
        Q = M * V * mpmath.diag([1 / mpmath.sqrt(each) if each > 1e-70 else 0 for each in h]) * V.T
        parts = F - G * Q.T, G - F * Q
        value = float(sum(each**2 for each in parts[0]))
        return value, *(2 * np.array(part.tolist(), dtype=float) for part in parts)


@pytest.mark.parametrize("sizes", [(1, 1e-6, 2e-6), (1, 1e-9, 3e-9), (1, 1e-9, 1e-12), (1, 1e-7, 1e-13), (1, 1, 1e-11)])
@pytest.mark.parametrize(("r", "s"), [(3, 3), (3, 2), (2, 5), (4, 5)])
def test_gradients_of_graded_factors_against_ninety_digits(sizes, r, s):
    rng = np.random.default_rng(0)
    for _ in range(3):
        U, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        F, G = (U @ (np.array(sizes)[:, None] * rng.normal(size=(3, n))) for n in (r, s))
        value, first, second = value_and_gradients(F, G)
        expected = at_ninety_digits(F, G)
        assert value == pytest.approx(expected[0], rel=1e-12)
        # The smallest direction that counts is known to EPS / size, as the entries of the factors are.
        for gradient, right in ((first, expected[1]), (second, expected[2])):
            for k in range(min(r, s, 3)):
                along = U[:, k]
                np.testing.assert_allclose(along @ gradient, along @ right, rtol=0, atol=100 * EPS)


def test_the_distance_of_nearly_equal_factors_is_that_of_their_smallest_direction():
    """Between U diag(1, e) and U diag(1, 3e), turned on the right, W2² is (2e)², and not (4e)²."""
    rng = np.random.default_rng(0)
    for small in (1e-8, 1e-9, 1e-11):
        for _ in range(10):
            U, A, B = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(3))
            F, G = U @ np.diag([1, small]) @ A, U @ np.diag([1, 3 * small]) @ B
            value, *_ = value_and_gradients(F, G)
            assert value == pytest.approx((2 * small) ** 2, rel=1e2 * EPS / small, abs=0)


def test_a_batch_of_all_kinds_is_its_pairs_one_by_one():
    """Regular, graded, singular and zero factors, and those whose ranges are orthogonal."""
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    sizes = np.array([(1, 1, 1, 1), (1, 1e-9, 1e-9, 1e-9), (1, 1e-9, 1e-13, 0), (1, 1, 1e-9, 0), (0, 0, 0, 0)])
    F, G = (U @ (sizes[:, :, None] * rng.normal(size=(4, 3))) for _ in range(2))
    F[3], G[3] = np.eye(4, 3) * (1, 1e-9, 0), np.roll(np.eye(4, 3), 2, 0) * (1, 1e-9, 0)
    zero = torch.zeros(4, dtype=torch.float64)
    batch = [torch.tensor(factor, requires_grad=True) for factor in (F, G)]
    values = w2_squared_from_factors(zero, batch[0], zero, batch[1])
    gradients = torch.autograd.grad(values.sum(), batch)
    for k, value in enumerate(values):
        alone, *expected = value_and_gradients(F[k], G[k])
        assert value.item() == pytest.approx(alone, rel=1e-14, abs=0)
        for gradient, right in zip(gradients, expected, strict=True):
            assert np.isfinite(right).all()
            np.testing.assert_allclose(gradient[k], right, rtol=0, atol=10 * EPS)


def test_its_accuracy_is_that_of_the_documentation():
    """16 EPS (Tr / W2²)^½, at all scales of the factors' directions and of what tells them apart."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        d = rng.integers(2, 6)
        sizes, apart = 10 ** -rng.uniform(0, rng.uniform(0, 13), d), 10 ** rng.uniform(-8, 0.5)
        U, A, B = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(3))
        F, G = U @ np.diag(sizes) @ A, U @ np.diag(sizes * np.exp(apart * rng.normal(size=d))) @ B
        value, expected = value_and_gradients(F, G)[0], at_ninety_digits(F, G)[0]
        trace = np.square(F).sum() + np.square(G).sum()
        assert value == pytest.approx(expected, rel=max(1e-13, 16 * EPS * (trace / expected) ** 0.5), abs=0)
