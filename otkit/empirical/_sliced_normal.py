r"""Sliced transport to a normal distribution, without a sample of it.

Along a direction θ the normal distribution :math:`N(m, \operatorname{diag} \sigma^2)` is :math:`N(\theta \cdot m,
|\theta \sigma|^2)`, to which the cost of points on the line is known (`otkit.empirical._normal`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, shape
from otkit._units import power_of_two, require_finite_length
from otkit.empirical._directions import Seed, directions_for
from otkit.empirical._mean_over_directions import Means, mean_over
from otkit.empirical._normal import require_normal, require_two, squared_cost_to_normal
from otkit.empirical._quantile import unless_uniform


def sliced_cost_to_normal(
    x: Array,
    p: float = 2,
    *,
    loc: Array | float = 0.0,
    scale: Array | float = 1.0,
    a: Array | None = None,
    n_projections: int = 256,
    generator: Seed = None,
    projections: Array | None = None,
    return_error: bool = False,
    validate: bool = True,
) -> Any:
    r"""The sliced cost :math:`\mathrm{SW}_2^2(\alpha, N(m, \operatorname{diag} \sigma^2))`, without a sample of N.

    Along a direction θ the normal distribution is :math:`N(\theta \cdot m, |\theta \sigma|^2)`, to which the cost of
    the projected points is known (`transport_cost_1d_to_normal`): only the directions are random.
    Gradients in x, loc, scale and a are exact for the directions drawn; second derivatives are as in `sliced_cost`.
    Where all scales of a problem are 0 there is a kink, and the gradient in them is the limit from equal scales.

    Cost: O(L n (d + log n)) time; memory does not grow with L.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        p: The exponent, 2: for others there is no closed form here.
        loc: The mean m, with shape (..., d), or one number for all coordinates.
        scale: The standard deviations :math:`\sigma \ge 0`, with shape (..., d), or one number.
        a: The weights :math:`a_i \ge 0` of sum one, with shape (..., n); uniform by default.
        n_projections: The number L of directions, which is rounded up to whole blocks.
        generator: The source of the directions, as in `sliced_cost`.
        projections: The directions themselves, unit vectors with shape (L, d).
        return_error: Whether to return an `Estimate`, the value and its standard error, as in `sliced_cost`.
        validate: Whether to check values (finite points, weights of sum one, scale, unit directions).

    Returns:
        :math:`\mathrm{SW}_2^2`, with the broadcast batch shape (...), in squared units of the data.

    Raises:
        ValueError: No points, shapes that do not fit, NaN, negative weights or scales, another sum, p other than 2; x
            and loc farther apart than the largest float64.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(5000, 8))
        >>> print(f"{sliced_cost_to_normal(x, generator=0):.3f} {sliced_cost_to_normal(3 * x, generator=0):.1f}")
        0.001 4.0
    """
    return _sliced_to_normal(x, p, loc, scale, a, n_projections, generator, projections, return_error, validate).cost()


def sliced_wasserstein_to_normal(
    x: Array,
    p: float = 2,
    *,
    loc: Array | float = 0.0,
    scale: Array | float = 1.0,
    a: Array | None = None,
    n_projections: int = 256,
    generator: Seed = None,
    projections: Array | None = None,
    return_error: bool = False,
    validate: bool = True,
) -> Any:
    r"""The sliced distance :math:`\mathrm{SW}_2(\alpha, N(m, \operatorname{diag} \sigma^2))`, without a sample of N.

    Arguments, gradient, cost and errors are those of `sliced_cost_to_normal`. Where the value is 0 (σ = 0 and all
    points at m) the gradient is defined to be 0, a subgradient.

    Example:
        >>> import torch
        >>> z = torch.zeros(1, 4, requires_grad=True)
        >>> print(f"{sliced_wasserstein_to_normal(z, loc=2.0, generator=0):.4f}")  # (4 + 1)^½
        2.2361
    """
    means = _sliced_to_normal(x, p, loc, scale, a, n_projections, generator, projections, return_error, validate)
    return means.distance()


def _sliced_to_normal(
    x: Array,
    p: float,
    loc: Array | float,
    scale: Array | float,
    a: Array | None,
    n_projections: int,
    generator: Seed,
    projections: Array | None,
    return_error: bool,
    validate: bool,
) -> Means:
    require_two(p)
    (x_, loc_, scale_, a_, given), restore = as_tensors(
        x=x, loc=loc, scale=scale, a=a, projections=projections, optional=("a", "projections")
    )
    d = x_.shape[-1] if x_.ndim else 0
    for name, tensor in (("loc", loc_), ("scale", scale_)):
        if tensor.ndim and tensor.shape[-1] != d:
            raise ValueError(f"{name} has shape {shape(tensor)}; expected (..., {d}), as x has shape {shape(x_)}")
    loc_, scale_ = (t if t.ndim else t.expand(max(d, 1)) for t in (loc_, scale_))
    x_, loc_, scale_, a_ = require_normal(x_, loc_, scale_, a_, 1, eps=restore.eps, validate=validate)
    x_ = x_ - loc_.unsqueeze(-2)
    longest = torch.maximum(x_.detach().abs().amax((-2, -1)), scale_.detach().amax(-1))
    require_finite_length(longest, "x and loc")
    length = power_of_two(longest)
    weights, _ = unless_uniform(a_, a_)
    directions, block = directions_for(x_, n_projections, generator, given, restore, validate)

    def along(directions: Tensor, x: Tensor, scale: Tensor, a: Tensor | None) -> Tensor:
        projected = _projected(directions, scale)
        return squared_cost_to_normal(directions @ x.mT, projected, None if a is None else a.unsqueeze(-2))

    inputs = (x_ / length[..., None, None], scale_ / length.unsqueeze(-1), weights)
    return Means(*mean_over(along, directions, inputs, return_error, block), length, 2, return_error, restore)


def _projected(directions: Tensor, scale: Tensor) -> Tensor:
    """The standard deviations (..., L) along directions (L, d) for scales (..., d)."""
    projected = torch.linalg.vector_norm(directions * scale.unsqueeze(-2), dim=-1)
    zero = (scale == 0).all(-1, keepdim=True)
    # Coming from scales (s, ..., s) the derivative is θ²; at 0 itself that of the norm would be 0.
    return torch.where(zero, scale @ directions.square().mT, projected) if bool(zero.any()) else projected
