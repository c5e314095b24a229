r"""The energy form of a transport cost, which a minibatch estimates without bias at q = p.

A transport cost :math:`\hat W` between two samples is too large, and the more so the more spread out they are: where
:math:`q = p` it is far from 0, and shrinking the codes lowers it. (The scale s that minimises
:math:`E \hat W_2^2(s z, y)` for :math:`z, y \sim N(0, I)` and N = 128 is 0.7 at d = 8 and 0.3 at d = 64.) With
the codes in two halves :math:`z_1, z_2` and the prior sample in :math:`y_1, y_2`, all independent,

.. math:: \tfrac14 \sum_{i,j=1}^{2} \hat W(z_i, y_j) - \tfrac12 \hat W(z_1, z_2) - \tfrac12 \hat W(y_1, y_2)

has expectation 0 at q = p, as all six terms are then alike, and near it the bias of the self terms cancels that of the
cross terms: the minimising scale is 1.0 at both dimensions. It is no estimate of :math:`W(q, p)` far from 0: one
outlier in a batch is in two of the cross terms and in the first self term, which cancel. A value can be negative.

It needs self terms between *independent* points. Between a batch and itself (a Sinkhorn divergence of the two samples)
they hardly see the sampling noise, and the shrinkage stays. Nor can halves be two draws of each posterior: these
lie together for the same observation, and :math:`\hat W(z_1, z_2)` then says how wide posteriors are, not q(z). Halves
are the first and the second of the batch's observations, whose order in training is random; the value depends on which
observations share a half, its expectation does not. Of an odd batch the last observation is left out: halves of two
sizes would have terms of two biases.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from otkit_vae import processes


def energy(cost: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> Tensor:
    """The split-batch energy form above; of several processes each has its share (`otkit_vae.processes`).

    Args:
        cost: The cost of point sets (..., n, d) and (..., m, d), with shape (...).
        z: Codes of N >= 2 different observations, with shape (N, d).
        y: A sample of the prior, with shape (N, d).
    """
    half = len(z) // 2
    z1, z2 = processes.average_gradient(z)[: 2 * half].split(half)
    y1, y2 = y[: 2 * half].split(half)
    first, second = (z1, z1, z2, z2, z1, y1), (y1, y2, y1, y2, z2, y2)
    share, weight = processes.shares(6), 4 * [0.25] + 2 * [-0.5]
    here = [k for k in range(6) if share[k]]
    if not here:
        return 0 * z1.sum()
    costs = cost(torch.stack([first[k] for k in here]), torch.stack([second[k] for k in here]))
    value = costs @ costs.new_tensor([share[k] * weight[k] for k in here])
    # The other processes wait for a derivative in z, also from one that has the last term only.
    return value if here != [5] else value + 0 * z1.sum()
