"""Two processes against one, a thread each, at the same global batch: the convolutional network, Fashion-MNIST.

Steps a second from the tenth step on, of one training in each way, in turn; asked is 1.6 times as many. At a batch of
128 and at one of 512, which is nearer to what anyone spreads: what a step costs whatever its batch, and the exchange,
weigh a quarter there. It needs two cores that are free: at each step both wait for the slower one, and the speed of a
core that others share changes within milliseconds. What that and the exchange cost is seen against two trainings at the
same time that do not talk, with half the batch each, and what the machine allows of these against one process. (For
`wasserstein` those two solve problems of half the size.)
"""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import load_data
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer
from tests.benchmarks.paired import Row
from tests.distributed import two

WARM, PAIRS = 10, 5
STEPS = {128: 60, 512: 25}
"""How many steps of each global batch."""


class Clock(Callback):
    """When each step ended. Before those that count it waits for others, who all leave a file in `place` as it does."""

    def __init__(self, place: str, others: int) -> None:
        self.ends: list[float] = []
        self.place, self.others = Path(place), others

    def on_train_batch_end(
        self, trainer: object, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if len(self.ends) == WARM - 1:
            (self.place / f"{os.getpid()} is here").touch()
            while len([*self.place.glob("* is here")]) <= self.others:
                time.sleep(1e-3)
        self.ends.append(time.perf_counter())


def train(
    rank: int, processes: int, penalty: str, batch: int, steps: int, folder: str, place: str, others: int
) -> float:
    torch.manual_seed(0)
    x = load_data("fashion-mnist").train[: batch * steps]
    model, objective = VAE.sized((28, 28), 8, network="conv"), Objective(penalties.get(penalty))
    options = {"devices": processes, "accelerator": "cpu", "limit_val_batches": 0}
    trainer, clock = make_trainer(options, objective.penalty, epochs=1), Clock(place, others)
    trainer.callbacks.append(clock)  # pyright: ignore[reportAttributeAccessIssue]
    fit(
        *(trainer, model, objective, x, x[:batch], Path(folder)),
        batch_size=batch,
        learning_rate=1e-3,
        seed=0,
        progress=False,
    )
    return (clock.ends[-1] - clock.ends[WARM - 1]) / (steps - WARM)


def step(processes: int, penalty: str, batch: int, steps: int, place: str | None = None) -> float:
    """The seconds of a step, of one training, or of one of two that meet in a place."""
    with tempfile.TemporaryDirectory() as folder:
        others = processes - 1 if place is None else 1
        arguments = processes, penalty, batch, steps, folder, place or folder, others
        return max(two.run(train, Path(folder), *arguments, world=processes))


def side_by_side(penalty: str, batch: int, steps: int) -> float:
    """The seconds of a step of the slower of two trainings that do not talk, with half the batch each."""
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as place:
        return max(pool.map(lambda _: step(1, penalty, batch // 2, steps, place), range(2)))


def rows() -> Iterator[Row]:
    for (batch, steps), penalty in product(STEPS.items(), ("kl", "wasserstein")):
        case = penalty, batch, steps
        times = np.array([(step(2, *case), step(1, *case), side_by_side(*case)) for _ in range(PAIRS)])
        two_that_talk, one, silent = times.T
        for what, ours, other, theirs, asked in (
            ("two processes", two_that_talk, "one process", one, 1.6),
            ("two processes", two_that_talk, "two that do not talk", silent, None),
            ("two that do not talk", silent, "one process", one, None),
        ):
            low, middle, high = (float(q) for q in np.quantile(theirs / ours, [0.25, 0.5, 0.75]))
            medians = float(np.median(ours)), float(np.median(theirs))
            yield Row(f"a step of {what}, {penalty}, batch {batch}", other, *medians, middle, low, high, asked)
