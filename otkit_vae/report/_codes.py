r"""What a report shows of the codes: the map, the marginals, and the ways between two posteriors.

Between the posteriors :math:`N(m_0, \Sigma_0)` and :math:`N(m_1, \Sigma_1)` of two observations a code can go

- straight from mean to mean, :math:`(1 - t) m_0 + t m_1`;
- straight from a draw of one to an independent draw of the other: its law at t has the covariance
  :math:`(1 - t)^2 \Sigma_0 + t^2 \Sigma_1`, whose spread shrinks on the way: in the middle, where both are alike, to
  :math:`1/\sqrt2` of that at the ends;
- along the geodesic of :math:`W_2`, :math:`N(m_t, \Sigma_t)` of `otkit.gaussian.geodesic`, which keeps the spread of a
  posterior all the way; one draw :math:`\epsilon` of N(0, I) is carried along as :math:`m_t + \Sigma_t^{1/2} \epsilon`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit import empirical, gaussian
from otkit.linalg import sqrtm
from otkit_vae.distributions import GaussianForm, gaussian_form, moments
from otkit_vae.evaluation import Codes
from otkit_vae.model import VAE
from otkit_vae.sampling import sample

STEPS = 9
"""The number of observations on a way, its ends included."""

MAPPED = 3000
"""The most codes in a map."""


class Way(NamedTuple):
    """Codes on the ways between the posteriors of two observations, each with shape (STEPS, d).

    Attributes:
        means: From mean to mean.
        line: From a draw to an independent draw.
        geodesic: A draw carried along the geodesic of the Gaussians; None where the posteriors have no noise.
        spread: The root mean square standard deviation along the geodesic, (STEPS,), and along the lines.
    """

    means: Tensor
    line: Tensor | None
    geodesic: Tensor | None
    spread: tuple[Tensor, Tensor] | None


def ends(labels: Tensor | None, n: int, pairs: int) -> list[tuple[int, int]]:
    """The observations between which to go: the first of each label, two by two, or the first ones of all."""
    first = list(range(n))
    if labels is not None:
        found = [int((labels == label).nonzero()[0]) for label in labels.unique()]
        first = found + [i for i in first if i not in found]
    return [(first[2 * k], first[2 * k + 1]) for k in range(min(pairs, n // 2))]


@torch.no_grad()
def way(model: VAE, x: Tensor, generator: Generator) -> Way:
    """The ways between the posteriors of two observations x, (2, *event)."""
    q = model.encode(x)
    t = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    means = _between(q.mean.double(), t)
    form = gaussian_form(q)
    if form is None or not bool(form.scale.any()):
        return Way(means.to(x), None, None, None)
    m, F = form.loc.double(), GaussianForm(form.loc, form.scale.double()).factor
    cov = F @ F.mT
    noise = torch.randn(2, m.shape[-1], 1, dtype=torch.float64, generator=generator)
    line = _between(m + (F @ noise).squeeze(-1), t)
    m_t, cov_t = gaussian.geodesic(m[0], cov[0], m[1], cov[1], t)
    geodesic = m_t + (sqrtm(cov_t) @ noise[0]).squeeze(-1)
    variance = torch.diagonal(cov, dim1=-2, dim2=-1).mean(-1)
    spread = (
        torch.diagonal(cov_t, dim1=-2, dim2=-1).mean(-1).sqrt(),
        ((1 - t).square() * variance[0] + t.square() * variance[1]).sqrt(),
    )
    return Way(means.to(x), line.to(x), geodesic.to(x), spread)


def _between(ends: Tensor, t: Tensor) -> Tensor:
    return (1 - t)[:, None] * ends[0] + t[:, None] * ends[1]


class Map(NamedTuple):
    """Posterior means in two directions.

    Attributes:
        points: The means, with shape (n, 2).
        spread: The root mean square standard deviation of the posteriors in each direction, with shape (2,), where
            these are diagonal or the directions are units.
        prior: The mean and the covariance of the prior in the directions.
        axes: What the directions are.
        share: The share of the variance of the means that is in the two directions.
    """

    points: np.ndarray
    spread: np.ndarray
    prior: tuple[np.ndarray, np.ndarray]
    axes: tuple[str, str]
    share: float


def map_of(codes: Codes, prior: Distribution) -> Map:
    """The two units, where codes have two dimensions, and else the two main directions of the posterior means."""
    means = codes.mean[:MAPPED].double()
    centred = means - means.mean(0)
    d = means.shape[-1]
    directions = torch.eye(2, dtype=torch.float64) if d == 2 else torch.linalg.svd(centred, full_matrices=False)[2][:2]
    axes = ("z0", "z1") if d == 2 else ("first main direction", "second main direction")
    known = moments(prior)
    if known is None:
        y = sample(prior, 20_000, Generator().manual_seed(0))
        known = gaussian.fit(y.double())
    loc, cov = (part.detach().double() for part in known)
    variance = codes.scale.double().square().mean(0)
    return Map(
        (means @ directions.mT).numpy(),
        (directions.square() @ variance).sqrt().numpy(),
        ((directions @ loc).numpy(), (directions @ cov @ directions.mT).numpy()),
        axes,
        float((centred @ directions.mT).square().sum() / centred.square().sum().clamp_min(1e-300)),
    )


class Marginals(NamedTuple):
    r"""The coordinates of q(z) and p(z), those farthest apart first.

    Attributes:
        q: A draw of each posterior, with shape (n, d).
        p: Prior samples, with shape (m, d).
        w2: :math:`W_2` between the two in each coordinate, with shape (d,).
        null: The mean over coordinates of :math:`W_2` between n prior samples and those m.
        order: The units, by descending distance.
    """

    q: np.ndarray
    p: np.ndarray
    w2: np.ndarray
    null: float
    order: list[int]


def marginals(codes: Codes, prior: Distribution, generator: Generator) -> Marginals:
    """The marginals of the codes of held-out data, and of the prior."""
    q = codes.z.double()
    p, other = (sample(prior, n, generator).double() for n in (20_000, len(q)))
    w2 = empirical.wasserstein_1d(q.mT.contiguous(), p.mT.contiguous())
    null = empirical.wasserstein_1d(other.mT.contiguous(), p.mT.contiguous()).mean().item()
    return Marginals(q.numpy(), p.numpy(), w2.numpy(), null, w2.argsort(descending=True).tolist())
