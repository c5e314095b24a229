r"""Max-sliced transport: the direction along which two measures differ most.

.. math:: \max_{|\theta| = 1} W_p^p(\theta \cdot \alpha,\, \theta \cdot \beta) \;\le\; W_p^p(\alpha, \beta) .

The cost c along θ, extended to all vectors, is homogeneous of degree p, so :math:`\theta \cdot \nabla c = p\, c`, and
its gradient is that of the coupling held, :math:`\nabla c = p \sum_k w_k |\theta \cdot \delta_k|^{p-2} (\theta \cdot
\delta_k)\, \delta_k` for the differences :math:`\delta_k` of matched points. For p = 2 it is :math:`2 C(\theta) \theta`
with their second moment C, and where the coupling stays the same a power iteration
:math:`\theta \leftarrow \nabla c / |\nabla c|` finds its first eigenvector. Each step here turns θ towards the
gradient, by a multiple of the angle between the two; the multiple grows when the cost does and shrinks when it does
not, so the cost only rises. It has converged when that step is below a tolerance: the gradient points along θ, or θ
lies on a ridge where the coupling changes.

The cost can have several local maxima, so the ascent starts from several directions: the difference of the means, the
two in which the variances differ most, and the best of many random ones. Whichever it finds, **the value at any
direction is a lower bound of** :math:`W_p^p`; only whether it is the largest is not certain. At the maximum the
derivative in θ is 0 along the sphere, so the gradient in points and weights is that with θ held (envelope theorem).

References:
    Deshpande et al., 2019. *Max-sliced Wasserstein distance and its use for GANs*, definition 2.
    Paty & Cuturi, 2019. *Subspace robust Wasserstein distances*.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, Restore, as_tensors, require_count, require_exponent, require_positive
from otkit._convergence import warn
from otkit._derivatives import attach, needs_gradient
from otkit._root import root
from otkit._units import in_units
from otkit.empirical._directions import Seed, random_directions
from otkit.empirical._mean_over_directions import requiring_gradient, value_and_gradients
from otkit.empirical._measures import pair_of_measures, refuse_transforms
from otkit.empirical._quantile import unless_uniform
from otkit.empirical._sliced import cost_along, relative_points, require_representable


def max_sliced_cost(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    n_starts: int = 8,
    generator: Seed = 0,
    tol: float = 1e-6,
    max_iter: int = 1000,
    return_direction: bool = False,
    validate: bool = True,
) -> Any:
    r"""The max-sliced transport cost, :math:`\max_\theta W_p^p(\theta \cdot \alpha, \theta \cdot \beta)`.

    A lower bound of :math:`W_p^p(\alpha, \beta)`, and the best of those that were found: a local maximum, or a point
    on a ridge, where two couplings cost the same, and along which the ascent does not go on to the maximum.
    Gradients in x, y, a and b are those at the direction and the coupling held, exact where the maximum is unique and
    not on a ridge. Between few points it often is on a ridge; the gradients there are those of one coupling of several.
    Second derivatives are refused.

    Cost: O(s (n + m) (d + log(n + m))) an iteration for s starts, typically tens of iterations.

    Args:
        x: The points :math:`x_i`, with shape (..., n, d).
        y: The points :math:`y_j`, with shape (..., m, d).
        p: The exponent of the distance, :math:`1 \le p < \infty`.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        n_starts: The number s of directions from which to ascend: the difference of means, the two in which the
            variances differ most, and random ones, each the best of several.
        generator: The source of the random ones: a ``torch.Generator``, a ``numpy.random.Generator`` or a seed; None
            for torch's own.
        tol: The step, as an angle, below which to stop.
        max_iter: The most steps.
        return_direction: Whether to return the pair of the value and the direction, with shape (..., d).
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        The cost, with the broadcast batch shape (...), in units of the data to the power p.

    Raises:
        ValueError: What `transport_cost` raises; n_starts, tol or max_iter that are not positive.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The best direction was still moving after max_iter steps; the value is still a lower bound.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> value, direction = max_sliced_cost(x, x + np.array([0.0, 3.0, 4.0]), return_direction=True)
        >>> print(f"{value:.6f}", np.abs(direction).round(6))
        25.000000 [0.  0.6 0.8]
    """
    p = require_exponent(p)
    power, direction, length, restore = _maximum(x, y, p, a, b, n_starts, generator, tol, max_iter, validate)
    value = restore(in_units(power, length, p))
    return (value, restore(direction)) if return_direction else value


def max_sliced_wasserstein(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    n_starts: int = 8,
    generator: Seed = 0,
    tol: float = 1e-6,
    max_iter: int = 1000,
    return_direction: bool = False,
    validate: bool = True,
) -> Any:
    r"""The max-sliced distance :math:`\max_\theta W_p(\theta \cdot \alpha, \theta \cdot \beta)`, at most :math:`W_p`.

    Arguments, cost, warnings and errors are those of `max_sliced_cost`. At identical measures the value is 0 and the
    gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> print(f"{max_sliced_wasserstein(x, x * [1.0, 1.0, 2.0], 1):.6f}")
        0.734536
    """
    p = require_exponent(p)
    power, direction, length, restore = _maximum(x, y, p, a, b, n_starts, generator, tol, max_iter, validate)
    value = restore(root(power, p) * length)
    return (value, restore(direction)) if return_direction else value


def _maximum(
    x: Array,
    y: Array,
    p: float,
    a: Array | None,
    b: Array | None,
    n_starts: int,
    generator: Seed,
    tol: float,
    max_iter: int,
    validate: bool,
) -> tuple[Tensor, Tensor, Tensor, Restore]:
    """The largest cost in units of a length to the power p, its direction, and the length."""
    n_starts, max_iter = require_count("n_starts", n_starts), require_count("max_iter", max_iter)
    tol = require_positive("tol", tol)
    (x_, y_, a_, b_), restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    x_, y_, a_, b_ = pair_of_measures(x_, y_, a_, b_, p=p, eps=restore.eps, validate=validate)
    refuse_transforms()
    x_, y_, length = relative_points(x_, y_, a_, b_)
    mass = 0.5 * (a_.sum(-1) + b_.sum(-1))
    inputs = (x_, y_, *unless_uniform(a_, b_))
    # The ascent needs derivatives in the direction even where the caller has turned off all derivatives.
    with torch.inference_mode(False), torch.no_grad():
        starts = _starts(x_, y_, a_, b_, n_starts)
        fixed = tuple(None if t is None else t.clone() if t.is_inference() else t.detach() for t in inputs)
        if (drawn := n_starts - starts.shape[-2]) > 0 and x_.shape[-1] > 1:
            starts = torch.cat([starts, _best_drawn(drawn, generator, fixed, p, starts)], -2)
        directions, costs, step = _ascend(starts, fixed, p, tol, max_iter)
        best = costs.argmax(-1, keepdim=True)
        direction = directions.take_along_dim(best.unsqueeze(-1), -2)
        moving = int((step.take_along_dim(best, -1) > tol).sum())
    if moving:
        warn(
            f"the max-sliced direction was still turning by more than tol = {tol:.1e} after max_iter = {max_iter} "
            f"steps in {moving} of {best.numel()} problems; the value is a lower bound, if not the largest (raise "
            "max_iter or tol)"
        )

    def along(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        return cost_along(direction, x, y, a, b, p).squeeze(-1)

    if needs_gradient(*(wanted := requiring_gradient(inputs))):
        value, gradients = value_and_gradients(along, inputs)
        value = attach(value, wanted, gradients, refuse=_NO_SECOND)
    else:
        value = along(*inputs)
    require_representable(value, p, lambda: cost_along(direction, x_, y_, a_, b_, 1).squeeze(-1))
    return mass * value, direction.squeeze(-2), length, restore


_NO_SECOND = "second derivatives of max-sliced transport are not implemented, and are refused rather than wrong"


def _starts(x: Tensor, y: Tensor, a: Tensor, b: Tensor, n_starts: int) -> Tensor:
    """Directions (..., s, d), s <= n_starts, that are likely to be near the maximum: of means, and of variances."""
    (mean1, cov1), (mean2, cov2) = _moments(x, a), _moments(y, b)
    difference = mean1 - mean2
    distance = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
    _, vectors = torch.linalg.eigh(cov1 - cov2)
    first = torch.where(distance > 0, difference / torch.where(distance > 0, distance, 1.0), vectors[..., :, 0])
    chosen = torch.stack([first, vectors[..., :, 0], vectors[..., :, -1]], -2)
    return chosen[..., : 1 if x.shape[-1] == 1 else n_starts, :]


_TRIED = 8
"""How many random directions are tried for each one from which an ascent starts."""


def _best_drawn(drawn: int, generator: Seed, measures: tuple[Any, ...], p: float, like: Tensor) -> Tensor:
    """Random directions (..., drawn, d), each the best of several."""
    tried = random_directions(like.shape[-1], _TRIED * drawn, generator)[0][: _TRIED * drawn].to(like)
    costs = cost_along(tried.expand(*like.shape[:-2], *tried.shape), *measures, p=p)
    best = costs.unflatten(-1, (_TRIED, drawn)).argmax(-2)
    return tried[best * drawn + torch.arange(drawn, device=best.device)]


def _moments(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (..., d) and the covariance (..., d, d)."""
    weights = (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)
    mean = (weights * points).sum(-2)
    centred = points - mean.unsqueeze(-2)
    return mean, (weights * centred).mT @ centred


