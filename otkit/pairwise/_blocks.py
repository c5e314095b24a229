"""The distances of a block: between all measures of its rows and all of its columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from otkit import empirical, gaussian
from otkit.empirical._bounded import bounded_wasserstein

DISTANCES: dict[str, Callable[..., Any]] = {
    "wasserstein": empirical.wasserstein,
    "sliced_wasserstein": empirical.sliced_wasserstein,
    "max_sliced_wasserstein": empirical.max_sliced_wasserstein,
    "sinkhorn_cost": empirical.sinkhorn_cost,
    "gaussian_w2": gaussian.pairwise_w2,
}
"""What ``distance`` may be called, and the function that it names."""


@dataclass(frozen=True)
class Loop:
    """A function of two measures, for each pair of a block."""

    distance: Callable[[Any, Any], Any]
    zero_on_diagonal: bool
    dtype: np.dtype[Any]

    def __call__(self, left: Any, right: Any, same: bool) -> np.ndarray:
        block = np.zeros((len(left), len(right)), self.dtype)
        for i, j in np.ndindex(*block.shape):
            if same and (i > j or (i == j and self.zero_on_diagonal)):
                block[i, j] = block[j, i]
            else:
                value = self.distance(left[i], right[j])
                block[i, j] = value if self.dtype.names else self._number(value)
        return block

    @staticmethod
    def _number(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"distance returned {value!r} of type {type(value).__name__}; expected a number") from None
        if math.isnan(number):
            raise ValueError("distance returned NaN; expected a number")
        return number


@dataclass(frozen=True)
class BetweenPoints:
    """A distance of this package between two pairs of points and weights."""

    name: str
    options: dict[str, Any]

    def __call__(self, left: tuple[np.ndarray, Any], right: tuple[np.ndarray, Any]) -> Any:
        (x, a), (y, b) = left, right
        return DISTANCES[self.name](x, y, a=a, b=b, validate=False, **self.options)


BOUNDED = np.dtype([("distance", float), ("lower_bound", float), ("upper_bound", float), ("converged", bool)])
"""An entry with its certificate."""


@dataclass(frozen=True)
class WithBounds:
    """An exact distance or an entropic cost, with two bounds of the exact one and whether it converged."""

    name: str
    options: dict[str, Any]

    def __call__(self, left: tuple[np.ndarray, Any], right: tuple[np.ndarray, Any]) -> tuple[float, float, float, bool]:
        (x, a), (y, b) = left, right
        if self.name == "wasserstein":
            numbers, solved = bounded_wasserstein(x, y, a=a, b=b, validate=False, **self.options)
            return *numbers, solved.converged
        solved = empirical.solve(x, y, a=a, b=b, validate=False, **self.options)
        return max(float(solved.value), 0.0), float(solved.lower_bound), float(solved.upper_bound), solved.converged


@dataclass(frozen=True)
class Gaussians:
    """Means (N, d) and covariances (N, d, d), sliced together."""

    loc: np.ndarray
    cov: np.ndarray

    def __len__(self) -> int:
        return len(self.loc)

    def __getitem__(self, part: Any) -> Gaussians:
        return Gaussians(self.loc[part], self.cov[part])


def between_gaussians(left: Gaussians, right: Gaussians, same: bool) -> np.ndarray:
    """The distances between all Gaussians of the rows and all of the columns."""
    others = () if same else (right.loc, right.cov)
    return gaussian.pairwise_w2(left.loc, left.cov, *others, validate=False)
