"""Batches of observations in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from otkit_vae import processes
from otkit_vae.sampling import seed_of


class Batches:
    """Batches of observations, each one slice of a tensor, never collated one by one.

    With a seed, the order is a function of the seed and the epoch alone, and all batches have one size: a remainder
    smaller than a batch is left out, as it would be another estimate; another epoch leaves out others. Without a seed,
    observations come in the order they have, each exactly once, in batches whose sizes differ by one at most.

    Over several processes a batch is spread: each gets its part, in the order of the batch, and the sizes of these
    differ by one at most.

    Args:
        x: Observations, with shape (n, *event).
        batch_size: The size N of a batch, over all processes.
        min_batch: The smallest batch there may be; without a seed, a batch may exceed batch_size for that reason.
        seed: Seeds the order.

    Example:
        >>> batches = Batches(torch.arange(7.0), 3)
        >>> [batch.tolist() for batch in batches]
        [[0.0, 1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        >>> len(Batches(torch.arange(7.0), 3, seed=0))
        2
    """

    def __init__(self, x: Tensor, batch_size: int, *, min_batch: int = 1, seed: int | None = None):
        self.x, self.size, self.min_batch, self.seed = x, min(batch_size, len(x)), min_batch, seed
        self.epoch = self.position = 0
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        if self.seed is not None:
            return len(self.x) // self.size
        return max(1, min(math.ceil(len(self.x) / self.size), len(self.x) // max(self.min_batch, self._processes)))

    def __iter__(self) -> Iterator[Tensor]:
        """The rest of the epoch, from the position on; without a seed all of it."""
        if self.seed is None:
            self.position = 0
        while self.position < len(self):
            indices = self.indices(self.epoch, self.position)
            self.position += 1
            yield self.x.index_select(0, self._part(indices))
        self.set_epoch(self.epoch + 1)

    def indices(self, epoch: int, position: int) -> Tensor:
        """Which observations are in a batch, over all processes, with shape (N,)."""
        if self.seed is None:
            return torch.arange(len(self.x)).tensor_split(len(self))[position]
        if self._order is None or self._order[0] != epoch:
            generator = Generator().manual_seed(seed_of(self.seed, epoch))
            self._order = epoch, torch.randperm(len(self.x), generator=generator)
        return self._order[1][position * self.size : (position + 1) * self.size]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless we are in it already."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where we are."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where we were."""
        self.epoch, self.position = state["epoch"], state["position"]

    @property
    def _processes(self) -> int:
        return dist.get_world_size() if processes.spread() else 1

    def _part(self, indices: Tensor) -> Tensor:
        if not processes.spread():
            return indices
        if len(indices) < self._processes:
            raise ValueError(
                f"a batch has {len(indices)} observations; expected at least one for each of {self._processes} "
                "processes (batch_size)"
            )
        return indices.tensor_split(self._processes)[dist.get_rank()]
