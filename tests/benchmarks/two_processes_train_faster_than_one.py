"""Two processes against one, a thread each, at the same global batch of 128: the convolutional network, Fashion-MNIST.

Steps a second from the tenth step on, of one training in each way, in turn; asked is 1.6 times as many. It needs two
cores that are free: at each step both wait for the slower one, and the speed of a core that others share changes within
milliseconds. What that and the exchange cost is seen against two trainings side by side that do not talk, with half the
batch each.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

BATCH, WARM, STEPS, PAIRS = 128, 10, 60, 5


class Clock(Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: object, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.ends.append(time.perf_counter())


def train(rank: int, processes: int, penalty: str, batch: int, folder: str) -> float:
    torch.manual_seed(0)
    x = load_data("fashion-mnist").train[: batch * STEPS]
    model, objective = VAE.sized((28, 28), 8, network="conv"), Objective(penalties.get(penalty))
    options = {"devices": processes, "accelerator": "cpu", "limit_val_batches": 0}
    trainer, clock = make_trainer(options, objective.penalty, epochs=1), Clock()
    trainer.callbacks.append(clock)  # pyright: ignore[reportAttributeAccessIssue]
    fit(
        *(trainer, model, objective, x, x[:batch], Path(folder)),
        batch_size=batch,
        learning_rate=1e-3,
        seed=0,
        progress=False,
    )
    return (clock.ends[-1] - clock.ends[WARM - 1]) / (STEPS - WARM)


def step(processes: int, penalty: str, batch: int = BATCH) -> float:
    """The seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        return max(two.run(train, Path(folder), processes, penalty, batch, folder, world=processes))


def side_by_side(penalty: str) -> float:
    """The seconds of a step of the slower of two trainings that do not talk, with half the batch each."""
    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(lambda _: step(1, penalty, BATCH // 2), range(2)))


def rows() -> Iterator[Row]:
    for penalty in ("kl", "wasserstein"):
        times = np.array([(step(2, penalty), step(1, penalty), side_by_side(penalty)) for _ in range(PAIRS)])
        for k, other, asked in ((1, "one process", 1.6), (2, "two that do not talk", None)):
            low, middle, high = (float(q) for q in np.quantile(times[:, k] / times[:, 0], [0.25, 0.5, 0.75]))
            ours, theirs = (float(seconds) for seconds in np.median(times, 0)[[0, k]])
            yield Row(f"a step of two processes, {penalty}", other, ours, theirs, middle, low, high, asked)
