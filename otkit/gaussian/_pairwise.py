r"""The distances between all pairs of two lists of Gaussians.

.. math:: W_2^2\bigl(N(m_i, \Sigma_i),\, N(m'_j, \Sigma'_j)\bigr), \qquad i = 1, \dots, n, \quad j = 1, \dots, m ,

each as `w2_squared` gives it, to the same accuracy. What belongs to one Gaussian, its factor and the inverse of that,
is found n + m times, not n·m times, and no array has n·m·d² numbers, or n·m·d: `_crossed.py` computes its numbers tile
by tile, and once more for the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    Restore,
    as_tensors,
    checked_finite,
    require_broadcast,
    working_precision,
)
from otkit._derivatives import Function, needs_gradient
from otkit._operators import operator
from otkit._root import root
from otkit._symmetry import require_symmetric
from otkit.gaussian import _crossed
from otkit.gaussian._bures import bures_squared
from otkit.gaussian._checks import require_list, require_same_dimension, require_semidefinite
from otkit.gaussian._lengths import hypotenuse, ordinary, units


def pairwise_w2_squared(
    locs1: Array,
    covs1: Array,
    locs2: Array | None = None,
    covs2: Array | None = None,
    *,
    validate: bool = True,
) -> Array:
    r"""The squared distances :math:`W_2^2` between all pairs of two lists of Gaussians, or of one list with itself.

    Accuracy, gradients and degenerate cases are those of `w2_squared`; the matrix of one list is exactly symmetric,
    with a diagonal of exactly 0, and takes half of the work. Second derivatives are those of `w2_squared`, and hold
    :math:`n\,m\,d^2` numbers. Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O((n + m + n m)\,d^3)` and as much again for the gradients; memory :math:`O(n m + (n + m) d^2)`.

    Args:
        locs1: The means :math:`m_i`, with shape (..., n, d).
        covs1: The covariances :math:`\Sigma_i`, with shape (..., n, d, d).
        locs2: The means :math:`m'_j`, with shape (..., m, d); if left out, the first list again.
        covs2: The covariances :math:`\Sigma'_j`, with shape (..., m, d, d), left out together with locs2.
        validate: Whether to check values (finite, symmetric); indefinite covariances are refused in any case.

    Returns:
        :math:`W_2^2 \ge 0` in squared units of the data, with shape (..., n, m), of the broadcast batch shape.

    Raises:
        ValueError: Shapes that do not fit, or covariances that are not finite, symmetric, positive semidefinite.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices; one of locs2 and covs2
            without the other.

    Example:
        >>> import numpy as np
        >>> locs, covs = np.array([[0.0], [3.0], [3.0]]), np.array([[[1.0]], [[1.0]], [[4.0]]])
        >>> pairwise_w2_squared(locs, covs)
        array([[ 0.,  9., 10.],
               [ 9.,  0.,  1.],
               [10.,  1.,  0.]])
        >>> pairwise_w2_squared(locs, covs, locs[:1], covs[:1]).shape
        (3, 1)
    """
    m1, m2, dispersions, restore = _all_pairs(locs1, covs1, locs2, covs2, validate)
    return restore(SquaredDifferences.at(m1, m2, None) + dispersions)


def pairwise_w2(
    locs1: Array,
    covs1: Array,
    locs2: Array | None = None,
    covs2: Array | None = None,
    *,
    validate: bool = True,
) -> Array:
    r"""The matrix of distances :math:`W_2`, the roots of `pairwise_w2_squared`, in units of the data.

    Arguments, cost and errors are those of `pairwise_w2_squared`. At equal Gaussians the value is exactly 0 and its
    gradient is defined to be 0, a subgradient.

    Example:
        >>> import numpy as np
        >>> pairwise_w2(np.array([[0.0, 0.0], [3.0, 4.0]]), np.stack([np.eye(2)] * 2))
        array([[0., 5.],
               [5., 0.]])
    """
    m1, m2, dispersions, restore = _all_pairs(locs1, covs1, locs2, covs2, validate)
    if ordinary(m1, m2):
        return restore(root(SquaredDifferences.at(m1, m2, None) + dispersions, 2))
    unit = units(extents(m1, m2), dispersions)
    return restore(hypotenuse(SquaredDifferences.at(m1, m2, unit), dispersions, unit))


def _all_pairs(
    locs1: Any, covs1: Any, locs2: Any, covs2: Any, validate: bool
) -> tuple[Tensor, Tensor, Tensor, Restore]:
    """The means and the squared Bures distances (..., n, m) in working precision."""
    half = locs2 is None and covs2 is None
    if half:
        (m1, C1), restore = as_tensors(locs1=locs1, covs1=covs1)
        m2, C2 = m1, C1
    else:
        for name, value, other in (("locs2", locs2, "covs2"), ("covs2", covs2, "locs2")):
            if value is None:
                raise TypeError(f"{name} is None, but {other} is given; expected both, or none of them")
        (m1, C1, m2, C2), restore = as_tensors(locs1=locs1, covs1=covs1, locs2=locs2, covs2=covs2)
    require_list("1", m1, C1)
    require_list("2", m2, C2)
    require_same_dimension("covs", C1, C2)
    require_broadcast(locs1=m1.shape[:-2], covs1=C1.shape[:-3], locs2=m2.shape[:-2], covs2=C2.shape[:-3])
    if validate:
        m1 = checked_finite("locs1", m1)
        m2 = checked_finite("locs2", m2)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    return m1, m2, squared_bures(C1, None if half else C2, eps=restore.eps, validate=validate), restore


def squared_bures(covs1: Tensor, covs2: Tensor | None, *, eps: float, validate: bool) -> Tensor:
    """The squared Bures distances (..., n, m) of all pairs, for lists whose shapes fit.

    Args:
        covs1: The first covariances, in float64.
        covs2: The second covariances, or None for the first again.
        eps: The rounding of the entries as they came, by which symmetry and definiteness are judged.
        validate: Whether to check that covariances are finite and symmetric.
    """
    half = covs2 is None
    second = covs1 if covs2 is None else covs2
    batch = torch.broadcast_shapes(covs1.shape[:-3], second.shape[:-3])
    first = covs1.expand(*batch, *covs1.shape[-3:])
    second = first.detach() if half else second.expand(*batch, *second.shape[-3:])
    return (_Crossed.at if needs_gradient(first, second) else _values)(first, second, half, eps, validate)


@operator("crossed_bures", lambda covs1, covs2, *_: covs1.new_empty(*covs1.shape[:-2], covs2.shape[-3]))
def _values(covs1: Tensor, covs2: Tensor, half: bool, eps: float, validate: bool) -> Tensor:
    n, m = covs1.shape[-3], covs2.shape[-3]
    values = covs1.new_zeros(*covs1.shape[:-3], n, m)
    both = {"covs1": covs1.detach()} if half else {"covs1": covs1.detach(), "covs2": covs2.detach()}
    if validate:
        for name, covs in both.items():
            require_symmetric(name, covs, eps)
    try:
        for one, other, out in _problems(covs1, covs2, values):
            if _on_cpu(one):
                factors = _both_factors(one, other, half, eps)
                out.copy_(torch.from_numpy(_crossed.squared_distances(*factors, half=half)))
                continue
            for i in range(n):
                out[i] = bures_squared(one[i].expand_as(other), other, eps=eps, validate=False)
    except ValueError:
        # Said again of the batch as it came, by its own indices.
        for name, covs in both.items():
            require_semidefinite(name, covs, eps)
        raise
    return values


@operator(
    "crossed_bures_gradients", lambda covs1, covs2, *_: (covs1.new_empty(covs1.shape), covs2.new_empty(covs2.shape))
)
def _gradients(
    covs1: Tensor, covs2: Tensor, values: Tensor, weights: Tensor, half: bool, eps: float
) -> tuple[Tensor, Tensor]:
    gradients1, gradients2 = (torch.zeros_like(each, memory_format=torch.contiguous_format) for each in (covs1, covs2))
    for one, other, value, weight, out1, out2 in _problems(covs1, covs2, values, weights, gradients1, gradients2):
        if _on_cpu(one):
            both, w = _both_factors(one, other, half, eps), weight.detach().numpy()
            parts = _crossed.weighted_gradients(*both, value.detach().numpy(), w, half=half)
            out1.copy_(torch.from_numpy(parts[0]))
            out2.copy_(torch.from_numpy(parts[1]))
            continue
        for i, w in enumerate(weight):

            def total(cov1: Tensor, covs2: Tensor, w: Tensor = w) -> Tensor:
                return (w * bures_squared(cov1.expand_as(covs2), covs2, eps=eps, validate=False)).sum()

            out1[i], second = torch.func.grad(total, argnums=(0, 1))(one[i], other)
            out2 += second
    return gradients1, gradients2


def _problems(*tensors: Tensor) -> Any:
    """The problems of a batch, of which no tensor is empty."""
    batch = tensors[0].shape[:-3]
    if any(tensor.numel() == 0 for tensor in tensors):
        return []
    return zip(*(tensor.reshape(-1, *tensor.shape[len(batch) :]) for tensor in tensors), strict=True)


def _on_cpu(covs: Tensor) -> bool:
    return covs.device.type == "cpu"


def _both_factors(covs1: Tensor, covs2: Tensor, half: bool, eps: float) -> tuple[_crossed.Factors, _crossed.Factors]:
    first = _crossed.factors_of("covs1", np.ascontiguousarray(covs1.detach().numpy()), eps)
    return first, first if half else _crossed.factors_of("covs2", np.ascontiguousarray(covs2.detach().numpy()), eps)


class _Crossed(Function):
    """(Σ, Σ') -> the matrices of squared distances."""

    @staticmethod
    def forward(covs1: Tensor, covs2: Tensor, half: bool, eps: float, validate: bool) -> Tensor:
        return _values(covs1, covs2, half, eps, validate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        covs1, covs2, ctx.half, ctx.eps, _ = inputs
        ctx.save_for_backward(covs1, covs2, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        covs1, covs2, values = ctx.saved_tensors
        first, second = _CrossedGradients.at(covs1, covs2, values.detach(), grad_outputs[0], ctx.half, ctx.eps)
        return (first + second, None, None, None, None) if ctx.half else (first, second, None, None, None)


class _CrossedGradients(Function):
    """The gradients of `_Crossed`, with a derivative that holds all the pairs at once."""

    @staticmethod
    def forward(
        covs1: Tensor, covs2: Tensor, values: Tensor, weights: Tensor, half: bool, eps: float
    ) -> tuple[Tensor, Tensor]:
        return _gradients(covs1, covs2, values, weights, half, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        covs1, covs2, _, weights, ctx.half, ctx.eps = inputs
        ctx.save_for_backward(covs1, covs2, weights)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        covs1, covs2, weights = ctx.saved_tensors

        def gradients(covs1: Tensor, covs2: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            def total(covs1: Tensor, covs2: Tensor) -> Tensor:
                pairs = torch.broadcast_tensors(covs1.unsqueeze(-3), covs2.unsqueeze(-4))
                return (weights * bures_squared(*pairs, eps=ctx.eps, validate=False)).sum()

            return torch.func.grad(total, argnums=(0, 1))(covs1, covs2)

        pull_back = torch.func.vjp(gradients, covs1, covs2, weights)[1]
        first, second, third = pull_back(tuple(grad_outputs))
        return (first + second, None, None, third, None, None) if ctx.half else (first, second, None, third, None, None)


class SquaredDifferences(Function):
    """(m, m', u) -> |m_i - m'_j|² / u_ij², with shape (..., n, m), holding some of the differences at a time.

    The units u, powers of two, have the shape of the result, or ones in it; None stands for the unit one.
    """

    @staticmethod
    def forward(locs1: Tensor, locs2: Tensor, unit: Tensor | None) -> Tensor:
        some = _some_differences(locs1, locs2, unit)
        return torch.cat([difference.square().sum(-1) for difference, _ in some], -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        locs1, locs2, unit = ctx.saved_tensors
        grads1, grad2, done = [], torch.zeros_like(locs2), 0
        for difference, u in _some_differences(locs1, locs2, unit):
            weights = grad_outputs[0].narrow(-2, done, difference.shape[-3]).unsqueeze(-1)
            products = 2 * (weights / u) * difference
            grads1.append(products.sum(-2))
            grad2 = grad2 - products.sum(-3)
            done += difference.shape[-3]
        return torch.cat(grads1, -2).sum_to_size(locs1.shape), grad2.sum_to_size(locs2.shape), None


def extents(locs1: Tensor, locs2: Tensor) -> Tensor:
    """The largest coordinates (..., n, m) of the differences of means, without derivative."""
    some = _some_differences(locs1.detach(), locs2.detach(), None)
    return torch.cat([difference.abs().amax(-1) for difference, _ in some], -2)


def _some_differences(locs1: Tensor, locs2: Tensor, unit: Tensor | None) -> Iterator[tuple[Tensor, Tensor | float]]:
    """The differences of means (..., n, m, d) in units (..., n, m, 1), and these, some rows at a time."""
    batch = torch.broadcast_shapes(locs1.shape[:-2], locs2.shape[:-2]).numel()
    size = max(1, 2**20 // max(1, batch * locs2.shape[-2:].numel()))
    if unit is not None:
        unit = unit.expand(torch.broadcast_shapes(unit.shape, (locs1.shape[-2], 1))).unsqueeze(-1)
    for k, some in enumerate(locs1.unsqueeze(-2).split(size, -3)):
        difference = some - locs2.unsqueeze(-3)
        if unit is None:
            yield difference, 1.0
        else:
            u = unit.narrow(-3, k * size, some.shape[-3])
            yield difference / u, u
