"""W2² and its gradients against 60 digits, on the same float inputs, from far apart to nearly equal.

The bound is what the rounding of the inputs themselves moves: 8 eps sqrt(cond Tr / W2²) relative to the value, and
1e-8 of the gradient plus 16 eps cond (1 + |T|). By the profile "nightly" the grid is whole in every dimension; 60
digits of 32 x 32 matrices take seconds, so that by default some of it stands for the rest.
"""

import contextlib
import importlib.util
import os
from itertools import product
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import torch

from otkit.gaussian import w2_squared, w2_squared_from_factors
from otkit.gaussian._bures import compiled
from otkit.gaussian._bures.eigen import trace_error

EPS = np.finfo(float).eps
CONDITIONS = (1.0, 1e2, 1e4, 1e8)
RATIOS = (1.0, 1e-4, 1e-8, 1e-12)
KINDS = ("random", "smallest", "repeated")
WHOLE = os.environ.get("OTKIT_PROFILE") == "nightly"
GRID = [(d, *rest) for d in (1, 2, 3, 8, 16, 32)[: 6 if WHOLE else 4] for rest in product(CONDITIONS, RATIOS, KINDS)]
if not WHOLE:
    GRID += [(16, *rest) for rest in product(CONDITIONS, (1.0, 1e-8, 1e-12), ("random", "smallest"))]
    GRID += [(32, *rest) for rest in product(CONDITIONS, (1.0, 1e-12), ("random",))]
    GRID += [(32, 1e8, 1e-12, "smallest"), (32, 1e8, 1e-8, "repeated")]


ROUTES = ("numpy", "numba") if importlib.util.find_spec("numba") else ("numpy",)


@contextlib.contextmanager
def by(route):
    """Covariances by NumPy's loops alone, or by compiled ones however few pairs there are."""
    with pytest.MonkeyPatch.context() as patch:
        if route == "numpy":
            patch.setattr(compiled, "loops", lambda: None)
        else:
            patch.setattr(compiled, "ALONE", compiled.LARGEST)
            patch.setattr(compiled, "MANY", 1)
        yield


class Exact(NamedTuple):
    value: float
    gradient1: np.ndarray
    gradient2: np.ndarray
    norms: tuple[float, float]


