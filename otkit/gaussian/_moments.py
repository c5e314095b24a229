r"""Gaussians fitted to samples, and the distance between two of them: what FID computes on features.

For n samples :math:`x_i` in d dimensions, with c = `correction` (1: unbiased; 0: maximum likelihood),

.. math:: m = \frac1n \sum_i x_i, \qquad \Sigma = \frac{1}{n - c} \sum_i (x_i - m)(x_i - m)^\top = F F^\top, \qquad
          F = \frac{(x_1 - m, \dots, x_n - m)}{\sqrt{n - c}} .

With fewer samples than dimensions F has fewer columns than rows, and the distance is computed from it, without any
d x d matrix and without loss at the singular covariance. By Gelbrich's bound the distance with c = 0 is never above the
:math:`W_2` of the samples themselves.

References:
    Dowson & Landau, 1982. *The Fréchet distance between multivariate normal distributions*.
    Heusel et al., 2017. *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*, eq. (6).
    Gelbrich, 1990. *On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces*,
    theorem 2.1.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from otkit._arguments import Array, as_tensors, checked_finite, require_broadcast, shape, working_precision
from otkit.gaussian._distance import w2_squared
from otkit.gaussian._factors import w2_squared_from_factors


def fit(x: Array, *, correction: float = 1, validate: bool = True) -> tuple[Array, Array]:
    r"""The mean and the covariance of samples, differentiable in them.

    Cost: :math:`O(n d^2)`.

    Args:
        x: Samples :math:`x_i`, with shape (..., n, d), n > correction.
        correction: c >= 0, as in `torch.cov`: the sum of squares is divided by n - c.
        validate: Whether to check that x is finite.

    Returns:
        The mean m, with shape (..., d), and the covariance :math:`\Sigma`, with shape (..., d, d).

    Raises:
        ValueError: Not enough samples, NaN or infinities among them, or a covariance beyond float64.
        TypeError: x is not a floating-point array.

    Example:
        >>> import numpy as np
        >>> fit(np.array([[0.0, 0.0], [2.0, 4.0]]))
        (array([1., 2.]), array([[2., 4.],
               [4., 8.]]))
    """
    (samples,), restore = as_tensors(x=x)
    _require_samples("x", samples, correction)
    if validate:
        samples = checked_finite("x", samples)
    loc, cov = _loc_and_cov(working_precision(samples), correction)
    if validate:
        cov = checked_finite("the covariance of x", cov)
    return restore(loc), restore(cov)


def frechet_distance(x: Array, y: Array, *, correction: float = 1, validate: bool = True) -> Array:
    r"""The squared distance :math:`W_2^2` between the Gaussians fitted to two samples.

    It is called a distance, as FID is, but is the square. Gradients reach the samples, second derivatives included; for
    fewer samples than dimensions they are those of `w2_squared_from_factors`. Equal samples give exactly 0, with
    gradient 0.

    Cost: :math:`O((n + m) d^2 + d^3)`, and :math:`O(d n m)` with no covariance where n or m is at most d.

    Args:
        x: Samples, with shape (..., n, d).
        y: Samples, with shape (..., m, d).
        correction: c >= 0, as in `fit`. FID takes 1; Gelbrich's bound needs 0.
        validate: Whether to check that x and y are finite.

    Returns:
        :math:`W_2^2 \ge 0`, with the broadcast batch shape (...).

    Raises:
        ValueError: Not enough samples, dimensions that differ, NaN or infinities, or a covariance beyond float64.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0.0], [2.0, 4.0], [1.0, 5.0]])
        >>> print(f"{frechet_distance(x, x + 3.0):.12f}")
        18.000000000000
    """
    (first, second), restore = as_tensors(x=x, y=y)
    for name, samples in (("x", first), ("y", second)):
        _require_samples(name, samples, correction)
    d = first.shape[-1]
    if second.shape[-1] != d:
        raise ValueError(f"y has shape {shape(second)}; expected (..., m, {d}), as x has shape {shape(first)}")
    require_broadcast(x=first.shape[:-2], y=second.shape[:-2])
    if validate:
        first, second = checked_finite("x", first), checked_finite("y", second)
    few = min(first.shape[-2], second.shape[-2]) <= d
    moments, distance = (_loc_and_factor, w2_squared_from_factors) if few else (_loc_and_cov, w2_squared)
    (loc1, spread1), (loc2, spread2) = (moments(working_precision(t), correction) for t in (first, second))
    if validate and not few:
        spread1 = checked_finite("the covariance of x", spread1)
        spread2 = checked_finite("the covariance of y", spread2)
    return restore(distance(loc1, spread1, loc2, spread2, validate=False))


def _loc_and_factor(samples: Tensor, correction: float) -> tuple[Tensor, Tensor]:
    loc = samples.mean(-2)
    return loc, (samples - loc.unsqueeze(-2)).mT / (samples.shape[-2] - correction) ** 0.5


def _loc_and_cov(samples: Tensor, correction: float) -> tuple[Tensor, Tensor]:
    """The moments, in blocks of samples that stay in a core's cache: a copy of all of them costs more than the sum."""
    n, d = samples.shape[-2:]
    loc = samples.mean(-2)
    rows = max(4 * d, 2**17 // d)
    centred = (block - loc.unsqueeze(-2) for block in samples.split(rows, -2))
    scatter = sum((block.mT @ block for block in centred), samples.new_zeros(()))
    return loc, scatter / (n - correction)


def _require_samples(name: str, samples: Tensor, correction: float) -> None:
    if not isinstance(correction, int | float | np.integer | np.floating) or not correction >= 0:
        raise ValueError(f"correction is {correction!r}; expected a number >= 0")
    if samples.ndim < 2 or samples.shape[-1] == 0:
        raise ValueError(f"{name} has shape {shape(samples)}; expected samples (..., n, d)")
    if samples.shape[-2] <= correction:
        raise ValueError(
            f"{name} has {samples.shape[-2]} samples; expected more than correction = {correction}, "
            "by which their number is reduced in the covariance"
        )
