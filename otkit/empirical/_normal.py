r"""Samples against a normal distribution, without a sample of it.

On the line, points :math:`x_1 \le \dots \le x_n` with weights of sum one meet the quantiles of N(m, σ²) between their
levels :math:`A_i = a_1 + \dots + a_i`. With :math:`\tilde x = x - m`,

.. math:: W_2^2 = \sum_i \int_{A_{i-1}}^{A_i} \bigl(\tilde x_i - \sigma \Phi^{-1}(t)\bigr)^2 dt
          = \sum_i a_i \tilde x_i^2 - 2 \sigma \sum_i \tilde x_i \bigl(\psi(A_{i-1}) - \psi(A_i)\bigr) + \sigma^2 ,

because :math:`\int \Phi^{-1}(t)\, dt = -\psi(t)` for the profile :math:`\psi = \varphi \circ \Phi^{-1}`, which is 0 at
the levels 0 and 1 and symmetric about ½. Its derivatives :math:`\psi' = -\Phi^{-1}` and :math:`\psi'' = -1/\psi` give
those of the cost in the weights. The subtraction leaves an absolute error of one rounding of σ². The n equally weighted
points that come closest have :math:`W_2^2 \approx \sigma^2 / (10 n)`, which keeps nine digits for a million of them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    Restore,
    allowance,
    as_tensors,
    require_broadcast,
    require_exponent,
    require_finite,
    working_precision,
)
from otkit._derivatives import attach
from otkit._root import root
from otkit._units import in_units, power_of_two, require_finite_length
from otkit.empirical._measures import pair_of_measures, require_mass
from otkit.empirical._quantile import ascending, in_order, require_points_1d, unless_uniform


def transport_cost_1d_to_normal(
    x: Array,
    p: float = 2,
    *,
    loc: Array | float = 0.0,
    scale: Array | float = 1.0,
    a: Array | None = None,
    validate: bool = True,
) -> Array:
    r"""The transport cost :math:`W_2^2(\alpha, N(m, \sigma^2))` of weighted points on the line to a normal law.

    It is smooth in distinct points, in m and in σ, any number of times; in tied points the gradient is one of many. In
    the weights the gradient is exact up to a constant; it is infinite at points of weight zero at either end of the
    line, where a finite one is given.

    Cost: O(n log n) time and O(n) memory for each element of the batch.

    Args:
        x: The points :math:`x_i`, with shape (..., n), in any order.
        p: The exponent, 2: for others there is no closed form here.
        loc: The mean m, with shape (...).
        scale: The standard deviation :math:`\sigma \ge 0`, with shape (...).
        a: The weights :math:`a_i \ge 0` of sum one, with shape (..., n); uniform by default.
        validate: Whether to check values (finite points, non-negative weights of sum one, scale).

    Returns:
        :math:`W_2^2`, with the broadcast batch shape (...), in squared units of the data.

    Raises:
        ValueError: No points, shapes that do not fit, NaN, negative weights or scales, another sum, p other than 2; x
            and loc farther apart than the largest float64.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> print(transport_cost_1d_to_normal(np.array([3.0]), loc=1.0))  # (3 - 1)² + 1
        5.0
    """
    power, length, restore = _on_the_line(x, p, loc, scale, a, validate)
    return restore(in_units(power, length, 2))


def wasserstein_1d_to_normal(
    x: Array,
    p: float = 2,
    *,
    loc: Array | float = 0.0,
    scale: Array | float = 1.0,
    a: Array | None = None,
    validate: bool = True,
) -> Array:
    r"""The distance :math:`W_2(\alpha, N(m, \sigma^2))` of weighted points on the line to a normal distribution.

    Arguments, gradient, cost and errors are those of `transport_cost_1d_to_normal`. Where the value is 0 (σ = 0 and all
    points at m) the gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=100_000)
        >>> print(f"{wasserstein_1d_to_normal(x):.3f} {wasserstein_1d_to_normal(x, loc=3.0, scale=5.0):.3f}")
        0.005 5.000
    """
    power, length, restore = _on_the_line(x, p, loc, scale, a, validate)
    return restore(root(power, 2) * length)


def require_two(p: float) -> None:
    """Raise unless p is 2."""
    if require_exponent(p) != 2:
        raise ValueError(f"p is {p}; the distance to a normal distribution is computed for p = 2 only (take p = 2, or "
                         "the distance to a sample of the normal distribution)")  # fmt: skip


def require_normal(
    x: Tensor, loc: Tensor, scale: Tensor, a: Tensor | None, event: int, *, eps: float, validate: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check points (..., n, d), weights (..., n) of sum one, and loc and scale with 0 or 1 trailing event dimensions.

    With event 0 points are numbers (..., n).

    Returns:
        Points, loc, scale and weights in float64, with broadcast batch dimensions.
    """
    # As in a pair with a single point, of weight one, which has the sum of a normal distribution.
    unit = x.new_ones((1,))
    if a is not None and validate:
        require_finite("a", a)
        require_mass("a", a)
        mass = a.detach().double().sum(-1)
        off = (mass - 1).abs()
        if bool((off > allowance(8 * (a.shape[-1] + 1), eps)).any()):
            raise ValueError(
                f"a must have the sum of a normal distribution, 1; got {mass.flatten()[off.argmax()].item():.12g} "
                "(normalise it: a / a.sum())"
            )
    origin = x.new_zeros((1, x.shape[-1] if x.ndim else 1) if event else 1)
    other = None if a is None else unit
    x, _, a, _ = pair_of_measures(x, origin, a, other, eps=eps, validate=validate, line=event == 0)
    of_loc, of_scale = (t.shape[: t.ndim - event] for t in (loc, scale))
    batch = require_broadcast(x=x.shape[:-2], loc=of_loc, scale=of_scale)
    if validate:
        require_finite("loc", loc)
        require_finite("scale", scale)
        if bool((scale < 0).any()):
            raise ValueError(f"scale must not be negative; got {scale.min().item():.6g} (it is a standard deviation)")
    loc, scale = (working_precision(t) for t in (loc, scale))
    return (
        x.expand(*batch, *x.shape[-2:]),
        loc.expand((*batch, *loc.shape[loc.ndim - event :])),
        scale.expand((*batch, *scale.shape[scale.ndim - event :])),
        a.expand(*batch, a.shape[-1]),
    )


