"""Images a second of a training, ours against pythae's trainer, with the same network: MLP 784-512-8, batch 128.

Fashion-MNIST in memory, all 60,000 images, and the first 20,000 of them; three epochs each, in turn, the whole call:
ours with its bar and its checkpoints, pythae's with what it writes. Three epochs, as the rate is that of a training and
not of its start: a fixed cost, ours or theirs, weighs a third of what it would beside one epoch. From some 700 steps
on, in the second of the epochs of 60,000 images, Adam's averages become denormal in a loop that lets them. Asked is 1.5
times as fast, for a VAE and for a WAE with MMD.

Both minimise the same: the cross-entropy, or the squared error (its half in pythae's VAE), plus the same penalty. The
cross-entropy costs more than the squared error, so there is also a row in which each has the loss that is its default.
"""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import load_data
from otkit_vae.engine import fit
from otkit_vae.networks import Decoder, Encoder
from otkit_vae.trainer import make_trainer
from tests.benchmarks.paired import Row
from tests.benchmarks.training_costs_little_beyond_a_bare_loop import BATCH, RATE, compared

EPOCHS = 3


class Case(NamedTuple):
    penalty: str
    posterior: str
    likelihood: dict[str, Any]
    their_loss: str


SQUARED_ERROR = {"likelihood": "gaussian", "scale": 0.5**0.5}
CASES = {
    "VAE, cross-entropy": Case("kl", "diagonal", {}, "bce"),
    "VAE, squared error": Case("kl", "diagonal", SQUARED_ERROR | {"scale": 1.0}, "mse"),
    "VAE, cross-entropy, theirs squared error": Case("kl", "diagonal", {}, "mse"),
    "WAE-MMD, squared error": Case("mmd", "deterministic", SQUARED_ERROR, "mse"),
}


def ours(case: Case, x: Tensor) -> float:
    torch.manual_seed(0)
    start = time.perf_counter()
    model = VAE.sized((28, 28), 8, widths=[512], posterior=case.posterior, **case.likelihood)
    objective = Objective(penalties.get(case.penalty))
    trainer = make_trainer({"limit_val_batches": 0}, objective.penalty, epochs=EPOCHS)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(
            *(trainer, model, objective, x, x[:BATCH], Path(folder)),
            batch_size=BATCH,
            learning_rate=RATE,
            seed=0,
        )
    return time.perf_counter() - start


def pythaes(case: Case, x: Tensor) -> float:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE
    from pythae.models import WAE_MMD, VAEConfig, WAE_MMD_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class OurEncoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = Encoder((28, 28), 16 if case.posterior == "diagonal" else 8, [512])

        def forward(self, x: Tensor) -> ModelOutput:
            mean, *log_variance = self.body(x).split(8, -1)
            return ModelOutput(embedding=mean, **({"log_covariance": log_variance[0]} if log_variance else {}))

    class OurDecoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = Decoder((1, 28, 28), 8, [512])

        def forward(self, z: Tensor) -> ModelOutput:
            output = self.body(z)
            return ModelOutput(reconstruction=output.sigmoid() if case.their_loss == "bce" else output)

    logging.disable(logging.INFO)
    torch.manual_seed(0)
    shape = {"input_dim": (1, 28, 28), "latent_dim": 8}
    networks = {"encoder": OurEncoder(), "decoder": OurDecoder()}
    data = BaseDataset(x[:, None], torch.zeros(len(x)))
    start = time.perf_counter()
    if case.penalty == "kl":
        model = PythaeVAE(VAEConfig(**shape, reconstruction_loss=case.their_loss), **networks)
    else:
        model = WAE_MMD(WAE_MMD_Config(**shape), **networks)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        options = {"output_dir": folder, "num_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "no_cuda": True}
        BaseTrainer(model, data, training_config=BaseTrainerConfig(learning_rate=RATE, **options)).train()
    return time.perf_counter() - start


def rows() -> Iterator[Row]:
    train = load_data("fashion-mnist").train
    for n, pairs in ((60_000, 3), (20_000, 5)):
        x = train[:n]
        for name, case in CASES.items():
            yield compared(
                *(f"{n} images, {name}", "pythae's trainer"),
                *(lambda c=case, x=x: ours(c, x), lambda c=case, x=x: pythaes(c, x)),
                *(1.5, pairs),
            )
