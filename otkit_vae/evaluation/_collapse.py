r"""The collapse of σ.

A penalty without a barrier at σ = 0 (every Wasserstein one) lets the posterior lose its noise without anything saying
so: a mean over all units does not show that half of them have none. The alarm names the units in which

.. math:: \bigl(E_x\, \sigma_u(x)^2\bigr)^{1/2} < 0.01\, s_u ,

:math:`s_u` the prior's standard deviation: the noise then blurs less than a hundredth of the code, and the decoder has
learned no smoothness from it. A posterior that is deterministic by construction (σ = 0 exactly) raises no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

NOISELESS = 0.01
"""The posterior's standard deviation, relative to the prior's, below which a unit has lost its noise."""


def noiseless_units(scales: Tensor, prior_scale: Tensor) -> Tensor:
    """Which units have lost their noise, (d,), from posterior standard deviations (n, d) and the prior's (d,).

    Scales of exactly 0 are those of a deterministic posterior, which has no noise to lose.
    """
    rms = scales.double().square().mean(0).sqrt()
    return (rms > 0) & (rms < NOISELESS * prior_scale.double())


def alarm(noiseless: Sequence[bool]) -> str | None:
    """What to say of units without noise; None if there are none."""
    units = [str(u) for u, lost in enumerate(noiseless) if lost]
    if not units:
        return None
    return (
        f"sigma collapse: in {len(units)} of {len(noiseless)} units (from 0: {', '.join(units)}) the standard "
        f"deviation of q(z|x) is below {NOISELESS:g} of the prior's; the posterior is deterministic there"
    )
