"""The quick look at symmetry, which sees what the full check would refuse, and keeps no large matrix for it."""

import numpy as np
import pytest

from otkit import _symmetry
from otkit.gaussian import w2_squared
from otkit.linalg import sqrtm

LARGE = _symmetry.KEPT + 1


def spd(d):
    X = np.random.default_rng(0).normal(size=(d, d))
    return X @ X.T / d + np.eye(d)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_large_matrices_are_looked_at_as_small_ones_are(batch):
    A = np.random.default_rng(0).normal(size=(*batch, 300, 300))
    expected = A.reshape(*batch, -1) @ _symmetry.skew_and_identity(300)
    np.testing.assert_allclose(np.stack(_symmetry.skewness_and_trace(A), -1), expected, rtol=1e-9)


@pytest.mark.parametrize("d", [2, 60, 140, LARGE])
@pytest.mark.parametrize("at", [(0, 1), (1, 0), (-1, 0), (0, -1), (-1, -2), (-2, -1)])
def test_a_single_entry_beyond_rounding_is_refused(d, at):
    A = spd(d)
    A[at] += 1e-9
    with pytest.raises(ValueError, match=r"A must be symmetric; got .*1e-09, where rounding allows"):
        sqrtm(A)
    with pytest.raises(ValueError, match=r"cov2 must be symmetric; got .*1e-09, where rounding allows"):
        w2_squared(np.zeros(d), np.eye(d), np.zeros(d), A)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_large_matrix_hides_what_is_not_finite(bad):
    A = spd(LARGE)
    A[3, -1] = A[-1, 3] = bad
    with pytest.raises(ValueError, match=r"A must be finite; got 2 entries"):
        sqrtm(A)


def test_nothing_of_the_size_of_a_large_matrix_is_kept():
    for cache in (_symmetry.skew, _symmetry.skew_and_identity):
        cache.cache_clear()
    sqrtm(spd(LARGE))
    w2_squared(np.zeros(LARGE), np.eye(LARGE), np.zeros(LARGE), spd(LARGE))
    assert _symmetry.skew.cache_info().currsize == _symmetry.skew_and_identity.cache_info().currsize == 0
