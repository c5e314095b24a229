r"""What a latent penalty is.

The objective is :math:`-E[\log p(x|z)] + \text{weight} \cdot W`. A penalty W compares codes with the prior p(z), and
there are two things to compare, its *estimand*:

- "per-sample": every posterior :math:`q(z|x)` by itself, then averaged over x, as in the ELBO;
- "aggregated": the mixture :math:`q(z) = E_x\, q(z|x)`, known by a batch of codes, as in Wasserstein auto-encoders.

A per-sample penalty pulls every code onto the prior, an aggregated one only their whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from otkit_vae.sampling import sample


class LatentPenalty(nn.Module, ABC):
    """A scalar that is small when the codes look like the prior.

    Attributes:
        estimand: What is compared with the prior, "per-sample" posteriors or the "aggregated" one.
        min_batch: The fewest observations of which the penalty can be computed.
        default_weight: The weight that is taken when none is given, chosen by the look of samples on digits.
    """

    estimand: ClassVar[Literal["per-sample", "aggregated"]]
    min_batch: ClassVar[int] = 1
    default_weight: ClassVar[float] = 1.0

    @abstractmethod
    def forward(
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        """The penalty of a batch, in the units of the reconstruction once multiplied by the weight.

        Args:
            posterior: :math:`q(z|x)` for a batch of observations, with batch shape (N,) and event shape (d,).
            z: One reparametrised sample of each posterior, with shape (N, d).
            prior: :math:`p(z)`, with batch shape () and event shape (d,).
            generator: The source of randomness, where the penalty draws from the prior.

        Returns:
            A scalar, a mean over the batch: it does not grow with N.
        """

    def null_value(self, prior: Distribution, n: int, *, repeats: int = 20, seed: int = 0) -> float:
        """What the penalty is on average where every posterior *is* the prior, at batch size n: its noise floor.

        An aggregated penalty does not reach 0 on a finite batch even for a perfect match; a value is to be read
        beside this one.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            values = [
                self(prior.expand((n,)), sample(prior, n, generator), prior, generator=generator).item()
                for _ in range(repeats)
            ]
        return sum(values) / repeats


class PerSamplePenalty(LatentPenalty):
    """A penalty that is a mean of one number for each posterior."""

    estimand = "per-sample"

    @abstractmethod
    def per_observation(self, posterior: Distribution, z: Tensor, prior: Distribution) -> Tensor:
        """The penalty of each posterior of the batch, with shape (N,)."""

    def forward(
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        return self.per_observation(posterior, z, prior).mean()
