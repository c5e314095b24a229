r"""What a latent penalty is.

The objective is :math:`-E[\log p(x|z)] + \text{weight} \cdot W`. A penalty W compares codes with the prior p(z), and
there are two things to compare, its *estimand*:

- "per-sample": every posterior :math:`q(z|x)` by itself, then averaged over x, as in the ELBO;
- "aggregated": the mixture :math:`q(z) = E_x\, q(z|x)`, known from a batch of codes, as in Wasserstein auto-encoders.

A per-sample penalty pulls every code onto the prior, an aggregated one only the codes as a whole.

An aggregated penalty is a function of the *whole* batch. It is written in three steps, of which the second is the same
for all: what it needs to know of each observation (`statistics`), the collection of that over the batch (`gather`), and
the formula (`compare`). Where a batch is spread over processes, only `gather` has to know, and formulas whose terms the
processes share out (`_split`): value and gradient are those of one process with the whole batch, and draws from the
prior and of directions are the same on all processes (`otkit_vae.processes`).

A batch is what one backward pass is taken of. Where the gradients of k batches are accumulated before a step, the
penalty that is minimised is the mean of k penalties of N observations each, with the noise and the null value of N, not
that of k N observations at once. For per-sample penalties the two are the same. To make N larger than one process can
hold, take more processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from otkit_vae import processes
from otkit_vae.distributions import Deterministic, fingerprint
from otkit_vae.penalties._weights import default_weight
from otkit_vae.sampling import sample


class LatentPenalty(nn.Module, ABC):
    """A scalar that is small when the codes look like the prior.

    Attributes:
        estimand: What is compared with the prior, "per-sample" posteriors or the "aggregated" one.
        min_batch: The fewest observations of which the penalty can be computed.
        default_weight: The weight that is taken when none is given, for images of 28 x 28; see `weight_for`.
        name: The name under which the class is registered.
        known_null: The null value where theory says it, None where it is to be simulated.
    """

    estimand: ClassVar[Literal["per-sample", "aggregated"]]
    min_batch: ClassVar[int] = 1
    default_weight: ClassVar[float] = 1.0
    name: ClassVar[str] = ""
    known_null: float | None = None

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

    def check(self, posterior: Distribution, prior: Distribution) -> None:
        """Raise a ValueError, before training, if the penalty is not defined for this posterior or this prior.

        Args:
            posterior: Any posteriors of the model.
            prior: The prior.
        """

    def weight_for(self, event_shape: Sequence[int]) -> float:
        """The default weight for observations of a shape: a rule of thumb from two data sets, given in `_weights`."""
        return default_weight(self.name, self.default_weight, math.prod(event_shape))

    def null_value(self, prior: Distribution, n: int, *, repeats: int = 20, seed: int = 0) -> float:
        """What the penalty is on average where codes and prior agree, at batch size n: its noise floor.

        For a per-sample penalty every posterior is the prior. For an aggregated one the codes are n independent draws
        from the prior, known without noise; such a penalty does not reach 0 on a finite batch even for a perfect match,
        unless it is an unbiased estimate. A value is to be read beside this one. It is computed once for each prior and
        n, with a generator of its own.

        Args:
            prior: :math:`p(z)`.
            n: The batch size N.
            repeats: Over how many batches to average.
            seed: Seeds the draws.
        """
        if self.known_null is not None:
            return self.known_null
        cache: dict[Any, float] = vars(self).setdefault("_null_values", {})
        key = (fingerprint(prior), n, repeats, seed)
        if key not in cache:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad(), processes.alone():
                cache[key] = sum(self._null_draw(prior, n, generator) for _ in range(repeats)) / repeats
        return cache[key]

    def _null_draw(self, prior: Distribution, n: int, generator: Generator) -> float:
        z = sample(prior, n, generator)
        posterior = Deterministic(z) if self.estimand == "aggregated" else prior.expand((n,))
        return self(posterior, z, prior, generator=generator).item()


class PerSamplePenalty(LatentPenalty):
    """A penalty that is a mean of one number for each posterior."""

    estimand = "per-sample"

    @abstractmethod
    def per_observation(
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        """The penalty of each posterior of the batch, with shape (N,)."""

    def forward(
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        return processes.means(self.per_observation(posterior, z, prior, generator=generator))[0]


class AggregatedPenalty(LatentPenalty):
    """A penalty on the whole of a batch's codes."""

    estimand = "aggregated"
    min_batch = 2

    def statistics(self, posterior: Distribution, z: Tensor) -> Tensor:
        """What the penalty needs to know of each observation, with shape (N, ...): its code, by default."""
        return z

    def gather(self, statistics: Tensor) -> Tensor:
        """The statistics of the whole batch, (N, ...), from those that are here; in one process they are the same."""
        return processes.collect(statistics)

    @abstractmethod
    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:
        """The penalty of the whole batch's statistics, a scalar: the same on every process, or its share of that."""

    def forward(
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        return self.compare(self.gather(self.statistics(posterior, z)), prior, processes.shared(generator, z))


class AdversarialPenalty(AggregatedPenalty):
    """A penalty of which a part is trained against the model: the training loop gives the part an optimiser of its own.

    Attributes:
        discriminator: That part. Its parameters have no gradient from the penalty itself.
        learning_rate: The learning rate of its optimiser.
    """

    discriminator: nn.Module
    learning_rate: float

    @abstractmethod
    def adversary_loss(self, z: Tensor, prior: Distribution, *, generator: Generator | None = None) -> Tensor:
        """What the discriminator is to minimise, a scalar.

        Args:
            z: The codes that the penalty was computed from, with shape (N, d); the loss has no gradient in them.
            prior: :math:`p(z)`.
            generator: The source of randomness.
        """
