"""Compiled loops over groups of pairs give what NumPy's do, whatever stands beside a pair in its group."""

import builtins
import importlib.util
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from otkit.gaussian import pairwise_w2_squared
from otkit.gaussian._bures import blocks, compiled
from tests.otkit.gaussian.test_accuracy import EPS, by

numba = pytest.importorskip("numba")

lanes = pytest.importorskip("otkit.gaussian._bures.lanes")


def covariances(n, d, cond, seed):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    cond = np.broadcast_to(cond, n)
    spectrum = cond[:, None] ** -rng.uniform(size=(n, d))
    spectrum[:, 0], spectrum[:, -1] = 1, 1 / cond
    covs = (Q * spectrum[:, None]) @ Q.swapaxes(1, 2)
    return (covs + covs.swapaxes(1, 2)) / 2


def solved(route, A, B, gradients=True):
    with by(route):
        return blocks.value_and_gradients(A, B, EPS, gradients=gradients, validate=True)


def assert_close(found, expected, cond):
    for ours, theirs in zip(found, expected, strict=True):
        size = np.abs(theirs).reshape(len(theirs), -1).max(1)
        off = np.abs(ours - theirs).reshape(len(theirs), -1).max(1)
        assert (off <= 64 * EPS * cond * size).all()


@pytest.mark.parametrize("d", [*range(3, 21), 31, 32, 33, 64, 66, 127, 128])
def test_every_size_and_a_group_that_is_not_full(d):
    A, B = covariances(19, d, 1e3, 0), covariances(19, d, 1e3, 1)
    found, expected = solved("numba", A, B), solved("numpy", A, B)
    assert_close(found, expected, 1e3)
    value, gradient1, gradient2, _ = solved("numba", A, B, gradients=False)
    np.testing.assert_allclose(value, found[0], rtol=0 if d < 128 else 1e-12)  # eigenvalues alone, from there on
    assert len(gradient1) == len(gradient2) == 0


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 100, 1500])
def test_pairs_that_are_put_off_are_not_lost(n):
    """And their values are where they belong."""
    cond = np.where(np.arange(n) % 5 == 1, 1e8, 10.0)
    A, B = covariances(n, 6, cond, 2), covariances(n, 6, 10.0, 3)
    assert_close(solved("numba", A, B), solved("numpy", A, B), cond)


@pytest.mark.parametrize("d", [3, 8, 20])
def test_what_fails_disturbs_nothing_beside_it(d):
    A, B = covariances(16, d, 1e2, 4), covariances(16, d, 1e2, 5)
    whole = solved("numba", A, B)
    A[3] = 0  # a Dirac
    A[5, :, 0] = A[5, 0, :] = 0  # singular
    B[9] = np.diag(10.0 ** -np.linspace(0, 12, d))  # beyond the reach of the iteration
    found, expected = solved("numba", A, B), solved("numpy", A, B)
    others = np.setdiff1d(np.arange(16), [3, 5, 9])
    assert_close([part[others] for part in found], [part[others] for part in whole], 1e2)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[[3, 5]], theirs[[3, 5]], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(ours[9], theirs[9], rtol=1e-2)


def test_what_fails_is_known_to_have_failed():
    A, B = covariances(16, 4, 1e2, 4), covariances(16, 4, 1e2, 5)
    A[3], B[7], A[11] = 0, np.nan, -A[11]
    n, d, _ = A.shape
    value, hard = np.empty(n), np.zeros(n, dtype=bool)
    out = (value, *np.empty((2, n, d, d)), hard, np.empty((2, n, 2)))
    lanes.solve(A, B, np.arange(n), out, lanes.room_for(d), hopeless=1e10, alike=50.0)
    np.testing.assert_array_equal(np.flatnonzero(hard), [3, 7, 11])
    assert np.isfinite(value[~hard]).all()
    # With room for 1e2 and no more, all are.
    lanes.solve(A, B, np.arange(n), out, lanes.room_for(d), hopeless=1.0, alike=50.0)
    assert hard.all()


