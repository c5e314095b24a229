r"""What a trained model is worth on held-out data, each number beside what it would be at q(z) = p(z)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from otkit_vae.batches import Batches
from otkit_vae.distributions import Deterministic, gaussian_form, moments
from otkit_vae.evaluation._codes import decode
from otkit_vae.evaluation._collapse import alarm, noiseless_units
from otkit_vae.evaluation._distances import LARGEST_EXACT, exact_w2
from otkit_vae.evaluation._measures import NULL_DRAWS, Measure, Section, table
from otkit_vae.evaluation._mode import evaluating
from otkit_vae.model import VAE
from otkit_vae.objective import Objective, Terms
from otkit_vae.penalties import AggregatedGaussianW2
from otkit_vae.sampling import sample

PARTS = 5
"""The parts of the codes that all have to be closer to the prior than a sample of it is, to be called too close."""

MANY = 10
"""How many times its null value a distance to the prior is where it is said that the codes do not follow it."""


@dataclass(frozen=True)
class Evaluation:
    r"""Numbers on n held-out observations.

    Attributes:
        reconstruction: :math:`E[-\log p(x|z)]`, in nats an observation.
        squared_error: :math:`E \|x - \hat x\|^2`, summed over an observation; :math:`\hat x` is decoded from the mean.
        penalty: The penalty of the training, a mean over batches.
        penalty_null: Its mean where codes and prior agree, in batches of the same sizes: every posterior is the prior
            for a per-sample penalty, and for an aggregated one codes without noise are drawn from the prior.
        posterior_scale: The mean standard deviation of q(z|x); near 0 the encoder is deterministic.
        posterior_scale_null: That of the prior; None where it is not known, or not finite.
        noiseless: Which units of the posterior have lost their noise, with shape (d,).
        w2: :math:`W_2` between codes, one for each observation up to 2,000, and as many prior samples.
        w2_null: The same between two samples of the prior.
        too_close: Whether ``w2`` is below ``w2_null`` by more than chance: of the codes as a whole, and also of each of
            five parts of them, every fifth code, against the same parts of the samples. At q = p each part is below
            with probability 1/2, independently of the others, so that chance alone says so at most once in 32.
        moments_w2: :math:`W_2` of the Gaussian with the moments of the aggregated posterior to that with the prior's;
            None where the prior's covariance is not known, or not finite.
        moments_w2_null: The same for n samples of the prior, a mean over 20 draws of so many, whose seed is that of the
            evaluation: runs with one prior, n and seed have it in common.
    """

    reconstruction: float
    squared_error: float
    penalty: float
    penalty_null: float
    posterior_scale: float
    posterior_scale_null: float | None
    noiseless: tuple[bool, ...]
    w2: float
    w2_null: float
    too_close: bool
    moments_w2: float | None
    moments_w2_null: float | None

    @property
    def section(self) -> Section:
        """The numbers under a heading."""
        measures = [
            Measure("reconstruction", "reconstruction, -log p(x|z), nats", self.reconstruction, better="lower"),
            Measure("squared_error", "squared reconstruction error", self.squared_error, better="lower"),
            Measure("penalty", "penalty", self.penalty, self.penalty_null),
            Measure("posterior_scale", "mean scale of q(z|x)", self.posterior_scale, self.posterior_scale_null),
            Measure("noiseless_units", "units without noise (sigma collapse)", sum(self.noiseless), 0.0),
            Measure("w2", "W2 of q(z) to p(z), samples", self.w2, self.w2_null),
        ]
        if self.moments_w2 is not None:
            title = "W2 of q(z) to p(z), moments"
            measures.append(Measure("moments_w2", title, self.moments_w2, self.moments_w2_null))
        return Section("held out", "at q = p", tuple(measures))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the numbers."""
        collapsed = alarm(self.noiseless)
        too_close = (
            f"W2 of samples is {1 - self.w2 / self.w2_null:.1%} below its value at q = p, which is more than the noise "
            "of a sample: codes are too close together"
        )
        unknown = "no W2 of moments: the covariance of the prior is not known, or not finite"
        return (
            *([] if collapsed is None else [collapsed]),
            *([too_close] if self.too_close else []),
            *self._far[:1],
            *[unknown] * (self.moments_w2 is None),
        )

    @property
    def _far(self) -> list[str]:
        """What to say of each distance to the prior that is many times its null value, and half the prior's own size.

        The null value of many codes is near 0, and a distance of ten times as much may be a small one.
        """
        size = len(self.noiseless) ** 0.5 * (self.posterior_scale_null or 0.0)
        distances = (("moments", self.moments_w2, self.moments_w2_null), ("samples", self.w2, self.w2_null))
        return [
            f"W2 of {kind} is {value / null:.0f} times its value at q = p: the codes do not follow the prior, and its "
            "samples are decoded from where few codes are, or none"
            for kind, value, null in distances
            if value is not None and null is not None and value > max(MANY * null, size / 2) > 0
        ]

    def table(self) -> str:
        """The numbers as a small table for a terminal."""
        return table([self.section], self.notes)


