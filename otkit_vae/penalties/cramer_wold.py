r"""The squared Cramér–Wold distance between codes and a Gaussian prior.

Project both on a line, smooth both by :math:`N(0, \gamma)`, take the squared :math:`L^2` distance of the densities, and
average over all lines: for N(0, I) everything has a closed form,

.. math:: d_{CW}^2 = \frac{1}{2\sqrt\pi} \Bigl( \frac{1}{N(N-1)} \sum_{i \ne j}
          \frac{1}{\sqrt{\gamma}}\, \phi_d\Bigl(\frac{\|z_i - z_j\|^2}{4 \gamma}\Bigr) + \frac{1}{\sqrt{1 + \gamma}}
          - \frac2N \sum_i \frac{1}{\sqrt{\gamma + \frac12}}\, \phi_d\Bigl(\frac{\|z_i\|^2}{2 + 4 \gamma}\Bigr) \Bigr) ,

with Kummer's function :math:`\phi_d(s) = {}_1F_1(\tfrac12; \tfrac d2; -s) = E\, e^{-s \theta_1^2}` for
:math:`\theta` uniform on the sphere. It is an MMD² whose kernel falls as :math:`1/\|z - z'\|` only, and needs neither
sample of the prior nor directions.

Two things differ from the paper. The mean is over pairs of different codes, a U-statistic: with the N terms i = j of
the paper's double sum, constants, the others weigh too little beside the pull of the prior, and the value at q = p is
not 0. And :math:`\phi_d` is exact to 1e-9, from a table; the paper's :math:`(1 + 4s / (2d - 3))^{-1/2}` is off by
percents for small d. Another Gaussian prior is made N(0, I) by whitening the codes.

References:
    Knop, Spurek, Tabor, Podolak, Mazur & Jastrzębski, 2020. *Cramer-Wold auto-encoder*, theorem 3.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline
from scipy.special import hyp1f1
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit._derivatives import attach
from otkit_vae.distributions import GaussianForm, gaussian_form
from otkit_vae.penalties._interface import AggregatedPenalty
from otkit_vae.penalties._kernels import squares_of_pairs, whitened
from otkit_vae.penalties._registry import register


@register("cramer_wold")
class CramerWold(AggregatedPenalty):
    r"""The squared Cramér–Wold distance between the codes of the batch and a Gaussian prior, aggregated.

    Args:
        gamma: The variance :math:`\gamma` of the smoothing, in units of the prior's; Silverman's
            :math:`(4 / 3N)^{2/5}` by default.
    """

    def __init__(self, gamma: float | None = None):
        super().__init__()
        if gamma is not None and not 0 < gamma < math.inf:
            raise ValueError(f"gamma is {gamma}; expected a finite number > 0, or None")
        self.gamma = gamma

    @property
    def known_null(self) -> float | None:  # noqa: D102
        return 0.0

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        _form(prior)

    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:  # noqa: D102
        z = whitened(statistics, _form(prior))
        n, d = z.shape
        gamma = (4 / (3 * n)) ** 0.4 if self.gamma is None else self.gamma
        pairs, norms = squares_of_pairs(z) / (4 * gamma), z.double().square().sum(-1) / (2 + 4 * gamma)
        # One call, as its overhead is that of thousands of numbers.
        phi = kummer(torch.cat([pairs, norms]), d)
        own, cross = phi[: len(pairs)].mean() / gamma**0.5, phi[len(pairs) :].mean() / (gamma + 0.5) ** 0.5
        squared = (own + 1 / (1 + gamma) ** 0.5 - 2 * cross) / (2 * math.pi**0.5)
        return squared.to(statistics.dtype)


def _form(prior: Distribution) -> GaussianForm:
    form = gaussian_form(prior)
    if form is None:
        raise ValueError(
            f"prior is a {type(prior).__name__}; the penalty cramer_wold expects a Gaussian, "
            "Independent(Normal(loc, scale), 1) or MultivariateNormal"
        )
    return form


CELLS = 512
"""The number of cells of the table: the error of cubic pieces is about CELLS**-4."""


def kummer(s: Tensor, d: int) -> Tensor:
    r""":math:`{}_1F_1(\frac12; \frac d2; -s)` for s >= 0, to 1e-9, once differentiable.

    In :math:`v = s / (s + d/2) \in [0, 1)` the product of the function with :math:`\sqrt{1 + 2 s / d}` is nearly
    constant, and smooth up to v = 1, where it has a limit: a table of cubic pieces in v represents it.
    """
    if d == 1:
        return torch.exp(-s)
    with torch.no_grad():
        table = torch.as_tensor(_table(d), dtype=s.dtype, device=s.device)
        half = d / 2
        rest = half / (s + half)  # 1 - v, and the square of the factor's inverse
        position = (1 - rest) * CELLS
        cell = position.int().clamp_(max=CELLS - 1)
        t = position - cell
        c3, c2, c1, c0 = table.index_select(0, cell).unbind(-1)
        root = rest.sqrt()
        # d/ds of f(v) sqrt(1 - v), with dv/ds = (1 - v)² / (d/2).
        high = torch.addcmul(c2, t, c3)
        f = torch.addcmul(c0, t, torch.addcmul(c1, t, high))
        slope = torch.addcmul(c1, t, torch.addcmul(2 * high, t, c3))
        value, derivative = f * root, (slope * rest).mul_(CELLS).sub_(f, alpha=0.5).mul_(rest * root).div_(half)
    return attach(
        value, (s,), (derivative,), refuse="second derivatives of the penalty cramer_wold are not implemented"
    )


@lru_cache(16)
def _table(d: int) -> np.ndarray:
    """The coefficients (CELLS, 4), the highest first, of the cubics in the position t in [0, 1] within a cell."""
    v = np.arange(CELLS) / CELLS
    s = d / 2 * v / (1 - v)
    phi, slope = hyp1f1(0.5, d / 2, -s), -hyp1f1(1.5, d / 2 + 1, -s) / d
    factor = np.sqrt(1 + 2 * s / d)
    value = phi * factor
    # d/dv = (ds/dv) d/ds
    derivative = (slope * factor + phi / (d * factor)) * d / 2 / (1 - v) ** 2
    # At v = 1, by the leading terms for large s: Γ(d/2) / Γ((d-1)/2) s^(-1/2) (1 + (3 - d) / 4s).
    limit = math.exp(math.lgamma(d / 2) - math.lgamma((d - 1) / 2)) * math.sqrt(2 / d)
    value, derivative = np.append(value, limit), np.append(derivative, -1.5 * limit / d)
    nodes = np.append(v, 1.0)
    c = CubicHermiteSpline(nodes, value, derivative).c
    return (c.T * (1 / CELLS) ** np.array([3, 2, 1, 0])).copy()
