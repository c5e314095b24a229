"""Training with PyTorch Lightning: the only module that imports the training engine."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset
from tqdm import tqdm

from otkit_vae.checkpoint import KEY, describe
from otkit_vae.model import VAE
from otkit_vae.objective import Objective, Terms
from otkit_vae.penalties import AdversarialPenalty

COLUMNS = ("loss", "reconstruction", "penalty", "posterior_scale")


class Training(lightning.LightningModule):
    """A model and its objective, as the engine wants to see them.

    One row of metrics an epoch: the means over the training batches, and the same over held-out data.
    """

    def __init__(self, model: VAE, objective: Objective, learning_rate: float):
        super().__init__()
        self.model, self.objective, self.learning_rate = model, objective, learning_rate
        # An adversary has an optimiser of its own, and the engine leaves two of them to us.
        self.automatic_optimization = not isinstance(objective.penalty, AdversarialPenalty)
        self.steps = 0
        self._sums: dict[str, Tensor] = {}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        terms = self._add("train", self.objective(self.model, batch[0], step=self.steps), len(batch[0]))
        self.steps += 1
        if isinstance(self.objective.penalty, AdversarialPenalty):
            ours, theirs = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
            self._minimise(ours, terms.loss)
            self._minimise(theirs, self.objective.penalty.adversary_loss(terms.z, self.model.prior))
        return terms.loss

    def _minimise(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: D102
        self._add("held_out", self.objective(self.model, batch[0], step=self.steps), len(batch[0]))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # noqa: D102
        penalty = self.objective.penalty
        theirs = list(penalty.discriminator.parameters()) if isinstance(penalty, AdversarialPenalty) else []
        known = {id(parameter) for parameter in theirs}
        ours = [parameter for parameter in self.parameters() if id(parameter) not in known]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(ours, lr=self.learning_rate, fused=True)]
        if isinstance(penalty, AdversarialPenalty):
            optimizers.append(torch.optim.Adam(theirs, lr=penalty.learning_rate))
        return optimizers

    def means(self, part: str) -> dict[str, float]:
        """The means of the metrics since the epoch began, for "train" or "held_out"."""
        *totals, n = self._sums[part].tolist()
        return {name: total / n for name, total in zip(COLUMNS, totals, strict=True)}

    def on_train_epoch_end(self) -> None:  # noqa: D102
        row: dict[str, float] = {"epoch": self.current_epoch}
        for part in self._sums:
            row |= {f"{part}_{name}": value for name, value in self.means(part).items()}
        self._sums = {}
        if not all(map(math.isfinite, row.values())):
            raise ArithmeticError(
                f"the loss is no longer finite in epoch {self.current_epoch} (step {self.global_step}): "
                "try a smaller learning_rate or weight"
            )
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint[KEY] = describe(self.model) | {"steps": self.steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        self.steps = checkpoint[KEY]["steps"]

    def _add(self, part: str, terms: Terms, n: int) -> Terms:
        # Sums stay tensors: reading a number every step would wait for the device.
        scale = terms.posterior.stddev.mean()
        values = (terms.loss, terms.reconstruction, terms.penalty, scale, torch.ones_like(scale))
        step = n * torch.stack([value.detach() for value in values])
        self._sums[part] = self._sums[part] + step if part in self._sums else step
        return terms


class Progress(Callback):
    """One bar over the whole training, with the means of the epoch so far and the time left."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: D102
        self._bar = tqdm(total=int(trainer.estimated_stepping_batches), unit="step", desc="training")

    def on_train_batch_end(  # noqa: D102
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._bar.update(1) and isinstance(pl_module, Training):
            means = pl_module.means("train")
            shown = {name: f"{means[name]:.4g}" for name in ("loss", "penalty")}
            self._bar.set_postfix({"epoch": trainer.current_epoch, **shown}, refresh=False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: D102
        self._bar.close()


def fit(
    model: VAE,
    objective: Objective,
    train: Tensor,
    held_out: Tensor,
    out: Path,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: bool = True,
) -> None:
    """Train a model in place, and leave checkpoint.ckpt and metrics.csv in a folder.

    Args:
        model: The model.
        objective: What to minimise.
        train: Observations to train on, with shape (n, *event).
        held_out: Observations to report on, with shape (m, *event).
        out: The folder to write to.
        epochs: How many times to go through the data.
        batch_size: The size of a batch.
        learning_rate: Adam's learning rate.
        seed: Seeds the order of the data and the draws.
        progress: Whether to show a progress bar.
    """
    lightning.seed_everything(seed, workers=True, verbose=False)
    bar = [Progress()] if progress else []
    # The engine's hints (more workers, another logger) are about things decided here.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            deterministic=True,
            logger=CSVLogger(out, name="", version=""),
            callbacks=[*bar, ModelCheckpoint(out, filename="checkpoint", enable_version_counter=False)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            Training(model, objective, learning_rate),
            batches(train, batch_size, objective.penalty.min_batch, seed=seed),
            batches(held_out, batch_size, objective.penalty.min_batch),
        )
    model.eval()


def batches(x: Tensor, batch_size: int, min_batch: int, *, seed: int | None = None) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of observations in memory, each one slice of a tensor, never collated one by one.

    With a seed, in random order, and a remainder smaller than a batch is left out, as it would be another estimate;
    without, in order, and a remainder is left out only where it is smaller than min_batch.
    """
    dataset, size = TensorDataset(x), min(batch_size, len(x))
    if seed is None:
        sampler = BatchSampler(SequentialSampler(dataset), size, drop_last=len(x) % size < min_batch)
    else:
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
        sampler = BatchSampler(order, size, drop_last=True)
    return DataLoader(dataset, sampler=sampler, batch_size=None)