@torch.no_grad()
def evaluate(model: VAE, objective: Objective, x: Tensor, *, batch_size: int = 128, seed: int = 0) -> Evaluation:
    r"""Evaluate a model, in evaluation mode, on held-out observations.

    The moments of the aggregated posterior carry no sampling noise of z: they are those of `AggregatedGaussianW2`, on
    all observations at once. For posteriors neither Gaussian nor deterministic they are those of the codes z.

    Args:
        model: The model.
        objective: The objective that it was trained with.
        x: Held-out observations, with shape (n, *event).
        batch_size: The batch size at which the penalty is computed: batches are those of held-out data in training, of
            sizes as alike as can be, with every observation in one, and count by their sizes.
        seed: Seeds the codes and the prior samples that are drawn.
    """
    generator, least = torch.Generator().manual_seed(seed), objective.penalty.min_batch
    if len(x) < least:
        raise ValueError(f"x has {len(x)} observations; the penalty needs at least {least}")
    batches = list(Batches(x, batch_size, min_batch=least))
    with evaluating(model, objective):
        terms = [objective(model, batch, generator=generator) for batch in batches]
    squared_errors = [
        (batch - decode(model, t.posterior.mean)).square().flatten(1).sum(-1)
        for batch, t in zip(batches, terms, strict=True)
    ]
    sizes = [len(t.z) for t in terms]
    reconstruction, penalty = (
        _mean([getattr(t, name).item() for t in terms], sizes) for name in ("reconstruction", "penalty")
    )
    prior = model.prior
    scales, z = (torch.cat(parts) for parts in zip(*((t.posterior.stddev, t.z) for t in terms), strict=True))
    # The null value of exact transport falls with the number of codes, so it is computed with as many.
    few = z[:LARGEST_EXACT]
    y, y_other = sample(prior, len(few), generator), sample(prior, len(few), generator)
    y_many = sample(prior, len(z), generator)
    w2, w2_null = exact_w2(few, y), exact_w2(y_other, y)
    moments_w2, moments_w2_null = _of_moments(terms, prior, seed)
    return Evaluation(
        reconstruction=reconstruction,
        squared_error=torch.cat(squared_errors).mean().item(),
        penalty=penalty,
        penalty_null=_mean([objective.penalty.null_value(prior, size, seed=seed) for size in sizes], sizes),
        posterior_scale=scales.mean().item(),
        posterior_scale_null=_scale(prior),
        noiseless=tuple(noiseless_units(scales, y_many.std(0)).tolist()),
        w2=w2,
        w2_null=w2_null,
        too_close=w2 < w2_null and _each_part_is_closer(few, y_other, y),
        moments_w2=moments_w2,
        moments_w2_null=moments_w2_null,
    )


def _each_part_is_closer(z: Tensor, other: Tensor, y: Tensor) -> bool:
    """Whether W2 to y (n, d) is less from z than from other, prior samples, in each of `PARTS` parts of all three."""
    parts = [slice(k, None, PARTS) for k in range(PARTS)] if len(z) >= PARTS else []
    return bool(parts) and all(exact_w2(z[k], y[k]) < exact_w2(other[k], y[k]) for k in parts)


def _mean(values: list[float], sizes: list[int]) -> float:
    """The mean over observations of what batches of these sizes have."""
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def _scale(prior: Distribution) -> float | None:
    try:
        scale = prior.stddev.mean().item()
    except NotImplementedError:
        return None
    return scale if math.isfinite(scale) else None


def _of_moments(terms: list[Terms], prior: Distribution, seed: int) -> tuple[float | None, float | None]:
    """W2 of the moments of all posteriors to those of the prior, and its null value; None without the prior's."""
    known = moments(prior)
    if known is None or not all(bool(torch.isfinite(part).all()) for part in known):
        return None, None
    of_moments, generator = AggregatedGaussianW2(), torch.Generator().manual_seed(seed)

    def w2(statistics: Tensor) -> float:
        return of_moments.compare(statistics, prior, None).item() ** 0.5

    n = sum(len(t.z) for t in terms)
    nulls = [w2(sample(prior, n, generator).unsqueeze(-1)) for _ in range(NULL_DRAWS)]
    return w2(torch.cat([of_moments.statistics(_known(t), t.z) for t in terms])), sum(nulls) / NULL_DRAWS


def _known(terms: Terms) -> Distribution:
    """The posterior, or the codes where it is of no kind whose moments are known in closed form."""
    return Deterministic(terms.z) if gaussian_form(terms.posterior) is None else terms.posterior
