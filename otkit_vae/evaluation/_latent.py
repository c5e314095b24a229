r"""How the codes of held-out data relate to the prior.

**Aggregated posterior.** A draw of each posterior is a sample of :math:`q(z) = E_x\, q(z|x)`, to be compared with a
sample of p(z). A distance between two finite samples is positive even where q = p, so each stands beside its null
value: the distance between two samples of the prior, of the same size and dimension, here a mean over 20 pairs.

**Active units** (Burda et al., 2016): the coordinates whose posterior mean depends on x,

.. math:: A_u = \operatorname{Var}_x\bigl(E_{q(z|x)}[z_u]\bigr) > 0.01 .

References:
    Burda, Grosse & Salakhutdinov, 2016. *Importance weighted autoencoders*, section 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit_vae.evaluation._codes import Codes
from otkit_vae.evaluation._distances import sliced_w2
from otkit_vae.evaluation._measures import NULL_DRAWS, Measure
from otkit_vae.sampling import sample, seed_of

ACTIVE = 0.01
"""The variance of the posterior mean above which a unit is active."""


@dataclass(frozen=True)
class Latent:
    r"""The codes of n held-out observations and the prior.

    Attributes:
        n: The number of codes.
        sliced_w2: The sliced :math:`W_2` of the codes to as many samples of the prior.
        sliced_w2_null: The same between two samples of the prior, a mean over 20 pairs of them.
        active: Which units are active, with shape (d,).
    """

    n: int
    sliced_w2: float
    sliced_w2_null: float
    active: tuple[bool, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the numbers."""
        collapse = (
            f"posterior collapse: no unit is active: over the data no posterior mean has a variance above {ACTIVE:g}, "
            "so that codes do not depend on the observations, unless their noise is smaller still"
        )
        return () if any(self.active) else (collapse,)

    def measures(self) -> list[Measure]:
        """The numbers, for a table."""
        return [
            Measure("sliced_w2", "sliced W2 of q(z) to p(z), samples", self.sliced_w2, self.sliced_w2_null),
            Measure("active_units", f"active units, of {len(self.active)}", sum(self.active)),
        ]


def latent(codes: Codes, prior: Distribution, *, generator: Generator | None = None, seed: int = 0) -> Latent:
    """Compare codes with the prior.

    Args:
        codes: The codes of held-out observations.
        prior: p(z).
        generator: The source of the prior samples and of the directions.
        seed: Seeds all but the first pair of samples of the null value, so that these take nothing from the generator.
    """
    n = len(codes.z)
    y, other = sample(prior, n, generator), sample(prior, n, generator)
    found, null = (sliced_w2(z, y, generator=generator) for z in (codes.z, other))
    apart = Generator().manual_seed(seed_of(seed, NULL_DRAWS))
    more = (sliced_w2(sample(prior, n, apart), sample(prior, n, apart), generator=apart) for _ in range(NULL_DRAWS - 1))
    return Latent(
        n=n,
        sliced_w2=found,
        sliced_w2_null=sum(more, null) / NULL_DRAWS,
        active=tuple(active_units(codes.mean).tolist()),
    )


def active_units(means: Tensor) -> Tensor:
    """Which units are active by Burda et al. (2016), with shape (d,), from posterior means (n, d)."""
    return means.double().var(0) > ACTIVE
