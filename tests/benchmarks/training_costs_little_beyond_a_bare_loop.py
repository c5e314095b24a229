"""The training command's loop against a bare loop: MLP 784-512-8, batch 128, Fashion-MNIST in memory, progress bar on.

The same network, penalty and optimiser; one epoch each, in turn. Ours is timed from its first step to its end: bar,
metrics, checks of every loss and the checkpoint included, held-out data not, which the bare loop does not have. The
overhead may be 15 %, so the ratio bare / ours is asked to be at least 1 / 1.15 = 0.87.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import load_data
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer
from tests.benchmarks.paired import Row

BATCH, RATE = 128, 1e-3


class Clock(Callback):
    """The seconds from the first step to the end."""

    seconds = 0.0

    def on_train_start(self, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start


def parts(penalty: str) -> tuple[VAE, Objective]:
    torch.manual_seed(0)
    return VAE.sized((28, 28), 8, widths=[512]), Objective(penalties.get(penalty))


def engine(penalty: str, x: torch.Tensor, *, progress: bool = True) -> float:
    """The seconds of one epoch of ours."""
    model, objective = parts(penalty)
    trainer, clock = make_trainer({"limit_val_batches": 0}, objective.penalty, epochs=1), Clock()
    trainer.callbacks.append(clock)  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(
            *(trainer, model, objective, x, x[:BATCH], Path(folder)),
            batch_size=BATCH,
            learning_rate=RATE,
            seed=0,
            progress=progress,
        )
    return clock.seconds


def bare(penalty: str, x: torch.Tensor) -> float:
    """The seconds of one epoch of a loop as one writes it."""
    model, objective = parts(penalty)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    start = time.perf_counter()
    order = torch.randperm(len(x))
    for k in range(len(x) // BATCH):
        terms = objective(model, x[order[k * BATCH : (k + 1) * BATCH]])
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def compared(
    case: str, other: str, ours: Callable[[], float], theirs: Callable[[], float], asked: float, pairs: int = 5
) -> Row:
    """The medians of so many calls each, in turn, and of their ratios."""
    ours(), theirs()
    times = np.array([(ours(), theirs()) for _ in range(pairs)])
    low, middle, high = (float(q) for q in np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75]))
    mine, others = (float(seconds) for seconds in np.median(times, 0))
    return Row(case, other, mine, others, middle, low, high, asked)


def rows() -> Iterator[Row]:
    x = load_data("fashion-mnist").train
    for penalty in ("kl", "mmd"):
        n = len(x) // BATCH * BATCH
        row = compared(
            f"{n} images, {penalty}",
            "bare loop",
            lambda p=penalty: engine(p, x),
            lambda p=penalty: bare(p, x),
            1 / 1.15,
        )
        yield row