def test_what_the_steps_do_not_reach_misses_the_certificate():
    A, B = covariances(9, 6, 1e2, 4), covariances(9, 6, 1e2, 5)
    A[4] = np.diag(10.0 ** -np.linspace(0, 13.5, 6))
    B[4] = np.diag(10.0 ** -np.linspace(0, 13.5, 6)[::-1])
    B[5] = A[5] = np.diag(10.0 ** -np.linspace(0, 13.5, 6))
    hard = np.zeros(9, dtype=bool)
    out = (np.empty(9), *np.empty((2, 9, 6, 6)), hard, np.empty((2, 9, 2)))
    lanes.solve(A, B, np.arange(9), out, lanes.room_for(6), hopeless=np.inf, alike=np.inf)
    np.testing.assert_array_equal(np.flatnonzero(hard), [5])


def test_pairs_of_factors_that_miss_it_are_not_added_to_sums():
    A, B = covariances(9, 6, 1e2, 4), covariances(9, 6, 1e2, 5)
    B[5] = A[5] = np.diag(10.0 ** -np.linspace(0, 14, 6))
    lists = []
    for covs in (A, B):
        U = np.ascontiguousarray(np.linalg.cholesky(covs).swapaxes(1, 2))
        lists.append((U, np.linalg.inv(U)))
    k, sums = np.arange(9), np.zeros((2, 9, 6, 6))
    value, missed = lanes.solve_factors(*lists, k, k, lanes.room_for(6), (np.ones(9), *sums, 0))
    np.testing.assert_array_equal(np.flatnonzero(missed), [5])
    assert not sums[:, 5].any()
    np.testing.assert_allclose((sums[0] ** 2).sum((1, 2))[~missed], value[~missed], rtol=1e-12)


@pytest.mark.parametrize("exponent", [-300, -200, -100, 100, 200, 300])
def test_any_scale(exponent):
    A, B = covariances(9, 5, 1e2, 6), covariances(9, 5, 1e2, 7)
    value, gradient1, gradient2, _ = solved("numba", A, B)
    scale = 10.0**exponent
    scaled, first, second, _ = solved("numba", scale * A, scale * B)
    np.testing.assert_allclose(scaled, scale * value, rtol=1e-12)
    np.testing.assert_allclose(first, gradient1, atol=1e-11)
    np.testing.assert_allclose(second, gradient2, atol=1e-11)


@pytest.mark.parametrize("where", [0, 9])
@pytest.mark.parametrize("entry", [(0, 2), (2, 0), (1, 1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e3])
def test_what_is_not_a_covariance_is_seen_wherever_it_stands(bad, entry, where):
    A, B = covariances(10, 3, 1e2, 8), covariances(10, 3, 1e2, 9)
    B[where][entry] += bad
    with pytest.raises(ValueError, match="cov2"):
        solved("numba", A, B)


def crossed(route, A, B, half=False):
    """All pairs, with the gradients of a weighted sum."""
    covs = [torch.tensor(each, requires_grad=True) for each in ((A,) if half else (A, B))]
    locs = [torch.zeros(each.shape[:-1], dtype=torch.float64) for each in covs]
    lists = [each for pair in zip(locs, covs, strict=True) for each in pair]
    with by(route):
        values = pairwise_w2_squared(*lists)
        weights = torch.linspace(-1, 1, values.numel(), dtype=torch.float64).reshape(values.shape)
        gradients = torch.autograd.grad((weights * values).sum(), covs)
    return [part.detach().numpy() for part in (values, *gradients)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 3), (3, 20, 4), (20, 3, 9), (40, 41, 5), (5, 12, 50), (4, 20, 128)])
def test_all_pairs(n, m, d, half):
    A, B = covariances(n, d, 1e3, 11), covariances(m, d, 1e3, 12)
    for ours, theirs in zip(crossed("numba", A, B, half), crossed("numpy", A, B, half), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * EPS * 1e3 * max(n, m) * np.abs(theirs).max())


