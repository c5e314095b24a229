"""Distances between two samples of one size, at the sizes that an evaluation has."""

from __future__ import annotations

from torch import Generator, Tensor

from otkit import empirical

LARGEST_EXACT = 2000
"""The most points between which exact transport is computed: it takes a second, and more take minutes."""

PROJECTIONS = 256


def exact_w2(x: Tensor, y: Tensor) -> float:
    """The exact W2 between the first 2,000 points of two samples (n, d), which should come in random order."""
    n = min(len(x), len(y), LARGEST_EXACT)
    return empirical.wasserstein(x[:n].double(), y[:n].double()).item()


def sliced_w2(x: Tensor, y: Tensor, *, generator: Generator | None = None) -> float:
    """The sliced W2 between two samples (n, d) of one size, over 256 random directions."""
    return empirical.sliced_wasserstein(x.double(), y.double(), n_projections=PROJECTIONS, generator=generator).item()
