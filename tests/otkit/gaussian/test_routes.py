"""Routes that the size of a batch or of its matrices decides on: each gives what the others give."""

import mpmath
import numpy as np
import pytest
from scipy.linalg import lapack

from otkit.gaussian import w2_squared
from otkit.gaussian._bures import eigen, halley
from tests.otkit.gaussian.test_accuracy import EPS, differentiated, exactly, pair


@pytest.mark.parametrize("d", [3, 8, 12, 40])
def test_a_batch_of_all_kinds_is_its_pairs_one_by_one(d):
    rng = np.random.default_rng(d)
    Q = np.linalg.qr(rng.standard_normal((2, 60, d, d)))[0]
    cond = np.where(np.arange(60) % 7 == 0, 1e8, 1e2)
    spectrum = cond[:, None] ** (-np.arange(d) / (d - 1))
    spectrum[5, -1] = 0  # one is singular
    covs = (Q * spectrum[:, None]) @ np.swapaxes(Q, -1, -2)
    A, B = (covs + np.swapaxes(covs, -1, -2)) / 2
    zero = np.zeros((60, d))
    value, (_, gradient1, _, gradient2) = differentiated(w2_squared, zero, A, zero, B)
    for k in range(60):
        one, (_, first, _, second) = differentiated(w2_squared, zero[k], A[k], zero[k], B[k])
        np.testing.assert_allclose(value[k], one, rtol=1e-10)
        if k != 5:
            for ours, theirs in ((gradient1[k], first), (gradient2[k], second)):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * EPS * cond[k] * np.abs(theirs).max())


def test_eigenvalues_that_lapack_gives_up_on_are_not_used(monkeypatch):
    A, B = pair(4, 1e2, 1.0, "random")
    assert eigen.value_by_trace(A, B)[1]
    of = lapack.dsyevd
    monkeypatch.setattr(lapack, "dsyevd", lambda *args, **options: (*of(*args, **options)[:2], 1))
    assert not eigen.value_by_trace(A, B)[1]


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e8])
@pytest.mark.parametrize(("ratio", "kind"), [(1.0, "random"), (1e-8, "smallest"), (1e-12, "random")])
def test_halleys_iteration_to_the_rounding_of_the_inputs(cond, ratio, kind):
    """At a size that 60 digits reach, with the bounds of test_accuracy."""
    A, B = pair(16, cond, ratio, kind)
    with mpmath.workdps(60):
        exact = exactly(mpmath.matrix(A.tolist()), mpmath.matrix(B.tolist()))
    cond = max(np.linalg.cond(A), np.linalg.cond(B))
    value, gradient1, gradient2, accurate = halley.value_and_gradients(A, B, gradients=True, hopeless=1e10)
    assert accurate
    assert abs(value / exact.value - 1) <= max(1e-13, 8 * EPS * np.sqrt(cond * np.trace(A + B) / exact.value))
    for gradient, expected, norm in zip(
        (gradient1, gradient2), (exact.gradient1, exact.gradient2), exact.norms, strict=True
    ):
        allowed = 1e-8 * np.linalg.norm(expected) + 16 * EPS * cond * (1 + norm)
        assert np.linalg.norm(gradient - expected) <= allowed


@pytest.mark.parametrize("lowest", [0.5, 0.1, 1e-2, 1e-4])
def test_halleys_steps_end_at_one(lowest):
    x = np.geomspace(lowest, 1, 1000)
    for step in halley.steps(lowest):
        if isinstance(step, halley.Halley):
            x = x * (step.a + step.b * x * x) / (1 + step.c * x * x)
        else:
            x = np.array([halley._polynomial(step, np.array([[s]], order="F"))[0, 0] for s in x])
    np.testing.assert_allclose(x, 1, rtol=8 * EPS)
