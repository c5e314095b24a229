r"""Improved precision and recall: how much of what is generated could be real, and how much of the real is generated.

The support of a sample :math:`\Phi` is taken to be the union of balls around its points, each out to the point's k-th
nearest neighbour in :math:`\Phi` (itself not counted),

.. math:: f(\phi, \Phi) = \begin{cases} 1 & \text{if } \|\phi - \phi'\| \le \|\phi' - \mathrm{NN}_k(\phi', \Phi)\|
          \text{ for some } \phi' \in \Phi, \\ 0 & \text{otherwise,} \end{cases}

and

.. math:: \text{precision} = \frac{1}{|\Phi_g|} \sum_{\phi \in \Phi_g} f(\phi, \Phi_r), \qquad
          \text{recall} = \frac{1}{|\Phi_r|} \sum_{\phi \in \Phi_r} f(\phi, \Phi_g) ,

for real features :math:`\Phi_r` and generated ones :math:`\Phi_g`, as many of each. Two samples of one distribution do
not reach 1: points in the tails are outside every ball. What they reach is the null value.

Precision alone says nothing: samples that all lie in one dense place of the data can have a precision of 1, above its
null value, with a recall of 0.

References:
    Kynkäänniemi, Karras, Laine, Lehtinen & Aila, 2019. *Improved precision and recall metric for assessing generative
    models*, eqs. (1) and (2); k = 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_SUPPORT = 5000
"""The most points of a support in an evaluation, as all distances between them are computed."""

NEIGHBOUR = 3
"""The neighbour k that a ball extends to, as the authors take it."""

CHUNK = 1000
"""The rows of the distance matrix that are held at a time."""


class PrecisionRecall(NamedTuple):
    """Two fractions.

    Attributes:
        precision: Of the generated points, those within the support of the real ones.
        recall: Of the real points, those within the support of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, *, k: int = NEIGHBOUR) -> PrecisionRecall:
    r"""Improved precision and recall of two sets of points.

    Squared distances are expanded into norms and products, in float64 and about one of the points: they are off by
    1e-15 of the squared size of the cloud, of which radii are a fair part. Cost: :math:`O((n + m)^2 d)` time as one
    matrix product, O(n + m) memory.

    Args:
        real: Features :math:`\Phi_r` of real observations, with shape (n, d), n > k.
        generated: Features :math:`\Phi_g` of generated observations, with shape (m, d), m > k. The authors take m = n:
            a larger sample has smaller balls.
        k: The neighbour that a ball extends to.

    Raises:
        ValueError: Shapes that do not fit, no more than k points, or NaN or infinities.

    Example:
        >>> real = torch.arange(10.0)[:, None]
        >>> precision_recall(real, torch.tensor([[0.5], [2.5], [40.0], [50.0]]), k=1)
        PrecisionRecall(precision=0.5, recall=0.5)
    """
    for name, points in (("real", real), ("generated", generated)):
        if points.ndim != 2 or points.shape[1] != real.shape[-1]:
            raise ValueError(f"{name} has shape {tuple(points.shape)}; expected points (n, d), of one dimension d")
        if not 1 <= k < len(points):
            raise ValueError(f"k is {k}, and {name} has {len(points)} points; expected 1 <= k < the number of points")
        if not bool(torch.isfinite(points).all()):
            raise ValueError(f"{name} has NaN or infinite values; expected finite features")
    origin = real[0].double()
    r, g = (points.double() - origin for points in (real, generated))
    real_radii, generated_radii = (_radii(points, k) for points in (r, g))
    within, recalled = 0, torch.zeros(len(r), dtype=torch.bool, device=r.device)
    for start in range(0, len(g), CHUNK):
        squares = _squared_distances(g[start : start + CHUNK], r)
        within += int((squares <= real_radii).any(-1).sum())
        recalled |= (squares <= generated_radii[start : start + CHUNK, None]).any(0)
    return PrecisionRecall(within / len(g), recalled.double().mean().item())


def _radii(points: Tensor, k: int) -> Tensor:
    """The squared distance of each point to its k-th nearest neighbour among the others, with shape (n,)."""
    radii = []
    for start in range(0, len(points), CHUNK):
        squares = _squared_distances(points[start : start + CHUNK], points)
        squares.diagonal(start).fill_(torch.inf)  # a point is no neighbour of itself
        radii.append(squares.topk(k, largest=False).values[:, -1])
    return torch.cat(radii)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """The squared distances of points (n, d) and (m, d), with shape (n, m)."""
    products = torch.addmm(y.square().sum(-1), x, y.mT, alpha=-2)
    return products.add_(x.square().sum(-1, keepdim=True)).clamp_(min=0)
