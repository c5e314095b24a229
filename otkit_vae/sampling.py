"""Randomness: draws from torch distributions with a generator of one's own, and seeds that name a moment."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor, default_generator, manual_seed, randint
from torch.distributions import Distribution
from torch.random import fork_rng


def checked_seed(seed: int) -> int:
    """A seed that torch, NumPy and scikit-learn take.

    Raises:
        ValueError: It is not one.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 to 2**32 - 1")
    return seed


@contextmanager
def seeded(generator: Generator | None) -> Iterator[None]:
    """Let draws from the global state be those of a generator: the state is forked, seeded from it, and restored.

    Without a generator the global state itself is used.
    """
    if generator is None:
        yield
        return
    seed = int(randint(2**62, (), generator=generator, device=generator.device))
    if torch.accelerator.is_available():
        with fork_rng():
            manual_seed(seed)
            yield
        return
    # manual_seed asks for devices that are not there, which takes a hundred times as long.
    before = default_generator.get_state()
    default_generator.manual_seed(seed)
    try:
        yield
    finally:
        default_generator.set_state(before)


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


def seed_of(*key: int) -> int:
    """A seed for a key of whole numbers >= 0; other keys have other seeds, without any relation that shows.

    Example:
        >>> seed_of(7, 0) == seed_of(7, 0), seed_of(7, 0) == seed_of(7, 1)
        (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest()) >> 2


def reseed(*key: int) -> None:
    """Seed the global states of torch, NumPy and Python by a key.

    What is drawn at a moment of a training is then a function of that moment, and a training that goes on at any moment
    has the draws of one that never stopped, with no state of a generator to keep.
    """
    seed = seed_of(*key)
    if torch.accelerator.is_available():
        manual_seed(seed)
    else:
        default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the global states of torch, NumPy and Python as they were."""
    ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with fork_rng():
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)  # noqa: NPY002
