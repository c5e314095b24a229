r"""Sliced transport: the mean over directions of the transport between projections.

.. math:: \mathrm{SW}_p^p(\alpha, \beta) = \int_{S^{d-1}} W_p^p(\theta \cdot \alpha,\, \theta \cdot \beta)\, d\theta ,

estimated by the mean :math:`\frac1L \sum_l W_p^p(\theta_l \cdot \alpha, \theta_l \cdot \beta)` over L directions
drawn uniformly, which is unbiased. Each term costs a matrix–vector product and a sort. (The root of the mean is not
unbiased: it is too small by about half its squared relative error.)

**Directions in blocks.** The integrand is even in θ, and a quadratic form in θ is its leading part: for two measures
that differ by a translation and p = 2 it is all of it. The mean of a quadratic form over an orthonormal basis is exact,
so directions are drawn as blocks of k orthonormal ones (in the plane, k evenly spaced ones, which are exact for the
higher harmonics too), every block rotated at random and independently. Each direction alone is still uniform, so the
mean is unbiased. The B block means :math:`c_b` are independent, and the standard error of their mean c is estimated by

.. math:: s^2 = \frac{1}{B (B - 1)} \sum_{b=1}^{B} (c_b - c)^2 ,

for the root by the delta method, :math:`s\, /\, (p\, c^{1 - 1/p})`. There are four blocks or more, as large as the
dimension allows; with four the error itself is known to 40 %.

References:
    Bonneel, Rabin, Peyré & Pfister, 2015. *Sliced and Radon Wasserstein barycenters of measures*.
    Rowland, Hron, Tang, Choromanski, Sarlos & Weller, 2019. *Orthogonal estimation of Wasserstein distances*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    Restore,
    as_tensors,
    require_count,
    require_exponent,
    require_finite,
    shape,
)
from otkit._derivatives import attach, needs_gradient
from otkit._root import root
from otkit.empirical._measures import pair_of_measures, power_of_two
from otkit.empirical._normal import require_normal, require_two, squared_cost_to_normal
from otkit.empirical._quantile import mean_power, monotone_coupling, unless_uniform

Seed: TypeAlias = torch.Generator | np.random.Generator | int | None

_BLOCKS = 4
"""The fewest blocks of directions."""

_LARGEST = 2**21
"""The most projected points at a time, 16 MB of them."""


class Estimate(NamedTuple):
    """A Monte-Carlo mean, or a function of one, and its standard error, which carries no gradient."""

    value: Any
    standard_error: Any


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
    for the directions drawn. Second derivatives are as well where all projections fit in one piece of memory (L·(n + m)
    up to two millions, the batch included), and are refused beyond, where gradients are summed piece by piece.

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
        return_error: Whether to return an `Estimate`, the value and its standard error.
        validate: Whether to check values (finite points, non-negative weights of equal sum, unit directions).

    Returns:
        :math:`\mathrm{SW}_p^p \ge 0`, with the broadcast batch shape (...), in units of the data to the power p.

    Raises:
        ValueError: What `transport_cost` raises; directions that are not of length one, or too few for an error.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> print(f"{sliced_cost(x, x + 1, generator=0):.6f}")  # |t|²/d for a translation by t
        1.000000
    """
    p = require_exponent(p)
    means, length = _sliced(x, y, p, a, b, n_projections, generator, projections, return_error, validate)
    return means.restored(lambda mean: mean * length**p, means.error * length**p)


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
    p = require_exponent(p)
    means, length = _sliced(x, y, p, a, b, n_projections, generator, projections, return_error, validate)
    return means.restored(lambda mean: root(mean, p) * length, means.error_of_root(p) * length)


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
    Gradients in x, loc, scale and a are exact for the directions drawn; second derivatives as in `sliced_cost`.

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
        return_error: Whether to return an `Estimate`, the value and its standard error.
        validate: Whether to check values (finite points, weights of sum one, scale, unit directions).

    Returns:
        :math:`\mathrm{SW}_2^2`, with the broadcast batch shape (...), in squared units of the data.

    Raises:
        ValueError: No points, shapes that do not fit, NaN, negative weights or scales, another sum, p other than 2.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(5000, 8))
        >>> print(f"{sliced_cost_to_normal(x, generator=0):.3f} {sliced_cost_to_normal(3 * x, generator=0):.1f}")
        0.001 4.0
    """
    means, length = _sliced_to_normal(
        x, p, loc, scale, a, n_projections, generator, projections, return_error, validate
    )
    return means.restored(lambda mean: mean * length**2, means.error * length**2)


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

    Arguments, gradient, cost and errors are those of `sliced_cost_to_normal`.

    Example:
        >>> import torch
        >>> z = torch.zeros(1, 4, requires_grad=True)
        >>> print(f"{sliced_wasserstein_to_normal(z, loc=2.0, generator=0):.4f}")  # (4 + 1)^½
        2.2361
    """
    means, length = _sliced_to_normal(
        x, p, loc, scale, a, n_projections, generator, projections, return_error, validate
    )
    return means.restored(lambda mean: root(mean, 2) * length, means.error_of_root(2) * length)


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
) -> tuple[_Means, Tensor]:
    """The mean in units of a length to the power p, and the length, without a derivative."""
    (x_, y_, a_, b_, given), restore = as_tensors(
        x=x, y=y, a=a, b=b, projections=projections, optional=("a", "b", "projections")
    )
    x_, y_, a_, b_ = pair_of_measures(x_, y_, a_, b_, eps=restore.eps, validate=validate)
    x_, y_, length = relative_points(x_, y_)
    mass = 0.5 * (a_.sum(-1) + b_.sum(-1))
    a_, b_ = unless_uniform(a_, b_)
    directions, block = _directions(x_, n_projections, generator, given, restore, validate)

    def along(directions: Tensor, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        return cost_along(directions, x, y, a, b, p)

    means = _mean(along, directions, (x_, y_, a_, b_), restore, return_error, block)
    return means.times(mass), length


def relative_points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The points about a common centre, in units of a length, and that length, of the batch shape."""
    with torch.no_grad():
        centre = 0.5 * (x.mean(-2, keepdim=True) + y.mean(-2, keepdim=True))
        longest = torch.maximum((x - centre).abs().amax((-2, -1)), (y - centre).abs().amax((-2, -1)))
        if not bool((longest < torch.inf).all()):
            raise ValueError("x and y are farther apart than the largest float64; expected finite distances")
        length = power_of_two(longest)
    unit = length[..., None, None]
    return (x - centre) / unit, (y - centre) / unit, length


def cost_along(directions: Tensor, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """The costs (..., L) between projections on directions (..., L, d), relative to the mass."""
    weights = (None if w is None else w.unsqueeze(-2) for w in (a, b))
    return mean_power(*monotone_coupling(directions @ x.mT, directions @ y.mT, *weights), p)


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
) -> tuple[_Means, Tensor]:
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
    length = power_of_two(torch.maximum(x_.detach().abs().amax((-2, -1)), scale_.detach().amax(-1)))
    weights, _ = unless_uniform(a_, a_)
    directions, block = _directions(x_, n_projections, generator, given, restore, validate)

    def along(directions: Tensor, x: Tensor, scale: Tensor, a: Tensor | None) -> Tensor:
        projected = torch.linalg.vector_norm(directions * scale.unsqueeze(-2), dim=-1)
        return squared_cost_to_normal(directions @ x.mT, projected, None if a is None else a.unsqueeze(-2))

    inputs = (x_ / length[..., None, None], scale_ / length.unsqueeze(-1), weights)
    return _mean(along, directions, inputs, restore, return_error, block), length


class _Means(NamedTuple):
    """Means over directions (...), their standard errors if asked for (0 otherwise), and the way back."""

    mean: Tensor
    error: Tensor
    return_error: bool
    restore: Restore

    def times(self, mass: Tensor) -> _Means:
        return self._replace(mean=self.mean * mass, error=self.error * mass.detach())

    def error_of_root(self, p: float) -> Tensor:
        mean = self.mean.detach()
        slope = torch.where(mean > 0, torch.where(mean > 0, mean, 1.0) ** (1 / p - 1) / p, 0.0)
        return self.error * slope

    def restored(self, of_mean: Callable[[Tensor], Tensor], error: Tensor) -> Any:
        value = self.restore(of_mean(self.mean))
        return Estimate(value, self.restore(error)) if self.return_error else value


def _mean(
    along: Callable[..., Tensor],
    directions: Tensor,
    inputs: tuple[Tensor | None, ...],
    restore: Restore,
    return_error: bool,
    block: int,
) -> _Means:
    """The mean of ``along(directions, *inputs)``, piece by piece, with gradients in the inputs."""
    count = len(directions)
    blocks = count // block
    if return_error and blocks < 2 and directions.shape[-1] > 1:
        raise ValueError(f"{count} directions have no standard error; expected at least 2 (raise n_projections)")
    wide = sum(t.numel() // t.shape[-1] for t in inputs[:2] if t is not None and t.numel())
    pieces = directions.split(max(1, _LARGEST // max(1, wide)))
    present = [t for t in inputs if t is not None]
    if len(pieces) == 1 or not needs_gradient(*present):
        costs = torch.cat([along(piece, *inputs) for piece in pieces], -1)
        mean = costs.mean(-1)
    else:
        costs, mean = _mean_with_gradient(along, pieces, inputs)
    costs = costs.detach()
    error = torch.zeros_like(mean.detach())
    if return_error and blocks > 1:
        parts = costs.split(block, -1)
        error = torch.stack([part.mean(-1) for part in parts], -1).std(-1) / blocks**0.5
    return _Means(mean, error, return_error, restore)


def _mean_with_gradient(
    along: Callable[..., Tensor], pieces: tuple[Tensor, ...], inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor]:
    """Costs and their mean; each piece is differentiated at once and forgotten, so memory does not add up."""
    costs: list[Tensor] = []
    gradients: tuple[Tensor, ...] = ()
    for piece in pieces:
        cost, parts = value_and_gradients(lambda *leaves, piece=piece: along(piece, *leaves), inputs)
        costs.append(cost)
        gradients = tuple(g + part for g, part in zip(gradients, parts, strict=True)) if gradients else parts
    joined = torch.cat(costs, -1)
    gradients = tuple(gradient / joined.shape[-1] for gradient in gradients)
    return joined, attach(joined.mean(-1), requiring_gradient(inputs), gradients, refuse=_NO_SECOND)


def value_and_gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The value, and the gradients of its sum in the inputs that require one, all without history."""
    leaves = [None if t is None else t.detach().requires_grad_(t.requires_grad) for t in inputs]
    with torch.enable_grad():
        value = function(*leaves)
        gradients = torch.autograd.grad(value.sum(), requiring_gradient(tuple(leaves)))
    return value.detach(), gradients


def requiring_gradient(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    return tuple(t for t in inputs if t is not None and t.requires_grad)


_NO_SECOND = (
    "second derivatives of sliced transport are kept only while all projections fit in one piece of memory; take fewer "
    "points or directions"
)


def _directions(
    points: Tensor, n_projections: int, generator: Seed, given: Tensor | None, restore: Restore, validate: bool
) -> tuple[Tensor, int]:
    """The directions (L, d), given or drawn, and how many of them make an independent block."""
    d = points.shape[-1]
    if given is None:
        directions, block = random_directions(d, n_projections, generator)
        return directions.to(points), block
    if given.ndim != 2 or given.shape[0] == 0 or given.shape[1] != d:
        raise ValueError(f"projections has shape {shape(given)}; expected directions (L, {d}) with L >= 1")
    if validate:
        require_finite("projections", given)
        lengths = torch.linalg.vector_norm(given.detach(), dim=-1, dtype=points.dtype)
        if bool(((lengths - 1).abs() > 8 * d * restore.eps).any()):
            at = int((lengths - 1).abs().argmax())
            raise ValueError(
                f"projections must have rows of length 1; got one of length {lengths[at].item():.6g} at index {at}"
            )
    return given.to(points), 1


def random_directions(d: int, n_projections: int, generator: Seed = None) -> tuple[Tensor, int]:
    """Uniform directions (L, d) in whole blocks, each rotated by itself, and the size of a block."""
    count = require_count("n_projections", n_projections)
    source = as_generator(generator)
    if d == 1:
        return torch.ones((1, 1), dtype=torch.float64), 1
    device = torch.device("cpu") if source is None else source.device
    options: dict[str, Any] = {"generator": source, "device": device, "dtype": torch.float64}
    block = -(-count // _BLOCKS) if d == 2 else min(d, -(-count // _BLOCKS))
    blocks = -(-count // block)
    if d == 2:
        # A half turn, as θ and -θ are the same.
        angles = math.pi * (torch.arange(block, device=device) + torch.rand(blocks, 1, **options)) / block
        directions = torch.stack([angles.cos(), angles.sin()], -1)
    else:
        # The signs that QR chooses do not matter, for the same reason.
        directions = torch.linalg.qr(torch.randn(blocks, d, block, **options)).Q.mT
    return directions.reshape(-1, d), block


def as_generator(generator: Seed) -> torch.Generator | None:
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, np.random.Generator):
        return torch.Generator().manual_seed(int(generator.integers(2**63)))
    if isinstance(generator, int | np.integer) and not isinstance(generator, bool):
        return torch.Generator().manual_seed(int(generator))
    raise TypeError(
        f"generator is {generator!r} of type {type(generator).__name__}; expected a torch.Generator, a "
        "numpy.random.Generator, a whole number as a seed, or None"
    )