def pair(d, cond, ratio, kind):
    """Covariances of a condition number, with W2² about ratio times the sum of their traces.

    The second is C A C with C = I + X, so that C is the optimal map; X is random, or along the smallest eigenvector.
    """
    rng = np.random.default_rng([d, int(np.log10(cond)), int(-np.log10(ratio)), KINDS.index(kind)])
    spectrum = cond ** (-np.arange(d) / max(d - 1, 1))
    if kind == "repeated":
        spectrum = np.where(np.arange(d) < (d + 1) // 2, 1.0, 1 / cond)
    Q, other = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    A = np.eye(d) if cond == 1 else (Q * spectrum) @ Q.T
    if ratio == 1:
        B = 1.7 * (other * spectrum) @ other.T
    else:
        X = np.outer(Q[:, -1], Q[:, -1]) if kind == "smallest" else rng.standard_normal((d, d))
        X = X + X.T
        X *= np.sqrt(2 * ratio * np.trace(A) / np.trace(X @ A @ X))
        if np.linalg.eigvalsh(X)[0] < -0.5:
            X = X @ X / np.linalg.norm(X)
        C = np.eye(d) + X
        B = C @ A @ C
    return (A + A.T) / 2, (B + B.T) / 2


def exactly(A, B):
    """The reference for mpmath matrices: eigenvalues s of (Lᵀ B L)^½, and T = L⁻ᵀ (Lᵀ B L)^½ L⁻¹."""
    d = A.rows
    L = mpmath.cholesky(A)
    eigenvalues, Q = mpmath.eigsy(L.T * B * L)
    s = [mpmath.sqrt(e) for e in eigenvalues]
    W = mpmath.inverse(L).T * Q * mpmath.diag([mpmath.sqrt(x) for x in s])
    Z = L * Q * mpmath.diag([1 / mpmath.sqrt(x) for x in s])
    T, T_inverse = W * W.T, Z * Z.T
    value = sum(A[i, i] + B[i, i] for i in range(d)) - 2 * sum(s)
    gradients = [np.array((mpmath.eye(d) - M).tolist(), dtype=float) for M in (T, T_inverse)]
    norms = [np.linalg.norm(np.array(M.tolist(), dtype=float), 2) for M in (T, T_inverse)]
    return Exact(float(value), *gradients, tuple(norms))


def differentiated(function, *arrays):
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = function(*tensors)
    return value.detach().numpy(), [grad.numpy() for grad in torch.autograd.grad(value.sum(), tensors)]


@pytest.mark.parametrize(("d", "cond", "ratio", "kind"), GRID)
def test_value_and_gradients_to_the_rounding_of_the_inputs(d, cond, ratio, kind):
    A, B = pair(d, cond, ratio, kind)
    with mpmath.workdps(60):
        exact = exactly(mpmath.matrix(A.tolist()), mpmath.matrix(B.tolist()))
    cond = max(np.linalg.cond(A), np.linalg.cond(B))
    bound = max(1e-13, 8 * EPS * np.sqrt(cond * (np.trace(A) + np.trace(B)) / exact.value))
    # Alone, and in a batch with a hard and an easy neighbour: decisions for a block must not spoil it.
    hard = np.diag(1e7 ** (-np.arange(d) / max(d - 1, 1)))
    alone = (A[None], B[None])
    mixed = (np.stack([A, hard, 3 * np.eye(d)]), np.stack([B, np.eye(d), hard + np.eye(d)]))
    for route, (first, second) in product(ROUTES, (alone, mixed)):
        zero = np.zeros(first.shape[:-1])
        with by(route):
            plain = w2_squared(zero, first, zero, second)[0]
            value, (mean1, gradient1, mean2, gradient2) = differentiated(w2_squared, zero, first, zero, second)
        for number in (plain, value[0]):
            assert abs(number / exact.value - 1) <= bound
        assert not mean1.any()
        assert not mean2.any()
        checks = zip((gradient1, gradient2), (exact.gradient1, exact.gradient2), exact.norms, strict=True)
        for gradient, expected, norm in checks:
            allowed = 1e-8 * np.linalg.norm(expected) + 16 * EPS * cond * (1 + norm)
            assert np.linalg.norm(gradient[0] - expected) <= allowed


@pytest.mark.parametrize(("d", "cond", "ratio", "kind"), [case for case in GRID if WHOLE or case[0] <= 8])
def test_factors_to_the_rounding_of_the_inputs(d, cond, ratio, kind):
    F, G = (np.linalg.cholesky(cov) for cov in pair(d, cond, ratio, kind))
    with mpmath.workdps(60):
        f, g = mpmath.matrix(F.tolist()), mpmath.matrix(G.tolist())
        exact = exactly(f * f.T, g * g.T)
    cond = max(np.linalg.cond(F), np.linalg.cond(G)) ** 2
    trace = (F**2).sum() + (G**2).sum()
    bound = max(1e-13, 8 * EPS * np.sqrt(cond * trace / exact.value))
    zero = np.zeros(d)
    value, (_, gradient1, _, gradient2) = differentiated(w2_squared_from_factors, zero, F, zero, G)
    assert abs(value / exact.value - 1) <= bound
    checks = zip((gradient1, gradient2), (2 * exact.gradient1 @ F, 2 * exact.gradient2 @ G), exact.norms, strict=True)
    for gradient, expected, norm in checks:
        assert np.linalg.norm(gradient - expected) <= 1e-8 * np.linalg.norm(expected) + 16 * EPS * cond * (1 + norm)


@pytest.mark.parametrize("d", [2, 8, 32])
@pytest.mark.parametrize("ratio", [1.0, 1e-2, 2e-5])
def test_float32(d, ratio):
    A, B = (cov.astype(np.float32) for cov in pair(d, 1e2, ratio, "random"))
    A, B = (np.tril(cov) + np.tril(cov, -1).T for cov in (A, B))
    with mpmath.workdps(60):
        exact = exactly(mpmath.matrix(A.astype(float).tolist()), mpmath.matrix(B.astype(float).tolist()))
    zero = np.zeros(d, dtype=np.float32)
    assert abs(w2_squared(zero, A, zero, B) / exact.value - 1) <= 1e-6


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("cond", [1e2, 1e6])
@pytest.mark.parametrize("route", ROUTES)
def test_large_routes_against_a_known_map(d, cond, route):
    """Beyond the reach of 60 digits: B = C A C for a map C that is known, so that W2² = Tr (C - I) A (C - I).

    The gradients are I - C and I - C⁻¹.
    """
    rng = np.random.default_rng(d)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = (Q * cond ** (-np.arange(d) / (d - 1))) @ Q.T
    X = rng.standard_normal((d, d))
    X = (X + X.T) * (0.2 / np.sqrt(d))
    C = np.eye(d) + X
    A, B = (A + A.T) / 2, C @ A @ C
    B = (B + B.T) / 2
    expected, zero = np.trace(X @ A @ X), np.zeros(d)
    with by(route):
        plain = w2_squared(zero, A, zero, B)
        value, (_, gradient1, _, gradient2) = differentiated(w2_squared, zero, A, zero, B)
    bound = 1e-12 + 8 * EPS * np.sqrt(cond * np.trace(A + B) / expected)
    assert abs(plain / expected - 1) <= bound
    assert abs(value / expected - 1) <= bound
    assert np.linalg.norm(gradient1 + X) <= 1e-8 * np.linalg.norm(X) + 64 * EPS * cond * np.linalg.norm(C)
    inverse = np.linalg.inv(C)
    off, size = np.linalg.norm(gradient2 - inverse @ X), np.linalg.norm(inverse)
    assert off <= 1e-8 * np.linalg.norm(inverse @ X) + 64 * EPS * cond * np.linalg.cond(C) ** 2 * size


@pytest.mark.parametrize("spectrum", ["log", "half", "one small", "one large", "some small"])
@pytest.mark.parametrize("cond", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("near", [False, True])
def test_the_error_of_the_trace_form_is_foreseen(spectrum, cond, near):
    """By the determinant, against singular values, which LAPACK finds to eps times the largest."""
    d, rng = 64, np.random.default_rng(0)
    k = np.arange(d)
    small = {"log": None, "half": k >= d // 2, "one small": k == d - 1, "one large": k > 0, "some small": k >= d - 8}
    values = cond ** (-k / (d - 1)) if small[spectrum] is None else np.where(small[spectrum], 1 / cond, 1.0)
    for _ in range(4):
        F, G, X = ((Q * values**0.5) @ Q.T for Q in np.linalg.qr(rng.standard_normal((3, d, d)))[0])
        F, G = (np.linalg.cholesky(C @ C.T) for C in (F, (np.eye(d) + 0.05 * X) @ F if near else G))
        M = G.T @ F
        eigenvalues = np.linalg.eigvalsh(M.T @ M)
        trace = (F**2).sum() + (G**2).sum()
        log_det = 2 * np.log(F.diagonal() * G.diagonal()).sum()
        error = 2 * abs(np.sqrt(eigenvalues).sum() - np.linalg.svd(M, compute_uv=False).sum())
        assert error <= trace_error(eigenvalues, log_det, trace)


@pytest.mark.parametrize("route", ROUTES)
def test_threads_change_nothing(route):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 40, 80))
    covs = X @ np.swapaxes(X, -1, -2) / 80
    zero, values = np.zeros((200, 40)), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with by(route):
            values.append(differentiated(w2_squared, zero, covs, zero, covs[::-1].copy()))
    (one, gradients_one), (two, gradients_two) = values
    np.testing.assert_array_equal(one, two)
    for first, second in zip(gradients_one, gradients_two, strict=True):
        np.testing.assert_array_equal(first, second)