@pytest.mark.parametrize("d", [3, 8])
def test_all_pairs_of_all_kinds(d):
    """Singular ones, hopeless pairs, equal ones, and pairs that miss the certificate, which others then solve."""
    A, B = covariances(30, d, 1e2, 13), covariances(30, d, 1e2, 14)
    A[3], A[4, :, 0], A[4, 0, :] = 0, 0, 0
    A[5] = B[6] = np.diag(10.0 ** -np.linspace(0, 11, d))
    A[7] = B[8]
    expected = crossed("numpy", A, B)
    of = lanes.solve_factors

    def some_missed(first, second, rows, columns, room, sums=None):
        missed = (rows + columns) % 5 == 0
        if sums is not None:
            sums = (np.where(missed, 0, sums[0]), *sums[1:])
        value, also = of(first, second, rows, columns, room, sums)
        return np.where(missed, 7.0, value), missed | also

    found = [crossed("numba", A, B)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "solve_factors", some_missed)
        found.append(crossed("numba", A, B))
    for values, *gradients in found:
        assert values[7, 8] == 0
        np.testing.assert_allclose(values, expected[0], rtol=1e-6, atol=1e-14)
        for ours, theirs in zip(gradients, expected[1:], strict=True):
            np.testing.assert_allclose(ours[8:], theirs[8:], rtol=0, atol=1e-6 * np.abs(theirs[8:]).max())


@pytest.mark.parametrize("half", [False, True])
def test_all_pairs_on_threads(half):
    A, B = covariances(40, 8, 1e3, 15), covariances(40, 8, 1e3, 16)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(crossed("numba", A, B, half))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_batch_of_equals():
    A = covariances(20, 7, 1e4, 10)
    value, gradient1, gradient2, trace = solved("numba", A, A)
    assert (value <= (8 * 7 * EPS) ** 2 * trace).all()
    np.testing.assert_allclose(gradient1, 0, atol=1e-10)
    np.testing.assert_allclose(gradient2, 0, atol=1e-10)


def test_without_numba(monkeypatch):
    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else usual(name, *rest)
    )
    assert compiled.loops.__wrapped__() is None


def test_numba_that_is_told_not_to_compile(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert compiled.loops.__wrapped__() is None


def test_numba_that_does_not_work_is_reported(monkeypatch):
    usual = builtins.__import__

    def without_lanes(name, globals=None, locals=None, fromlist=(), level=0):
        if "lanes" in (fromlist or ()):
            raise ImportError("Numba needs another NumPy")
        return usual(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without_lanes)
    with pytest.warns(RuntimeWarning, match="Numba cannot be used.*another NumPy"):
        assert compiled.loops.__wrapped__() is None


def test_registers_of_the_other_width_and_a_disk_that_keeps_nothing():
    """In another process, as code is compiled once; without wide registers a vector takes two."""
    width = {4: 8, 8: 4}[lanes.LANES]
    program = f"""
        import llvmlite.binding
        import numba
        import numba.core.caching
        import numpy as np

        of_host = llvmlite.binding.get_host_cpu_features()
        features = {{name: on and "avx512" not in name for name, on in of_host.items()}}
        if {width == 8}:
            features["avx512f"] = True
            numba.njit(lambda: None)()  # so that Numba knows the true processor
        llvmlite.binding.get_host_cpu_features = lambda: llvmlite.binding.FeatureMap(features)
        numba.core.caching.CacheImpl._locator_classes = []
        from otkit.gaussian._bures import blocks, compiled, lanes
        assert lanes.LANES == {width}
        for d in 7, 33:
            z = np.random.default_rng(0).standard_normal((2, 13, d, d))
            A, B = z @ z.swapaxes(-1, -2) + np.eye(d)
            found = blocks.value_and_gradients(A, B, 2e-16, gradients=True, validate=True)
            loops, compiled.loops = compiled.loops, lambda: None
            for ours, theirs in zip(found, blocks.value_and_gradients(A, B, 2e-16, gradients=True, validate=True)):
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
            compiled.loops = loops
        print("same")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "same\n", done.stderr
