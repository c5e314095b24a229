r"""How the codes of held-out data relate to the prior.

**Aggregated posterior.** A draw of each posterior is a sample of :math:`q(z) = E_x\, q(z|x)`, to be compared with a
sample of p(z). A distance between two finite samples is positive even where q = p, so each stands beside its null
value: the distance between two samples of the prior, of the same size and dimension.

**Active units** (Burda et al., 2016): the coordinates whose posterior mean depends on x,

.. math:: A_u = \operatorname{Var}_x\bigl(E_{q(z|x)}[z_u]\bigr) > 0.01 .

**Collapse of σ.** A penalty without a barrier at σ = 0 (every Wasserstein one) lets the posterior lose its noise
without anything saying so. The alarm names the coordinates in which

.. math:: \bigl(E_x\, \sigma_u(x)^2\bigr)^{1/2} < 0.01\, s_u ,

:math:`s_u` the prior's standard deviation: the noise then blurs less than a hundredth of the code, and the decoder has
learned no smoothness from it. A posterior that is deterministic by construction (σ = 0 exactly) raises no alarm.

References:
    Burda, Grosse & Salakhutdinov, 2016. *Importance weighted autoencoders*, section 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit_vae.evaluation._codes import Codes
from otkit_vae.evaluation._distances import sliced_w2
from otkit_vae.evaluation._measures import Measure
from otkit_vae.sampling import sample

ACTIVE = 0.01
"""The variance of the posterior mean above which a unit is active."""

NOISELESS = 0.01
"""The posterior's standard deviation, relative to the prior's, below which a unit has lost its noise."""


@dataclass(frozen=True)
class Latent:
    r"""The codes of n held-out observations and the prior.

    Attributes:
        n: The number of codes.
        sliced_w2: The sliced :math:`W_2` of the codes to as many samples of the prior.
        sliced_w2_null: The same between two samples of the prior.
        active: Which units are active, with shape (d,).
        noiseless: Which units have lost their noise, with shape (d,).
    """

    n: int
    sliced_w2: float
    sliced_w2_null: float
    active: tuple[bool, ...]
    noiseless: tuple[bool, ...]

    @property
    def alarm(self) -> str | None:
        """What to say of units without noise; None if there are none."""
        units = [str(u) for u, noiseless in enumerate(self.noiseless) if noiseless]
        if not units:
            return None
        return (
            f"sigma collapse: in {len(units)} of {len(self.noiseless)} units (from 0: {', '.join(units)}) the standard "
            f"deviation of q(z|x) is below {NOISELESS:g} of the prior's; the posterior is deterministic there"
        )

    def measures(self) -> list[Measure]:
        """The numbers, for a table."""
        return [
            Measure("sliced_w2", "sliced W2 of q(z) to p(z), samples", self.sliced_w2, self.sliced_w2_null),
            Measure("active_units", f"active units, of {len(self.active)}", sum(self.active)),
            Measure("noiseless_units", "units without noise (sigma collapse)", sum(self.noiseless), 0.0),
        ]


def latent(codes: Codes, prior: Distribution, *, generator: Generator | None = None) -> Latent:
    """Compare codes with the prior.

    Args:
        codes: The codes of held-out observations.
        prior: p(z).
        generator: The source of the prior samples and of the directions.
    """
    n = len(codes.z)
    y, other = sample(prior, n, generator), sample(prior, n, generator)
    return Latent(
        n=n,
        sliced_w2=sliced_w2(codes.z, y, generator=generator),
        sliced_w2_null=sliced_w2(other, y, generator=generator),
        active=tuple(active_units(codes.mean).tolist()),
        noiseless=tuple(noiseless_units(codes.scale, y.std(0)).tolist()),
    )


def active_units(means: Tensor) -> Tensor:
    """Which units are active by Burda et al. (2016), with shape (d,), from posterior means (n, d)."""
    return means.double().var(0) > ACTIVE


def noiseless_units(scales: Tensor, prior_scale: Tensor) -> Tensor:
    """Which units have lost their noise, (d,), from posterior standard deviations (n, d) and the prior's (d,).

    Scales of exactly 0 are those of a deterministic posterior, which has no noise to lose.
    """
    rms = scales.double().square().mean(0).sqrt()
    return (rms > 0) & (rms < NOISELESS * prior_scale.double())
