r"""Strategies that build what they promise, so that nothing is filtered and everything shrinks.

A symmetric matrix is a spectrum and a rotation, :math:`A = Q \operatorname{diag}(\lambda) Q^\top`; a rotation is a
product of plane rotations, so it shrinks to the identity, angle by angle; a spectrum shrinks to ones. Weights are whole
numbers, or a millionth, over their sum, and shrink to equal ones. Coordinates shrink to zero, through whole numbers.
"""

from __future__ import annotations

from itertools import combinations
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from otkit.testing._measures import AnyMeasure, Gaussian, Measure, dimension, pushforward

# Of float32, so that they are the same numbers in both precisions.
COORDINATES = st.one_of(st.integers(-10, 10).map(float), st.floats(-10, 10, width=32, allow_subnormal=False))

MAX_POINTS = 6
"""The most points of a set, by default."""

_MASSES = st.integers(0, 9).map(lambda k: 2.0**-20 if k == 9 else float(k))

OneMeasure = TypeVar("OneMeasure", np.ndarray, Measure, Gaussian)


def vector(draw: DrawFn, d: int) -> np.ndarray:
    """A vector of shape (d,), drawn within another strategy."""
    return np.array(draw(st.lists(COORDINATES, min_size=d, max_size=d)))


@st.composite
def rotations(draw: DrawFn, d: int) -> np.ndarray:
    """Rotation matrices of shape (d, d)."""
    Q = np.eye(d)
    for i, j in combinations(range(d), 2):
        angle = draw(st.floats(0, 2 * np.pi))
        c, s = np.cos(angle), np.sin(angle)
        Q[:, [i, j]] = Q[:, [i, j]] @ np.array([[c, -s], [s, c]])
    return Q


@st.composite
def isometries(draw: DrawFn, d: int) -> np.ndarray:
    """Orthogonal matrices of shape (d, d): rotations, and rotations after a reflection."""
    Q = draw(rotations(d))
    Q[:, 0] *= draw(st.sampled_from([1.0, -1.0]))
    return Q


@st.composite
def spectra(draw: DrawFn, d: int, *, cond: float = 1e4, singular: bool = False) -> np.ndarray:
    """Eigenvalues of shape (d,), none negative; the options are those of `psd_matrices`."""
    half = float(np.log10(cond)) / 2
    eigenvalue = st.one_of(st.just(1.0), st.floats(-half, half).map(lambda e: 10.0**e))
    if singular:
        eigenvalue = st.one_of(eigenvalue, st.just(0.0))
    spectrum = draw(st.lists(eigenvalue, min_size=d, max_size=d))
    # A repeated eigenvalue other than one, and other than by chance.
    repeats = draw(st.integers(1, d))
    return np.array([spectrum[0]] * repeats + spectrum[repeats:])


@st.composite
def psd_matrices(draw: DrawFn, d: int, *, cond: float = 1e4, singular: bool = False) -> np.ndarray:
    """Symmetric positive semidefinite matrices of shape (d, d), exactly symmetric.

    Args:
        draw: Supplied by Hypothesis.
        d: The dimension.
        cond: The largest ratio of two eigenvalues that are not zero; repeated eigenvalues are likely.
        singular: Whether eigenvalues may be exactly zero, all of them included.
    """
    factor = draw(rotations(d)) * np.sqrt(draw(spectra(d, cond=cond, singular=singular)))
    A = factor @ factor.T
    return (A + A.T) / 2


def spd_matrices(d: int, *, cond: float = 1e4) -> SearchStrategy[np.ndarray]:
    """Symmetric positive definite matrices of shape (d, d), with condition numbers up to cond."""
    return psd_matrices(d, cond=cond)


@st.composite
def gaussians(
    draw: DrawFn, d: int, *, cond: float = 1e4, singular: bool = False, diagonal: bool = False, rank: int | None = None
) -> Gaussian:
    """Gaussians in d dimensions.

    Args:
        draw: Supplied by Hypothesis.
        d: The dimension.
        cond: As in `psd_matrices`.
        singular: As in `psd_matrices`; Diracs are among them.
        diagonal: Whether the covariances are diagonal.
        rank: The largest rank of the covariances, as of a low-rank factor; d by default.
    """
    loc, spectrum = vector(draw, d), draw(spectra(d, cond=cond, singular=singular))
    spectrum[d if rank is None else rank :] = 0
    if diagonal:
        return Gaussian(loc, np.diag(spectrum))
    factor = draw(rotations(d)) * np.sqrt(spectrum)
    cov = factor @ factor.T
    return Gaussian(loc, (cov + cov.T) / 2)


@st.composite
def point_clouds(draw: DrawFn, d: int, *, n: int | None = None, max_points: int = MAX_POINTS) -> np.ndarray:
    """Points of shape (n, d), duplicates among them.

    Args:
        draw: Supplied by Hypothesis.
        d: The dimension.
        n: The number of points; from 1 to max_points by default.
        max_points: The most points.
    """
    point = st.lists(COORDINATES, min_size=d, max_size=d)
    points = draw(st.lists(point, min_size=n or 1, max_size=n or max_points))
    if len(points) > 1 and draw(st.booleans()):
        points[-1] = points[0]
    return np.array(points, dtype=float)


@st.composite
def measures(draw: DrawFn, d: int, *, n: int | None = None, max_points: int = MAX_POINTS) -> Measure:
    """Weighted point sets in d dimensions, with duplicate points, weights of zero and tiny ones among them."""
    points = draw(point_clouds(d, n=n, max_points=max_points))
    return Measure(points, draw(weights(len(points))))


@st.composite
def weights(draw: DrawFn, n: int) -> np.ndarray:
    """Weights (n,) of sum one, zeros and tiny ones among them."""
    masses = draw(st.lists(_MASSES, min_size=n, max_size=n))
    # One atom always has mass, so that the sum is never zero.
    found = np.array([masses[0] + 1, *masses[1:]], dtype=float)
    return found / found.sum()


@st.composite
def near(draw: DrawFn, measure: OneMeasure) -> OneMeasure:
    """Measures near this one: it, scaled by 1 + δ and moved by δ, from δ = 0.1 down to rounding, and to nothing."""
    d = dimension(measure)
    delta = draw(st.sampled_from([0.0, 1e-1, 1e-4, 1e-7, 1e-10, 1e-13]))
    moved: AnyMeasure = pushforward(measure, (1 + delta) * np.eye(d), np.full(d, delta))
    return moved  # pyright: ignore[reportReturnType]
