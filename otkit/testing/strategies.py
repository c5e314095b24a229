r"""Strategies that build what they promise, so that nothing is filtered and everything shrinks.

A symmetric matrix is a spectrum and a rotation, :math:`A = Q \operatorname{diag}(\lambda) Q^\top`; a rotation is a
product of plane rotations, so it shrinks to the identity, angle by angle; a spectrum shrinks to ones.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

_COORDINATES = st.floats(-10, 10, width=32)


class Gaussian(NamedTuple):
    """A mean, with shape (d,), and a covariance, with shape (d, d)."""

    loc: np.ndarray
    cov: np.ndarray


class Measure(NamedTuple):
    """Points, with shape (n, d), and weights, with shape (n,), of sum one."""

    points: np.ndarray
    weights: np.ndarray


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
def psd_matrices(draw: DrawFn, d: int, *, cond: float = 1e4, singular: bool = False) -> np.ndarray:
    """Symmetric positive semidefinite matrices of shape (d, d), exactly symmetric.

    Args:
        draw: Supplied by Hypothesis.
        d: The dimension.
        cond: The largest ratio of two eigenvalues that are not zero; repeated eigenvalues are likely.
        singular: Whether eigenvalues may be exactly zero, all of them included.
    """
    half = float(np.log10(cond)) / 2
    eigenvalue = st.one_of(st.just(1.0), st.floats(-half, half).map(lambda e: 10.0**e))
    if singular:
        eigenvalue = st.one_of(eigenvalue, st.just(0.0))
    spectrum = np.array(draw(st.lists(eigenvalue, min_size=d, max_size=d)))
    factor = draw(rotations(d)) * np.sqrt(spectrum)
    A = factor @ factor.T
    return (A + A.T) / 2


@st.composite
def gaussians(draw: DrawFn, d: int, *, cond: float = 1e4, singular: bool = False) -> Gaussian:
    """Gaussians in d dimensions; the options are those of `psd_matrices`."""
    loc = np.array(draw(st.lists(_COORDINATES, min_size=d, max_size=d)), dtype=float)
    return Gaussian(loc, draw(psd_matrices(d, cond=cond, singular=singular)))


def measures(d: int, *, max_points: int = 6) -> SearchStrategy[Measure]:
    """Weighted point sets in d dimensions, with duplicate points and weights of zero among them."""
    point = st.lists(_COORDINATES, min_size=d, max_size=d)
    atom = st.tuples(point, st.integers(0, 8))

    def build(atoms: list[tuple[list[float], int]]) -> Measure:
        weights = np.array([weight for _, weight in atoms], dtype=float)
        # One atom always has mass, so that the sum is never zero.
        weights[0] += 1
        return Measure(np.array([point for point, _ in atoms], dtype=float), weights / weights.sum())

    return st.lists(atom, min_size=1, max_size=max_points).map(build)
