"""No penalty at all: an auto-encoder, the baseline that every penalty is measured against."""

from __future__ import annotations

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit_vae.penalties._interface import PerSamplePenalty
from otkit_vae.penalties._registry import register


@register("none")
class NoPenalty(PerSamplePenalty):
    """Zero, whatever the codes are."""

    known_null = 0.0

    def per_observation(  # noqa: D102
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        return z.new_zeros(len(z))