def _on_the_line(
    x: Array, p: float, loc: Array | float, scale: Array | float, a: Array | None, validate: bool
) -> tuple[Tensor, Tensor, Restore]:
    """The cost in units of a squared length, and the length, without a derivative."""
    require_two(p)
    (x_, loc_, scale_, a_), restore = as_tensors(x=x, loc=loc, scale=scale, a=a, optional=("a",))
    require_points_1d("x", x_)
    x_, loc_, scale_, a_ = require_normal(x_, loc_, scale_, a_, 0, eps=restore.eps, validate=validate)
    x_ = x_.squeeze(-1) - loc_.unsqueeze(-1)
    longest = torch.maximum(x_.detach().abs().amax(-1), scale_.detach())
    require_finite_length(longest, "x and loc")
    length = power_of_two(longest)
    weights, _ = unless_uniform(a_, a_)
    return squared_cost_to_normal(x_ / length.unsqueeze(-1), scale_ / length, weights), length, restore


def squared_cost_to_normal(x: Tensor, scale: Tensor, a: Tensor | None) -> Tensor:
    """The cost to N(0, scale²) of points (..., n) with weights (..., n), relative to their sum, None if uniform."""
    if a is None:
        n = x.shape[-1]
        x = ascending(x)
        # In integers, so that levels i/n and 1 - i/n are symmetric.
        index = np.arange(1, n)
        profile = _profile(torch.from_numpy(np.minimum(index, n - index) / n).to(x))
        second = x.square().mean(-1)
    else:
        x, a = in_order(x, a)
        a = a / a.sum(-1, keepdim=True)
        below, above = a.cumsum(-1)[..., :-1], a.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        profile = _profile(torch.where(below < above, below, above))
        second = (a * x.square()).sum(-1)
    cross = (x * -torch.diff(torch.nn.functional.pad(profile, (1, 1)))).sum(-1)
    return second - 2 * scale * cross + scale.square()


def _profile(level: Tensor) -> Tensor:
    """The density of N(0, 1) at the quantile of levels in [0, ½], with the derivative -quantile."""
    # So little changes no level but 0, where the derivative is infinite.
    quantile = torch.special.ndtri(level + 1e-300)
    density = torch.exp(-0.5 * quantile.detach().square()) / math.sqrt(2 * math.pi)
    return attach(density, (level,), (-quantile,))
