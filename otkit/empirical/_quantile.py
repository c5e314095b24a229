r"""Transport on the line, by quantile functions.

For measures of mass one on the line with quantile functions :math:`F^{-1}` and :math:`G^{-1}`, the monotone
coupling is optimal for every convex cost of the difference, so that

.. math:: W_p^p(\alpha, \beta) = \int_0^1 |F^{-1}(t) - G^{-1}(t)|^p \, dt , \qquad p \ge 1 .

For points in ascending order, :math:`F^{-1}` is constant between the levels :math:`A_i = a_1 + \dots + a_i`, and
:math:`G^{-1}` between :math:`B_j`. Merging the levels to :math:`q_1 \le q_2 \le \dots` makes the integral a sum over
at most n + m - 1 intervals,

.. math:: W_p^p = \sum_k (q_k - q_{k-1}) \, |x_{i_k} - y_{j_k}|^p ,

where each step from k to k + 1 passes one point: a staircase from the first pair of points to the last. The derivative
in a level :math:`q_k` is the difference of the costs of the two pairs beside it, and adding these up along the
staircase gives the dual potentials,

.. math:: f_{i+1} - f_i = |x_{i+1} - y_j|^p - |x_i - y_j|^p , \qquad
          g_{j+1} - g_j = |x_i - y_{j+1}|^p - |x_i - y_j|^p ,

so autograd through the sum is the envelope gradient in the weights as well. For n = m uniform weights the levels
coincide, and the sum is the mean of :math:`|x_{(i)} - y_{(i)}|^p` over the sorted points.

References:
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, section 2.6, eqs. (2.36) and (2.37).
    Villani, 2003. *Topics in Optimal Transportation*, theorem 2.18.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import Array, Restore, as_tensors, require_exponent, shape
from otkit._derivatives import needs_gradient
from otkit._root import root
from otkit._units import MODERATE, farthest, in_units, power_of_two, require_finite_length
from otkit.empirical._measures import Measures, pair_of_measures


def transport_cost_1d(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    validate: bool = True,
) -> Array:
    r"""The transport cost :math:`W_p^p(\alpha, \beta)` between weighted points on the line.

    This is the number that `transport_cost` gives for points (..., n, 1), which it leaves to the same code.

    Derivatives of any order are those of the monotone coupling held, exact wherever points and levels keep their
    order under a small change. Elsewhere the gradient is one of many: at tied levels (where some weights of x sum to
    the mass of some of y, as equal ones may) it is one pair of dual potentials in the weights, and where matched
    points coincide it is 0 in the points. The potentials are determined up to a constant, and are given such that
    :math:`\langle f, a \rangle = \langle g, b \rangle = W_p^p / 2`.
    Points of weight zero are legal, and so are weights of any common sum, to which the value is proportional.

    Cost: O((n + m) log (n + m)) time and O(n + m) memory for each pair of the batch.

    Args:
        x: The points :math:`x_i`, with shape (..., n), in any order.
        y: The points :math:`y_j`, with shape (..., m), in any order.
        p: The exponent of the distance, :math:`1 \le p < \infty`.
        a: The weights :math:`a_i \ge 0`, with shape (..., n); uniform, 1/n, by default.
        b: The weights :math:`b_j \ge 0`, with shape (..., m), with the same sum; uniform, 1/m, by default.
        validate: Whether to check values (finite points, non-negative weights of equal sum).

    Returns:
        :math:`W_p^p \ge 0`, with the broadcast batch shape (...), in units of the data to the power p.

    Raises:
        ValueError: Empty sets, shapes that do not fit, NaN, negative weights, unequal sums, p < 1 or p = inf.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> print(transport_cost_1d(np.array([2.0, 0.0]), np.array([3.0, 1.0, 1.0])))  # (1/3 + 1/6 + 1/2)·1²
        1.0
    """
    power, length, p, restore = _on_the_line(x, y, p, a, b, validate)
    return restore(in_units(power, length, p))


def wasserstein_1d(
    x: Array,
    y: Array,
    p: float = 2,
    *,
    a: Array | None = None,
    b: Array | None = None,
    validate: bool = True,
) -> Array:
    r"""The Wasserstein distance :math:`W_p = (W_p^p)^{1/p}` between weighted points on the line.

    Arguments, cost and errors are those of `transport_cost_1d`. At identical measures the value is 0 and the gradient
    is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
        >>> print(wasserstein_1d(x, np.array([2.0]), p=1))
        [2. 2.]
    """
    power, length, p, restore = _on_the_line(x, y, p, a, b, validate)
    return restore(root(power, p) * length)


def _on_the_line(
    x: Array, y: Array, p: float, a: Array | None, b: Array | None, validate: bool
) -> tuple[Tensor, Tensor, float, Restore]:
    p = require_exponent(p)
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    for name, points in zip("xy", tensors, strict=False):
        require_points_1d(name, points)
    measures = pair_of_measures(*tensors, eps=restore.eps, validate=validate, line=True)
    return *relative_cost_1d(measures, p), p, restore


def require_points_1d(name: str, points: Tensor) -> None:
    """Raise unless the shape is (..., n) with n >= 1."""
    if points.ndim < 1 or points.shape[-1] == 0:
        raise ValueError(f"{name} has shape {shape(points)}; expected n >= 1 points on the line, (..., n)")


def relative_cost_1d(measures: Measures, p: float) -> tuple[Tensor, Tensor]:
    r"""The cost in units of a length s, :math:`W_p^p / s^p`, and s, without a derivative, both with the batch shape.

    Args:
        measures: Points (..., n, 1) and (..., m, 1) with their weights.
        p: The exponent.
    """
    x, y, a, b = measures
    difference, widths = monotone_coupling(x.squeeze(-1), y.squeeze(-1), *unless_uniform(a, b))
    distances = difference.detach().abs()
    longest = (distances if widths is None else torch.where(widths > 0, distances, 0.0)).amax(-1)
    require_finite_length(longest)
    if widths is not None:
        # Points of weight zero may be farther, as far as float64 holds powers, which derivatives in the weights need.
        reach = (torch.where(longest > 0, longest, 1.0) * farthest(p)).unsqueeze(-1)
        difference = torch.where(widths > 0, difference, difference.clamp(-reach, reach))
    # A power of two does not round; for a large p the ratios, up to two, would overflow.
    length = power_of_two(longest) if p <= MODERATE else torch.where(longest > 0, longest, 1.0)
    mass = 0.5 * (a.sum(-1) + b.sum(-1))
    return mass * mean_power(difference / length.unsqueeze(-1), widths, p), length


def unless_uniform(a: Tensor, b: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The weights, or None for both where both are uniform and no derivative in them is asked for."""
    if needs_gradient(a, b) or any(bool((w != w[..., :1]).any()) for w in (a, b)):
        return a, b
    return None, None


