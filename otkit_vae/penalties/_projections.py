r"""W2² between projections of codes on lines and the prior's, for many lines at once.

On a line everything is a matter of order: with the projections sorted, :math:`u_1 \le \dots \le u_n`, and F the
distribution function of the prior's projection,

.. math:: W_2^2 = \sum_i \int_{(i-1)/n}^{i/n} \bigl(u_i - F^{-1}(a)\bigr)^2 da .

A Gaussian prior :math:`N(m, G G^\top)` projects on :math:`\theta` to :math:`N(\theta^\top m, \|G^\top \theta\|^2)`, no
sample of it needed. With :math:`a_i = \Phi^{-1}(i/n)` and the means of N(0, 1) between its quantiles,
:math:`t_i = n (\varphi(a_{i-1}) - \varphi(a_i))`, and :math:`s = \|G^\top \theta\|`,

.. math:: W_2^2 = \frac1n \sum_i (u_i - \theta^\top m - s\, t_i)^2 + s^2 \Bigl(1 - \frac1n \sum_i t_i^2\Bigr) ,

the second term being what lies within the cells. (Expanded, for N(0, 1):
:math:`\frac1n \sum u_i^2 - 2 \sum u_i (\varphi(a_{i-1}) - \varphi(a_i)) + 1`.) Another prior is sampled, n points
sorted as the codes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from scipy.special import ndtri
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit_vae.distributions import gaussian_form
from otkit_vae.sampling import sample


def projected_costs(n: int, prior: Distribution, generator: Generator | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The function from n codes (n, d) and directions, unit vectors (L, d), to the L costs, with shape (L,).

    Args:
        n: The number of codes.
        prior: The prior p(z).
        generator: The source of randomness of a prior that has to be sampled.
    """
    form = gaussian_form(prior)
    if form is None:
        y = sample(prior, n, generator)
        return lambda z, directions: (_sorted(z, directions) - _sorted(y, directions)).square().mean(-1)
    loc, t = form.loc, torch.as_tensor(normal_cell_means(n), dtype=form.loc.dtype, device=form.loc.device)
    within = 1 - t.square().mean()

    def costs(z: Tensor, directions: Tensor) -> Tensor:
        spread = directions * form.scale if form.is_diagonal else directions @ form.scale
        s = torch.linalg.vector_norm(spread, dim=-1, keepdim=True)
        u = _sorted(z - loc, directions)
        return (u - s * t).square().mean(-1) + s.squeeze(-1).square() * within

    return costs


def random_directions(n: int, like: Tensor, generator: Generator | None) -> Tensor:
    """Unit vectors (n, d), uniform on the sphere, for codes (N, d)."""
    device = like.device if generator is None else generator.device
    directions = torch.randn(n, like.shape[-1], generator=generator, device=device, dtype=like.dtype).to(like.device)
    return directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)


@lru_cache(16)
def normal_cell_means(n: int) -> np.ndarray:
    """The means of N(0, 1) on its n cells of equal mass, in ascending order."""
    density = np.exp(-(ndtri(np.arange(n + 1) / n) ** 2) / 2) / math.sqrt(2 * math.pi)
    return n * (density[:-1] - density[1:])


def _sorted(points: Tensor, directions: Tensor) -> Tensor:
    return (directions @ points.mT).sort(-1).values
