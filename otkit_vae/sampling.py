"""Sampling from torch distributions with a generator of one's own, which torch itself does not offer."""

from __future__ import annotations

from torch import Generator, Tensor, manual_seed, randint
from torch.distributions import Distribution
from torch.random import fork_rng


def sample(distribution: Distribution, n: int | None = None, generator: Generator | None = None) -> Tensor:
    """Draw from a distribution, reparametrised where it can be.

    Args:
        distribution: Any torch distribution.
        n: How many draws, as a leading dimension; one without a leading dimension by default.
        generator: The source of randomness. torch.distributions takes none, so the global state is forked, seeded
            from the generator, and restored. By default the global state itself is used.

    Returns:
        The sample, with shape (n, *batch, *event) or (*batch, *event).
    """
    shape = () if n is None else (n,)
    draw = distribution.rsample if distribution.has_rsample else distribution.sample
    if generator is None:
        return draw(shape)
    with fork_rng():
        manual_seed(int(randint(2**62, (), generator=generator, device=generator.device)))
        return draw(shape)
