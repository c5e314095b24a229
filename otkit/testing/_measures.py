r"""What the laws are about: measures on :math:`\mathbb{R}^d` in three forms, and what can be done to all of them.

A measure is

- a set of points x (n, d), or (n,) on the line, each of mass 1/n;
- a `Measure`, points with weights;
- a `Gaussian`, a mean with a covariance.

An affine map :math:`T x = A x + t` pushes each form forward to the same form, so translations, scalings and rotations
are one function; and a mixture :math:`\lambda\alpha_1 + (1 - \lambda)\alpha_2` of clouds is a cloud.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np


class Gaussian(NamedTuple):
    """A mean, with shape (d,), and a covariance, with shape (d, d)."""

    loc: np.ndarray
    cov: np.ndarray


class Measure(NamedTuple):
    """Points, with shape (n, d), and weights, with shape (n,), of sum one."""

    points: np.ndarray
    weights: np.ndarray


AnyMeasure: TypeAlias = np.ndarray | Measure | Gaussian


def as_measure(given: Any, name: str = "x") -> AnyMeasure:
    """What came, in float64 NumPy: an array is points; a pair is points with weights or a mean with a covariance.

    Args:
        given: An array (n, d) or (n,) of NumPy or torch, or a pair of arrays.
        name: The name of the argument, for errors.

    Raises:
        ValueError: Shapes that are none of these.
    """
    if isinstance(given, tuple):
        if len(given) != 2:
            raise ValueError(f"{name} is a tuple of {len(given)}; expected (points, weights) or (loc, cov)")
        first, second = (to_numpy(part) for part in given)
        if second.ndim == 1 and first.ndim in (1, 2) and len(first) == len(second):
            return Measure(first, second)
        if first.ndim == 1 and second.shape == (*first.shape, *first.shape):
            return Gaussian(first, second)
        raise ValueError(
            f"{name} has parts of shapes {first.shape} and {second.shape}; expected points (n, d) with weights (n,), "
            "or a mean (d,) with a covariance (d, d)"
        )
    points = to_numpy(given)
    if points.ndim not in (1, 2) or points.size == 0:
        raise ValueError(f"{name} has shape {points.shape}; expected points (n, d), or (n,) on the line")
    return points


def to_numpy(array: Any) -> np.ndarray:
    """A float64 NumPy copy, of a torch tensor with a gradient too."""
    return np.array(array.detach().cpu().double().numpy() if hasattr(array, "detach") else array, dtype=np.float64)


def points_of(measure: np.ndarray | Measure) -> np.ndarray:
    """The points, with shape (n, d) on the line too."""
    points = measure.points if isinstance(measure, Measure) else measure
    return points[:, None] if points.ndim == 1 else points


def weights_of(measure: np.ndarray | Measure) -> np.ndarray:
    """The weights, with shape (n,), of sum one up to rounding."""
    return measure.weights if isinstance(measure, Measure) else np.full(len(measure), 1 / len(measure))


def dimension(measure: AnyMeasure) -> int:
    """The dimension d."""
    return len(measure.loc) if isinstance(measure, Gaussian) else points_of(measure).shape[1]


def moments(measure: AnyMeasure) -> tuple[np.ndarray, np.ndarray]:
    r"""The mean (d,) and a factor F (d, r) of the covariance, :math:`F F^\top = \Sigma`, taken with 1/n."""
    if isinstance(measure, Gaussian):
        eigenvalues, basis = np.linalg.eigh(measure.cov)
        return measure.loc, basis * np.sqrt(eigenvalues.clip(0))
    points, weights = points_of(measure), weights_of(measure)
    loc = weights @ points
    return loc, (points - loc).T * np.sqrt(weights)


def pushforward(measure: AnyMeasure, A: np.ndarray, shift: np.ndarray) -> AnyMeasure:
    """The image under x ↦ A x + shift, A (d, d) and shift (d,), in the form that came."""
    if isinstance(measure, Gaussian):
        cov = A @ measure.cov @ A.T
        return Gaussian(A @ measure.loc + shift, (cov + cov.T) / 2)
    moved = points_of(measure) @ A.T + shift
    if isinstance(measure, Measure):
        return Measure(moved.reshape(measure.points.shape), measure.weights)
    return moved.reshape(measure.shape)


def mixture(first: np.ndarray | Measure, second: np.ndarray | Measure, weight: float) -> Measure:
    """The measure weight · first + (1 - weight) · second."""
    parts = (first, second)
    points = np.concatenate([part.points if isinstance(part, Measure) else part for part in parts])
    masses = (weight, 1 - weight)
    return Measure(points, np.concatenate([m * weights_of(part) for m, part in zip(masses, parts, strict=True)]))


def costs(first: np.ndarray | Measure, second: np.ndarray | Measure, p: float) -> np.ndarray:
    """The p-th powers of the distances between points, with shape (n, m)."""
    return np.linalg.norm(points_of(first)[:, None] - points_of(second), axis=-1) ** p


def show(measure: Any, largest: int = 60) -> str:
    """Python text that recreates the measure; large arrays are named by their shape."""
    if isinstance(measure, Measure | Gaussian):
        return f"{type(measure).__name__}({', '.join(show(part, largest) for part in measure)})"
    if isinstance(measure, np.ndarray):
        if measure.size > largest:
            return f"<array of shape {measure.shape}, not shown>"
        return f"np.array({measure.tolist()})"
    return repr(measure)
