"""Trainings that each of two processes takes part in, and one process does alone."""

from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae.config import TrainConfig
from otkit_vae.data import Data
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer, restored
from otkit_vae.training import prepare

X = torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
DATA = Data("random", X[:150], X[150:])
COMMON = {"widths": [16], "latent_dim": 2, "batch_size": 31, "posterior": "deterministic", "epochs": 2}
"""With batches of parts that are not alike, and without noise, which each process draws for itself."""

CASES = {
    "cramer_wold": {},
    "aggregated_gaussian_w2": {"prior": "mixture", "components": 3},
    "gaussian_w2": {"trainer": {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2}},
    "none": {"prior": "mixture", "components": 3},
    "wae_gan": {},
    "sliced": {},
}

POISONED = (("sliced", 31), ("wae_gan", 31), ("sliced", 11))
"""Penalties and batch sizes: an epoch is over before metrics come together, or goes on for longer."""


def train(folder, penalty, devices, *, name=None, resume=False, callback=None, **options):
    """Leaves the folder of a training, without pictures."""
    config = TrainConfig(penalty=penalty, **(COMMON | CASES.get(penalty, {}) | options))
    out = Path(folder) / (name or penalty)
    out.mkdir(parents=True, exist_ok=True)
    with restored():
        model, objective = prepare(config, DATA)
        several = {"devices": devices, "accelerator": "cpu", "precision": "64-true"}
        trainer = make_trainer(several | (config.trainer or {}), objective.penalty, epochs=config.epochs)
        trainer.callbacks += [] if callback is None else [callback]
        fit(
            *(trainer, model, objective, DATA.train, DATA.held_out, out),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=config.seed,
            config={},
            resume=resume,
            progress=False,
        )


class Noise(Callback):
    """What the global state of each process gives after each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, *_):
        self.seen.append(torch.rand(2))


class Poison(Callback):
    """Breaks the model of one process, before its fourth step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3 and trainer.global_rank == 1:
            with torch.no_grad():
                next(pl_module.model.decoder.parameters()).fill_(torch.nan)


def fault(folder, penalty, batch_size):
    """What a process says when the loss of another is not finite."""
    name = f"{penalty}, {batch_size}, poisoned"
    try:
        train(folder, penalty, 2, name=name, callback=Poison(), batch_size=batch_size)
    except ArithmeticError as error:
        return str(error)
    return ""


class Leave(Callback):
    """Ends one process, in its seventh step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6 and trainer.global_rank == 1:
            raise EOFError("left")


def gone(folder):
    """What a process says when the other has left."""
    try:
        train(folder, "sliced", 2, name="gone", callback=Leave())
    except (EOFError, ConnectionError) as error:
        return str(error)
    return ""


def process(rank, folder):
    for penalty in CASES:
        train(folder, penalty, 2)
    # One epoch, and then the second.
    train(folder, "sliced", 2, name="parts", epochs=1)
    train(folder, "sliced", 2, name="parts", resume=True)
    noise = Noise()
    train(folder, "kl", 2, callback=noise, posterior="diagonal")
    faults = [(size, fault(folder, penalty, size)) for penalty, size in POISONED]
    return torch.stack(noise.seen), faults, gone(folder)  # last, as it ends the group