def mean_power(difference: Tensor, widths: Tensor | None, p: float) -> Tensor:
    """The mean of |difference|^p (..., k) under widths (..., k) of sum one, or under equal ones."""
    if p == 2:
        costs = difference.square()
    elif p == 1:
        costs = difference.abs()
    else:
        # Powers have no second derivative at 0 for p < 2: 0 is kept out of the graph.
        zero = difference == 0
        costs = torch.where(zero, 0.0, torch.where(zero, 1.0, difference.abs()) ** p)
    return costs.mean(-1) if widths is None else (widths * costs).sum(-1)


def monotone_coupling(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
    r"""The differences :math:`x_{i_k} - y_{j_k}` of the points that are matched, and the widths of their intervals.

    Args:
        x: Points, with shape (..., n), in any order.
        y: Points, with shape (..., m), of the same batch shape.
        a: Weights of x, with shape (..., n), or None for both when both are uniform.
        b: Weights of y, with shape (..., m); both are taken relative to their sums.

    Returns:
        The differences, with shape (..., k), and the widths, with shape (..., k), (k,), or None if all are 1/k.
    """
    n, m = x.shape[-1], y.shape[-1]
    if a is None or b is None:
        x, y = ascending(x), ascending(y)
        if n == m:
            return x - y, None
        i, j, widths = _uniform_staircase(n, m)
        index = [torch.from_numpy(part).to(x.device) for part in (i, j)]
        return x[..., index[0]] - y[..., index[1]], torch.from_numpy(widths).to(x)
    (x, A), (y, B) = _with_levels(x, a), _with_levels(y, b)
    levels = torch.cat([A, B], -1)
    order = _order(levels, stable=True)
    # How many points of x were passed before the k-th interval; the last interval, of width 0, is dropped.
    passed = (order < n).cumsum(-1)[..., :-1]
    i = torch.nn.functional.pad(passed, (1, 0))[..., :-1]
    j = torch.arange(n + m - 1, device=x.device) - i
    widths = torch.diff(levels.gather(-1, order)[..., :-1], prepend=torch.zeros_like(levels[..., :1]))
    return x.gather(-1, i.clamp_max(n - 1)) - y.gather(-1, j.clamp_max(m - 1)), widths


def _with_levels(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The points in ascending order, and their levels, the last of them exactly one."""
    points, weights = in_order(points, weights)
    levels = weights.cumsum(-1)
    # Divided by their own last value, not by the sum, which is rounded differently.
    return points, levels / levels[..., -1:]


def in_order(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The points (..., n) in ascending order, and the weight of each, of their shape."""
    order = _order(points)
    return points.gather(-1, order), weights.expand_as(points).gather(-1, order)


def _uniform_staircase(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The staircase (i, j, widths) of n against m uniform weights, in integers: levels in units of 1/(nm)."""
    levels = np.concatenate([m * np.arange(1, n + 1), n * np.arange(1, m + 1)])
    levels.sort(kind="stable")  # which merges runs
    levels = levels[np.diff(levels, prepend=0) > 0]
    return (levels - 1) // m, (levels - 1) // n, np.diff(levels, prepend=0) / (n * m)


def _in_numpy(values: Tensor) -> bool:
    """Whether NumPy can sort these: on rows of 1000 its sort is several times faster than torch's."""
    return values.device.type == "cpu" and not torch._C._are_functorch_transforms_active()


def ascending(points: Tensor) -> Tensor:
    """The points (..., n) in ascending order."""
    if _in_numpy(points) and not needs_gradient(points):
        return torch.from_numpy(np.sort(points.numpy(force=True)))
    return points.gather(-1, _order(points))


def _order(values: Tensor, *, stable: bool = False) -> Tensor:
    """The permutation that brings values (..., n) into ascending order."""
    if _in_numpy(values):
        return torch.from_numpy(np.argsort(values.numpy(force=True), kind="stable" if stable else "quicksort"))
    return values.detach().argsort(stable=stable)
