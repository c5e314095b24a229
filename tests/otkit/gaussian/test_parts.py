"""Parts of the kernels by themselves: what the whole would hide, since it checks its work and does it again."""

import numpy as np
import pytest
import scipy.linalg
import torch

from otkit.gaussian import _bures, _crossed
from otkit.gaussian._bures import cholesky, fused, ladder, polar
from otkit.gaussian._bures.threads import on_threads

rng = np.random.default_rng(0)


def test_the_polar_factor_in_the_plane_and_on_the_line():
    M = rng.normal(size=(20, 2, 2))
    M = M[np.linalg.det(M) > 0]
    np.testing.assert_allclose(_crossed._rotation(M), [scipy.linalg.polar(each)[0] for each in M], atol=1e-14)
    np.testing.assert_array_equal(_crossed._rotation(np.full((3, 1, 1), 0.2)), 1)


def test_the_ratio_on_the_diagonal_bounds_the_condition():
    triangular = np.triu(rng.normal(size=(30, 5, 5)))
    spread = cholesky.spread(triangular)
    assert (spread <= np.linalg.cond(triangular)).all()
    diagonal = np.zeros((1, 3, 3))
    diagonal[0, range(3), range(3)] = 2.0, -8.0, 4.0
    assert cholesky.spread(diagonal) == 4


@pytest.mark.parametrize("d", [5, cholesky.HALVED, cholesky.HALVED + 1])
def test_products_with_triangles_are_products(d):
    A, B = rng.normal(size=(2, 3, d, d))
    upper, lower, out = np.triu(A), np.tril(A), np.full((3, d, d), np.nan)
    for triangle in (upper, lower):
        assert cholesky.triangle_times(triangle, B, lower=triangle is lower, out=out) is out
        np.testing.assert_allclose(out, triangle @ B, atol=1e-12)
    assert cholesky.times_triangle(B, upper, out=out) is out
    np.testing.assert_allclose(out, B @ upper, atol=1e-12)


def test_the_deepest_ladder_is_the_last():
    assert ladder.ladder(0.0) == ladder.ladder(1e-300) == ladder.ladder(2.0**-ladder.DEEPEST)
    assert len(ladder.ladder(0.5)) < len(ladder.ladder(1e-3))


@pytest.mark.parametrize("lowest", [0.95, 0.7, 0.3, 1e-2, 1e-4, 1e-8])
def test_a_ladder_takes_every_singular_value_to_one(lowest):
    (U, V), spectrum = np.linalg.qr(rng.normal(size=(2, 4, 6, 6)))[0], lowest ** rng.random((4, 6))
    spectrum[:, 0], spectrum[:, 1] = lowest, 1.0
    buffers = [polar.Scratch(4, 6) for _ in range(4)]
    buffers[0].matrices[...] = U * spectrum[:, None] @ V
    found = polar.climb(buffers[0], ladder.ladder(lowest), *buffers[1:], scale=np.ones(4)).matrices
    np.testing.assert_allclose(found, U @ V, atol=1e-13 / lowest)
    np.testing.assert_allclose(np.linalg.svd(found)[1], 1, atol=1e-13)


@pytest.mark.parametrize("k", range(1, len(ladder.LADDER)))
def test_a_step_leads_into_the_next_and_stays_below_one_by_more_than_rounding(k):
    n = 100_001
    for step in ladder.LADDER[k]:
        buffers = [polar.Scratch(n, 1) for _ in range(4)]
        buffers[0].matrices[...] = np.geomspace(step.lowest, 1, n)[:, None, None]
        found = polar.climb(buffers[0], (step,), *buffers[1:], scale=np.ones(n)).matrices
        assert found.min() > ladder.LADDER[k - 1][-1].lowest - 1e-13
        assert found.max() < 1 - 0.99e-10


@pytest.mark.parametrize("lowest", [1e-8, 2e-9])
@pytest.mark.parametrize("seed", range(5))
def test_the_longest_ladders_end_at_one_whatever_the_matrix(seed, lowest):
    n, d = 400, 6
    own = np.random.default_rng(seed)
    (U, V), spectrum = np.linalg.qr(own.normal(size=(2, n, d, d)))[0], lowest ** own.random((n, d))
    spectrum[:, 0], spectrum[:, 1] = lowest, 1.0
    matrices, steps = U * spectrum[:, None] @ V, ladder.ladder(lowest)
    loops = [polar.Scratch(n, d) for _ in range(4)]
    loops[0].matrices[...] = matrices
    buffers = (torch.from_numpy(matrices), *torch.empty(3, n, d, d, dtype=torch.float64))
    for found in (
        polar.climb(loops[0], steps, *loops[1:], scale=np.ones(n)).matrices,
        fused.climb(buffers, steps)[0].numpy(),
    ):
        np.testing.assert_allclose(np.linalg.svd(found)[1], 1, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found, U @ V, rtol=0, atol=np.finfo(float).eps / lowest)


@pytest.mark.parametrize("spread", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("room", [polar.Loops, fused.Fused])
def test_residuals_need_no_second_way(room, spread):
    """What misses the certificate is solved by decompositions, which would hide it."""
    n, d = 5, 7
    covs = [
        z @ z.swapaxes(1, 2) + np.eye(d) for z in spread ** rng.random((2, n, d, 1)) * rng.normal(size=(2, n, d, d))
    ]
    U, V, _ = cholesky.factor_and_invert(*covs)
    (u1, u2), (v1, v2) = U.reshape(2, n, d, d), V.reshape(2, n, d, d)
    R = np.array([scipy.linalg.polar(two @ one.T)[0] for one, two in zip(u1, u2, strict=True)])
    expected = u1 - R.swapaxes(1, 2) @ u2, u2 - R @ u1
    found = room(n + 1, d)
    found.resize(n, d)
    norms, value, first, second, _ = found.residuals(u1, u2, v1, v2, second=True)
    np.testing.assert_allclose(norms, d, rtol=1e-13)
    np.testing.assert_allclose(value, (expected[0] ** 2).sum((1, 2)), rtol=1e-9)
    for ours, theirs in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9 * spread)


def test_a_buffer_shows_matrices_of_the_size_that_is_asked_for():
    buffer = polar.Scratch(4, 6)
    for n, d in ((4, 3), (2, 3), (4, 6)):
        buffer.resize(n, d)
        assert buffer.matrices.shape == buffer.plain.shape == (n, d, d)


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_every_part_is_done_once(threads):
    done = []
    usual = torch.get_num_threads()
    on_threads(threads, done.append, range(0, 20, 3))
    assert sorted(done) == list(range(0, 20, 3))
    assert torch.get_num_threads() == usual


def test_the_route_of_other_dtypes_and_devices_is_the_kernels():
    A, B = (torch.from_numpy(z @ z.swapaxes(-1, -2) + np.eye(4)) for z in rng.normal(size=(2, 6, 4, 4)))
    B[2] = A[2]
    expected = _bures._numbers(A, B, 1e-15, True, True)
    for validate in (True, False):
        found = _bures._numbers(A.float(), B.float(), 1e-7, validate, True)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)
        assert found[0][2] == 0
        assert (found[1][2] == 0).all()


def test_pairs_of_two_near_singular_ones_are_not_easy():
    def easy(*exponents):
        first, second = (
            _crossed.factors_of("covs", np.diag([1.0, 10.0**-exponent])[None], 2.3e-16) for exponent in exponents
        )
        return _crossed._pairs(first, second, slice(0, 1), slice(0, 1)).easy

    assert easy(2, 2)
    assert easy(12, 0)
    assert not easy(12, 12)
