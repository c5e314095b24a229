r"""Sliced transport: the mean over directions of the transport between projections.

.. math:: \mathrm{SW}_p^p(\alpha, \beta) = \int_{S^{d-1}} W_p^p(\theta \cdot \alpha,\, \theta \cdot \beta)\, d\theta ,

estimated by the mean :math:`\frac1L \sum_l W_p^p(\theta_l \cdot \alpha, \theta_l \cdot \beta)` over L directions
drawn uniformly, which is unbiased. Each term costs a matrix–vector product and a sort. (The root of the mean is not
unbiased: it is too small by about half its squared relative error.) The directions come in orthogonal blocks, from
which the standard error is estimated (`otkit.empirical._directions`).

References:
    Bonneel, Rabin, Peyré & Pfister, 2015. *Sliced and Radon Wasserstein barycenters of measures*,
    section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, require_exponent
from otkit._derivatives import needs_gradient
from otkit._units import SMALLEST_POWER, power_of_two, require_finite_length
from otkit.empirical._directions import Seed, directions_for
from otkit.empirical._mean_over_directions import Means, mean_over
from otkit.empirical._measures import pair_of_measures
from otkit.empirical._quantile import mean_power, monotone_coupling, unless_uniform


def sliced_cost(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    n_projections: int = 256,
    generator: Seed = None,
    projections: Array | None = None,
    return_error: bool = False,
    validate: bool = True,
) -> Any:
    r"""The sliced transport cost :math:`\mathrm{SW}_p^p(\alpha, \beta)`, estimated without bias.

    All problems of a batch are projected on the same directions, so that their values can be compared. In one
    dimension there is one direction, and the value is exact.
    Gradients in x, y, a and b are those of the couplings held along each direction, as in `transport_cost_1d`, exact
    for the directions drawn. So are second derivatives where all projections fit in one piece of memory (L·(n + m) up
    to two million, the batch included); beyond, where gradients are summed piece by piece, they are refused.

    Cost: O(L (n + m) (d + log(n + m))) time; memory does not grow with L.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the distance, :math:`1 \le p < \infty`.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        n_projections: The number L of directions, which is rounded up to whole blocks.
        generator: The source of the directions: a ``torch.Generator``, a ``numpy.random.Generator`` or a seed; torch's
            own by default.
        projections: The directions themselves, unit vectors with shape (L, d), for a mean over exactly these;
            their standard error takes them for independent.
        return_error: Whether to return an `Estimate`, the value and its standard error, which is that of few blocks of
            directions, four in the plane and where L <= 4 d: twice it is then less than a 95 % interval.
        validate: Whether to check values (finite points, non-negative weights of equal sum, unit directions).

    Returns:
        :math:`\mathrm{SW}_p^p \ge 0`, with the broadcast batch shape (...), in units of the data to the power p.

    Raises:
        ValueError: What `transport_cost` raises; a p so large that float64 does not hold the powers; directions that
            are not of length one, or too few for an error.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> print(f"{sliced_cost(x, x + 1, generator=0):.6f}")  # |t|²/d for a translation by t
        1.000000
    """
    return _sliced(x, y, p, a, b, n_projections, generator, projections, return_error, validate).cost()


def sliced_wasserstein(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    n_projections: int = 256,
    generator: Seed = None,
    projections: Array | None = None,
    return_error: bool = False,
    validate: bool = True,
) -> Any:
    r"""The sliced distance :math:`\mathrm{SW}_p = (\mathrm{SW}_p^p)^{1/p}`, in units of the data.

    Arguments, cost and errors are those of `sliced_cost`. It is a distance, at most :math:`W_p`. At identical measures
    the value is 0 and the gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
        >>> value, error = sliced_wasserstein(x, 2 * y, generator=0, return_error=True)
        >>> print(f"{value:.4f} ± {error:.4f}")
        1.0234 ± 0.0001
    """
    return _sliced(x, y, p, a, b, n_projections, generator, projections, return_error, validate).distance()


def _sliced(
    x: Array,
    y: Array,
    p: float,
    a: Array | None,
    b: Array | None,
    n_projections: int,
    generator: Seed,
    projections: Array | None,
    return_error: bool,
    validate: bool,
) -> Means:
    p = require_exponent(p)
    (x_, y_, a_, b_, given), restore = as_tensors(
        x=x, y=y, a=a, b=b, projections=projections, optional=("a", "b", "projections")
    )
    x_, y_, a_, b_ = pair_of_measures(x_, y_, a_, b_, p=p, eps=restore.eps, validate=validate)
    x_, y_, length = relative_points(x_, y_, a_, b_)
    mass = 0.5 * (a_.sum(-1) + b_.sum(-1))
    a_, b_ = unless_uniform(a_, b_)
    directions, block = directions_for(x_, n_projections, generator, given, restore, validate)

    def mean_of(p: float, *, return_error: bool) -> tuple[Tensor, Tensor]:
        return mean_over(partial(cost_along, p=p), directions, (x_, y_, a_, b_), return_error, block)

    mean, error = mean_of(p, return_error=return_error)
    require_representable(mean, p, lambda: mean_of(1, return_error=False)[0])
    return Means(mean * mass, error * mass.detach(), length, p, return_error, restore)


def require_representable(power: Tensor, p: float, distances: Callable[[], Tensor]) -> None:
    """Raise if a power (...), relative to about the radius of the points, under- or overflowed, and is not 0.

    Args:
        power: The powers.
        p: The exponent.
        distances: The same for p = 1, asked for where a power seems to be out of range.
    """
    power = power.detach()
    kept = (power > SMALLEST_POWER) & (power < torch.inf)
    if not bool(kept.all()) and bool((~kept & (distances() > 0)).any()):
        raise ValueError(
            f"p is {p:g}, and distances between projections, relative to the radius of the points, have p-th powers "
            "that float64 does not hold; expected a smaller p (p = 2, or wasserstein_1d of each projection)"
        )


def relative_points(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The points about a common centre, in units of a length, and that length, of the batch shape.

    The centre is that of the masses: points of little or no weight, however far, take no digits from the others. Those
    of no weight are put there, unless a derivative in the weights is to say what a first grain of mass would cost.
    """
    with torch.no_grad():
        # Weights of sum one, as the sum of huge points may overflow where their mean does not.
        mean_x, mean_y = ((w / w.sum(-1, keepdim=True)).unsqueeze(-2) @ t for t, w in ((x, a), (y, b)))
        centre = 0.5 * mean_x + 0.5 * mean_y
    x, y = x - centre, y - centre
    if not needs_gradient(a, b):
        x, y = (torch.where((w > 0).unsqueeze(-1), t, 0.0) for t, w in ((x, a), (y, b)))
    with torch.no_grad():
        longest = torch.maximum(x.abs().amax((-2, -1)), y.abs().amax((-2, -1)))
        require_finite_length(longest)
        length = power_of_two(longest)
    unit = length[..., None, None]
    return x / unit, y / unit, length


def cost_along(directions: Tensor, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """The costs (..., L) between projections on directions (..., L, d), relative to the mass."""
    weights = (None if w is None else w.unsqueeze(-2) for w in (a, b))
    return mean_power(*monotone_coupling(directions @ x.mT, directions @ y.mT, *weights), p)
