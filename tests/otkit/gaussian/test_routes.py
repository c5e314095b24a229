"""Routes that the size of a batch or of its matrices decides on: each gives what the others give."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import lapack

from otkit.gaussian import pairwise_w2_squared, w2_squared
from otkit.gaussian._bures import blocks, compiled, eigen, halley, procrustes, threads
from otkit.gaussian._bures.fortran import Matrix
from otkit.gaussian._bures.ladder import LADDER, completed
from tests.otkit.gaussian.test_accuracy import EPS, ROUTES, by, differentiated, exactly, pair


@pytest.mark.parametrize("d", [3, 8, 12, 40])
@pytest.mark.parametrize("route", ROUTES)
def test_a_batch_of_all_kinds_is_its_pairs_one_by_one(d, route):
    rng = np.random.default_rng(d)
    Q = np.linalg.qr(rng.standard_normal((2, 60, d, d)))[0]
    cond = np.where(np.arange(60) % 7 == 0, 1e8, 1e2)
    spectrum = cond[:, None] ** (-np.arange(d) / (d - 1))
    spectrum[5, -1] = 0  # one is singular
    covs = (Q * spectrum[:, None]) @ np.swapaxes(Q, -1, -2)
    A, B = (covs + np.swapaxes(covs, -1, -2)) / 2
    zero = np.zeros((60, d))
    with by(route):
        value, (_, gradient1, _, gradient2) = differentiated(w2_squared, zero, A, zero, B)
    for k in range(60):
        one, (_, first, _, second) = differentiated(w2_squared, zero[k], A[k], zero[k], B[k])
        np.testing.assert_allclose(value[k], one, rtol=1e-10)
        for ours, theirs in ((gradient1[k], first), (gradient2[k], second)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * EPS * cond[k] * np.abs(theirs).max())


@pytest.mark.parametrize("d", [6, 20])
@pytest.mark.parametrize("route", ROUTES)
def test_a_large_direction_among_the_smallest_that_polynomials_serve_needs_no_second_way(d, route, monkeypatch):
    """Of covariances that commute, W2² = Σ(√a - √b)² and the gradients are I - √(B A⁻¹) and I - √(A B⁻¹)."""
    rng, n = np.random.default_rng(d), 200
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    a, b = 2e-9 * (1 + 0.3 * rng.random((2, n, d)))
    a[:, 0] = b[:, 0] = 1
    b *= 4
    root = np.sqrt(b / a)
    A, B, first, second = ((Q * each[:, None]) @ Q.swapaxes(1, 2) for each in (a, b, 1 - root, 1 - 1 / root))
    A, B, zero = (A + A.swapaxes(1, 2)) / 2, (B + B.swapaxes(1, 2)) / 2, np.zeros((n, d))
    monkeypatch.delattr(procrustes, "value_and_gradients")
    with by(route):
        value, (_, gradient1, _, gradient2) = differentiated(w2_squared, zero, A, zero, B)
    np.testing.assert_allclose(value, ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(1), rtol=1e-14)
    for ours, theirs in ((gradient1, first), (gradient2, second)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=16 * EPS / 2e-9)


@pytest.mark.parametrize("d", [2, 3, 8, 12, 40, 136])
@pytest.mark.parametrize("route", [*ROUTES, "pairwise", "procrustes"])
def test_singular_covariances_are_so_whether_or_not_rounding_gives_them_a_factor(d, route):
    """A = F Fᵀ of rank d - 1 to I: the value is Σ(√λ - 1)² + 1, the gradient I - A^{-1/2}, by the pseudo-inverse."""
    rng, n = np.random.default_rng(d), 40 if d < 100 else 6
    F = rng.standard_normal((n, d, d - 1)) / np.sqrt(d)
    A, eye, zero = F @ np.swapaxes(F, 1, 2), np.broadcast_to(np.eye(d), (n, d, d)), np.zeros((n, d))
    lucky = np.isfinite(np.linalg.slogdet(A)[1]) & (np.linalg.eigvalsh(A)[:, 0] > 0)
    assert lucky.any() or d == 2
    if route == "pairwise":
        parts = [
            differentiated(pairwise_w2_squared, zero[k, None], A[k, None], zero[k, None], eye[k, None])
            for k in range(n)
        ]
        value, first = np.array([v.item() for v, _ in parts]), np.array([g[1][0] for _, g in parts])
    elif route == "procrustes":
        found = procrustes.value_and_gradients(*(torch.tensor(c) for c in (A, eye)), EPS)
        value, first = (part.numpy() for part in found[:2])
    else:
        with by(route):
            value, (_, first, _, _) = differentiated(w2_squared, zero, A, zero, eye.copy())
    U, s, _ = np.linalg.svd(F, full_matrices=False)
    np.testing.assert_allclose(value, ((s - 1) ** 2).sum(1) + 1, rtol=1e-12)
    expected = np.eye(d) - (U / s[:, None]) @ np.swapaxes(U, 1, 2)
    off = np.abs(first - expected).max((1, 2)) / np.abs(expected).max((1, 2))
    assert (off <= 16 * EPS * d * (s.max(1) / s.min(1)) ** 2).all()


@pytest.mark.parametrize("scale", [1.0, 1e-140, 1e140])
@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 4])
@pytest.mark.parametrize("pairwise", [False, True])
def test_a_small_eigenvalue_counts_as_zero_in_the_plane_whatever_its_direction(pairwise, angle, scale):
    """Below 16 d eps of the largest; the slope of a larger one is (1 - λ^-½) in its direction."""
    Q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zero, eye = np.zeros((1, 2)), np.eye(2)[None]
    for least, slope in ((1e-18, 1.0), (1e-15, 1.0), (1e-13, 1 - 1e-13**-0.5)):
        for spectrum in ([1.0, least], [least, 1.0]):
            A = Q @ np.diag(spectrum) @ Q.T
            A = scale * (A + A.T)[None] / 2
            of = pairwise_w2_squared if pairwise else w2_squared
            _, (_, first, _, _) = differentiated(of, zero, A, zero, scale * eye)
            _, (_, _, _, second) = differentiated(of, zero, scale * eye, zero, A)
            expected = Q @ np.diag([slope if each == least else 0.0 for each in spectrum]) @ Q.T
            # In a turned basis the entries say the eigenvalue to a rounding of the largest.
            allowed = 1e-9 + (abs(slope) * EPS / least if angle and slope < 0 else 0)
            for gradient in (first, second):
                np.testing.assert_allclose(gradient[0], expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("scale", [2.0**-524, 2.0**512])
def test_the_plane_where_squares_of_covariances_leave_the_range_of_float64(scale):
    A, B, zero = np.array([[[2.0, 1.0], [1.0, 3.0]]]), np.array([[[5.0, -1.0], [-1.0, 0.7]]]), np.zeros((1, 2))
    value, gradients = differentiated(w2_squared, zero, A, zero, B)
    scaled, others = differentiated(w2_squared, zero, scale * A, zero, scale * B)
    np.testing.assert_allclose(scaled / scale, value, rtol=1e-12)
    np.testing.assert_allclose(others[1::2], gradients[1::2], rtol=1e-12)


def test_eigenvalues_that_lapack_gives_up_on_are_not_used(monkeypatch):
    A, B = pair(4, 1e2, 1.0, "random")
    assert eigen.value_by_trace(A, B)[1]
    of = lapack.dsyevd
    monkeypatch.setattr(lapack, "dsyevd", lambda *args, **options: (*of(*args, **options)[:2], 1))
    assert not eigen.value_by_trace(A, B)[1]


def test_the_trace_form_is_as_good_in_either_order(monkeypatch):
    """What is allowed is known from the worse covariance, wherever it stands."""
    A, B = np.eye(4), np.diag(np.geomspace(1, 1e-8, 4))
    for error in np.geomspace(1e-15, 1e-8, 50):
        monkeypatch.setattr(eigen, "trace_error", lambda *_, error=error: error)
        assert eigen.value_by_trace(A, B)[1] == eigen.value_by_trace(B, A)[1]


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e8])
@pytest.mark.parametrize(("ratio", "kind"), [(1.0, "random"), (1e-8, "smallest"), (1e-12, "random")])
def test_halleys_iteration_to_the_rounding_of_the_inputs(cond, ratio, kind):
    """At a size that 60 digits reach, with the bounds of test_accuracy."""
    A, B = pair(16, cond, ratio, kind)
    with mpmath.workdps(60):
        exact = exactly(mpmath.matrix(A.tolist()), mpmath.matrix(B.tolist()))
    cond = max(np.linalg.cond(A), np.linalg.cond(B))
    room = halley.Room(16)
    value, gradient1, gradient2, accurate = halley.value_and_gradients(A, B, room, gradients=True, hopeless=1e10)
    assert accurate
    assert abs(value / exact.value - 1) <= max(1e-13, 8 * EPS * np.sqrt(cond * np.trace(A + B) / exact.value))
    for gradient, expected, norm in zip(
        (gradient1, gradient2), (exact.gradient1, exact.gradient2), exact.norms, strict=True
    ):
        allowed = 1e-8 * np.linalg.norm(expected) + 16 * EPS * cond * (1 + norm)
        assert np.linalg.norm(gradient - expected) <= allowed


@pytest.mark.parametrize("d", [40, 140])
def test_a_room_does_not_remember_the_pair_before(d):
    room = halley.Room(d)
    for cond in (1e8, 1e12, 1e2, 1e4, 2.0):
        A, B = (in_random_basis(np.geomspace(1, 1 / cond, d), seed) for seed in (0, 1))
        ours = halley.value_and_gradients(A, B, room, gradients=True, hopeless=1e10)
        fresh = halley.value_and_gradients(A, B, halley.Room(d), gradients=True, hopeless=1e10)
        assert ours[3] is (cond < 1e12)
        for one, other in zip(ours, fresh, strict=True):
            np.testing.assert_array_equal(one, other)


def in_random_basis(spectrum, seed):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum),) * 2))[0]
    cov = (Q * spectrum) @ Q.T
    return (cov + cov.T) / 2


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e8])
@pytest.mark.parametrize(("ratio", "kind"), [(1.0, "random"), (1e-8, "smallest"), (1e-12, "random")])
def test_products_on_threads_to_the_rounding_of_the_inputs(cond, ratio, kind, monkeypatch):
    """At a size that 60 digits reach, with the bounds of test_accuracy."""
    A, B = pair(16, cond, ratio, kind)
    with mpmath.workdps(60):
        exact = exactly(mpmath.matrix(A.tolist()), mpmath.matrix(B.tolist()))
    cond = max(np.linalg.cond(A), np.linalg.cond(B))
    monkeypatch.setattr(compiled, "loops", lambda: None)
    monkeypatch.setattr(blocks, "FUSED", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    # Of the others of the batch one is put off.
    covs1, covs2 = np.stack([A] * 9), np.stack([B] * 9)
    covs1[3] = covs2[3] = np.diag(np.geomspace(1, 1e-9, 16))
    values, gradients1, gradients2, _ = blocks.value_and_gradients(covs1, covs2, EPS, gradients=True, validate=True)
    np.testing.assert_allclose(values[3], 0, atol=1e-25)
    alone, *_ = blocks.value_and_gradients(covs1, covs2, EPS, gradients=False, validate=True)
    np.testing.assert_array_equal(alone, values)
    for value, gradient1, gradient2 in zip(values[[0, 8]], gradients1[[0, 8]], gradients2[[0, 8]], strict=True):
        assert abs(value / exact.value - 1) <= max(1e-13, 8 * EPS * np.sqrt(cond * np.trace(A + B) / exact.value))
        for gradient, expected, norm in zip(
            (gradient1, gradient2), (exact.gradient1, exact.gradient2), exact.norms, strict=True
        ):
            allowed = 1e-8 * np.linalg.norm(expected) + 16 * EPS * cond * (1 + norm)
            assert np.linalg.norm(gradient - expected) <= allowed


@pytest.mark.parametrize("d", [16, 40, 100, 140])
@pytest.mark.parametrize("route", ROUTES)
def test_one_thread_or_two_are_one_distance(d, route):
    A, B = (z @ z.mT + torch.eye(d, dtype=torch.float64) for z in torch.randn(2, 7, d, d, dtype=torch.float64))
    found = []
    for number in (1, 2):
        torch.set_num_threads(number)
        with by(route):
            found.append(blocks.value_and_gradients(A.numpy(), B.numpy(), EPS, gradients=True, validate=True))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("d", "n"), [(140, 7), (260, 2), (260, 3)])
def test_large_pairs_on_threads_are_those_pair_by_pair(d, n, monkeypatch):
    A, B = (z @ z.mT + torch.eye(d, dtype=torch.float64) for z in torch.randn(2, n, d, d, dtype=torch.float64))
    A[1, 1:] = A[1, :, 1:] = 0  # which the fallback takes
    calls, of = [], blocks.blas_on_one_thread
    monkeypatch.setattr(blocks, "blas_on_one_thread", lambda: calls.append(1) or of())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    together = blocks.value_and_gradients(A.numpy(), B.numpy(), EPS, gradients=True, validate=True)
    assert calls == [1]
    for k in range(n):
        alone = blocks.value_and_gradients(
            A[k : k + 1].numpy(), B[k : k + 1].numpy(), EPS, gradients=True, validate=True
        )
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[k], other[0], rtol=1e-11, atol=1e-11)
    assert calls == [1]
    # Without what sets the threads of BLAS, one thread of ours.
    monkeypatch.setattr(blocks, "blas", lambda: None)
    for one, other in zip(
        together, blocks.value_and_gradients(A.numpy(), B.numpy(), EPS, gradients=True, validate=True), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    assert calls == [1]


def test_the_threads_of_blas_are_as_they_were_whoever_leaves_first():
    def number():
        return {library["num_threads"] for library in threads.blas().info()}

    with threads.blas().limit(limits=2):
        first, second = threads.blas_on_one_thread(), threads.blas_on_one_thread()
        first.__enter__()
        second.__enter__()
        assert number() == {1}
        first.__exit__(None, None, None)
        assert number() == {1}
        second.__exit__(None, None, None)
        assert number() == {2}
        with pytest.raises(ZeroDivisionError), threads.blas_on_one_thread():
            _ = 1 / 0
        assert number() == {2}


def test_threads_of_blas_that_nothing_sets(monkeypatch):
    monkeypatch.setattr(threads.importlib.util, "find_spec", lambda name: None)
    assert threads.blas.__wrapped__() is None


@pytest.mark.parametrize("d", [5, 128, 129, 300])
def test_the_lower_half_says_all(d):
    A = np.asfortranarray(np.random.default_rng(0).normal(size=(d, d)))
    whole = np.tril(A) + np.tril(A, -1).T
    np.testing.assert_array_equal(halley._mirrored(Matrix.of(A)).array, whole)


@pytest.mark.parametrize("step", [step for row in LADDER for step in row], ids=lambda step: f"{step.degree}")
def test_a_completed_square_is_the_same_polynomial(step):
    x = np.linspace(step.lowest, 1, 101)
    if step.degree == 3:
        a, b = step.coefficients
        expected = x * (a + b * x * x)
    else:
        r, h, *rest = step.coefficients
        C = r * x * x + h
        k1, m, k2 = rest if step.degree == 9 else (rest[0], 0, 0)
        expected = x * (C * C + k1) * (m * C * C + C + k2 if step.degree == 9 else 1)
    scale, shift, *more = completed(step)
    A = scale * x * x + shift
    if step.degree == 5:
        A = A * A + more[0]
    elif step.degree == 9:
        k, outer, inner, last = more
        A = outer * (A * A + k) ** 2 + inner * A + last
    np.testing.assert_allclose(x * A, expected, rtol=0, atol=1e-14)


def polynomial(step, s):
    """A step of a matrix of one number."""
    X, A, Z, out = (Matrix.of(np.full((1, 1), number, order="F")) for number in (s, 0.0, 0.0, 0.0))
    A.array[0, 0] = completed(step)[0] * s * s
    halley._polynomial(step, 1.0, X, A, Z, out)
    return out.array[0, 0]


@pytest.mark.parametrize("lowest", [0.5, 0.1, 1e-2, 1e-4])
def test_halleys_steps_end_at_one(lowest):
    x = np.geomspace(lowest, 1, 1000)
    for step in halley.steps(lowest):
        if isinstance(step, halley.Halley):
            x = x * (step.a + step.b * x * x) / (1 + step.c * x * x)
        else:
            x = np.array([polynomial(step, s) for s in x])
    np.testing.assert_allclose(x, 1, rtol=8 * EPS)