def _ascend(
    directions: Tensor, measures: tuple[Any, ...], p: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ascend from directions (..., s, d); return where it ended, the costs (..., s), and the last steps as angles."""
    cost, gradient = _cost_and_gradient(directions, measures, p)
    multiple = torch.ones_like(cost)
    step = torch.full_like(cost, torch.inf)
    for _ in range(max_iter):
        radial = (gradient * directions).sum(-1)
        tangent = gradient - radial.unsqueeze(-1) * directions
        slope = torch.linalg.vector_norm(tangent, dim=-1)
        step = (multiple * torch.atan2(slope, radial)).clamp_max(1.0)
        if bool((step <= tol).all()):
            break
        unit = tangent / torch.where(slope > 0, slope, 1.0).unsqueeze(-1)
        trial = step.cos().unsqueeze(-1) * directions + step.sin().unsqueeze(-1) * unit
        trial = trial / torch.linalg.vector_norm(trial, dim=-1, keepdim=True)
        trial_cost, trial_gradient = _cost_and_gradient(trial, measures, p)
        better = (trial_cost > cost) & (step > tol)
        multiple = torch.where(better, 1.5 * multiple, torch.where(step > tol, 0.3 * multiple, multiple))
        cost = torch.where(better, trial_cost, cost)
        directions = torch.where(better.unsqueeze(-1), trial, directions)
        gradient = torch.where(better.unsqueeze(-1), trial_gradient, gradient)
    return directions, cost, step


def _cost_and_gradient(directions: Tensor, measures: tuple[Any, ...], p: float) -> tuple[Tensor, Tensor]:
    leaf = directions.detach().requires_grad_()
    cost, (gradient,) = value_and_gradients(lambda leaf: cost_along(leaf, *measures, p=p), (leaf,))
    return cost, gradient
