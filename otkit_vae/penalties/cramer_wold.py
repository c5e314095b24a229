r"""The squared Cramér–Wold distance between codes and a Gaussian prior.

Project both on a line, smooth both by :math:`N(0, \gamma)`, take the squared :math:`L^2` distance of the densities, and
average over all lines: for N(0, I) everything has a closed form,

.. math:: d_{CW}^2 = \frac{1}{2\sqrt\pi} \Bigl( \frac{1}{N(N-1)} \sum_{i \ne j}
          \frac{1}{\sqrt{\gamma}}\, \phi_d\Bigl(\frac{\|z_i - z_j\|^2}{4 \gamma}\Bigr) + \frac{1}{\sqrt{1 + \gamma}}
          - \frac2N \sum_i \frac{1}{\sqrt{\gamma + \frac12}}\, \phi_d\Bigl(\frac{\|z_i\|^2}{2 + 4 \gamma}\Bigr) \Bigr) ,

with Kummer's function :math:`\phi_d(s) = {}_1F_1(\tfrac12; \tfrac d2; -s) = E\, e^{-s \theta_1^2}` for
:math:`\theta` uniform on the sphere. It is an MMD² whose kernel falls only as :math:`1/\|z - z'\|`, and needs neither a
sample of the prior nor directions.

Two things differ from the paper. The mean is over pairs of different codes, a U-statistic: with the N constant terms
i = j of the paper's double sum the others weigh too little beside the pull of the prior, and the value at q = p is
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
from scipy.special import hyp1f1
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit._arguments import require_positive
from otkit._derivatives import attach
from otkit_vae.distributions import GaussianForm, require_gaussian_form
from otkit_vae.penalties._interface import AggregatedPenalty
from otkit_vae.penalties._registry import register
from otkit_vae.precision import single


@register("cramer_wold")
class CramerWold(AggregatedPenalty):
    r"""The squared Cramér–Wold distance between the codes of the batch and a Gaussian prior, aggregated.

    A number without units. A second derivative raises a RuntimeError.

    Args:
        gamma: The variance :math:`\gamma` of the smoothing, in units of the prior's; Silverman's
            :math:`(4 / 3N)^{2/5}` by default.
    """

    known_null = 0.0

    def __init__(self, gamma: float | None = None):
        super().__init__()
        self.gamma = None if gamma is None else require_positive("gamma", gamma)

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        require_gaussian_form("prior", prior, self.name)

    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:  # noqa: D102
        form = require_gaussian_form("prior", prior, self.name)
        z = whitened(single(statistics), GaussianForm(*map(single, form)))
        n, d = z.shape
        gamma = (4 / (3 * n)) ** 0.4 if self.gamma is None else self.gamma
        distances = torch.pdist(z)
        with torch.no_grad():
            r, x = distances.double(), z.double()
            # One call, as its overhead is that of thousands of numbers.
            at = torch.cat([r.square().div_(4 * gamma), x.square().sum(-1).div_(2 + 4 * gamma)])
            phi, slope = kummer(at, d)
            # The weights of a pair and of a code in the value, less the constant of the prior.
            pair = 1 / (2 * math.pi**0.5 * gamma**0.5 * max(len(r), 1))
            code = -1 / (math.pi**0.5 * (gamma + 0.5) ** 0.5 * n)
            squared = pair * phi[:-n].sum() + code * phi[-n:].sum() + 1 / (2 * math.pi**0.5 * (1 + gamma) ** 0.5)
            in_distances = (slope[:-n] * r).mul_(pair / (2 * gamma))
            in_codes = x * slope[-n:, None].mul_(code / (1 + 2 * gamma))
        value = attach(
            squared.to(z.dtype),
            (distances, z),
            (in_distances.to(z.dtype), in_codes.to(z.dtype)),
            refuse="second derivatives of the penalty cramer_wold are not implemented",
        )
        return value.to(statistics.dtype)


def whitened(z: Tensor, form: GaussianForm) -> Tensor:
    """The codes (N, d) in coordinates in which a Gaussian prior is N(0, I)."""
    if form.is_diagonal:
        return (z - form.loc) / form.scale
    return torch.linalg.solve_triangular(form.scale, (z - form.loc).mT, upper=False).mT


NODES = 16384
"""The number of intervals of the table: the error of the value is about NODES**-3 / 50, of the slope NODES**-2 / 8."""


def kummer(s: Tensor, d: int) -> tuple[Tensor, Tensor]:
    r""":math:`{}_1F_1(\frac12; \frac d2; -s)` for s >= 0, to 1e-9, and its derivative, both without history.

    In :math:`r = (1 + 2 s / d)^{-1/2} \in (0, 1]` the function is nearly :math:`r`, and smooth down to r = 0, where it
    has a limit: Taylor's polynomials of degree two about equally spaced nodes represent it.
    """
    if d == 1:
        return torch.exp(-s), -torch.exp(-s)
    r = torch.add(1.0, s, alpha=2 / d).rsqrt_()
    t = r * NODES
    node = t.round()
    t -= node
    # A call for each coefficient, as one for all is three times slower.
    # NaN has no node; any will do, as its distance to it is NaN.
    index, table = node.int().clamp_(0, NODES), torch.as_tensor(_table(d), dtype=s.dtype, device=s.device)
    c0, c1, c2 = (row.index_select(0, index) for row in table)
    value = torch.addcmul(c0, t, torch.addcmul(c1, t, c2))
    # dr/ds = -r³/d
    derivative = torch.addcmul(c1, t, c2, value=2).mul_(r).mul_(r.square()).mul_(-NODES / d)
    return value, derivative


@lru_cache(16)
def _table(d: int) -> np.ndarray:
    """The coefficients (3, NODES + 1) of 1, t and t², t in [-1/2, 1/2] the distance to a node in intervals."""
    r = np.arange(1, NODES + 1) / NODES
    s = d / 2 * (r**-2 - 1)
    # Derivatives in s, and by the chain rule in r: s' = -d/r³, s'' = 3d/r⁴.
    phi, first, second = (hyp1f1(0.5 + k, d / 2 + k, -s) * c for k, c in enumerate((1, -1 / d, 3 / (d * (d + 2)))))
    table = np.stack([phi, first * -d / r**3, (second * d**2 / r**6 + first * 3 * d / r**4) / 2])
    # At r = 0, by the leading terms for large s: Γ(d/2) / Γ((d-1)/2) s^(-1/2) (1 + (3 - d) / 4s), of which r² has none.
    limit = math.exp(math.lgamma(d / 2) - math.lgamma((d - 1) / 2)) * math.sqrt(2 / d)
    table = np.concatenate([[[0.0], [limit], [0.0]], table], axis=1)
    return table / NODES ** np.arange(3.0)[:, None]
