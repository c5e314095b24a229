"""Sampling from torch distributions with a generator of one's own, which torch itself does not offer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Generator, Tensor, manual_seed, randint
from torch.distributions import Distribution
from torch.random import fork_rng


@contextmanager
def seeded(generator: Generator | None) -> Iterator[None]:
    """Let what draws from the global state draw by a generator: the state is forked, seeded from it, and restored.

    Without a generator the global state itself is used.
    """
    if generator is None:
        yield
        return
    with fork_rng():
        manual_seed(int(randint(2**62, (), generator=generator, device=generator.device)))
        yield


def sample(distribution: Distribution, n: int | None = None, generator: Generator | None = None) -> Tensor:
    """Draw from a distribution, reparametrised where it can be.

    Args:
        distribution: Any torch distribution.
        n: How many draws, as a leading dimension; one without a leading dimension by default.
        generator: The source of randomness; by default torch's global state.

    Returns:
        The sample, with shape (n, *batch, *event) or (*batch, *event).
    """
    shape = () if n is None else (n,)
    with seeded(generator):
        return distribution.rsample(shape) if distribution.has_rsample else distribution.sample(shape)
