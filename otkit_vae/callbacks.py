"""What a training leaves on disk and shows."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback, Checkpoint
from tqdm import tqdm

from otkit_vae._files import write_text
from otkit_vae.batches import Batches
from otkit_vae.checkpoint import CHECKPOINT, METRICS

if TYPE_CHECKING:
    from otkit_vae.engine import Training


class Folder(Checkpoint):
    """Leaves metrics.csv and checkpoint.ckpt in the run folder, each written in one step.

    A training ends with a checkpoint. Where an evaluation within an epoch follows a step, it comes before the
    checkpoint, as a training that goes on from there would leave it out. While gradients are accumulated there can be
    no checkpoint: one that is due then, or an end that is asked for, comes after the optimiser's next step.

    Args:
        out: The folder.
        every: How many steps apart checkpoints are written; at the end of each epoch if None.
        max_steps: After how many steps the training ends; -1 for no limit.
    """

    def __init__(self, out: Path, every: int | None, max_steps: int):
        self.out, self.every, self.max_steps = out, every, max_steps
        self.begun, self.saved = False, None
        self._postponed = self._due = False

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Learn from the first process which folder it is, as the others do not know its name."""
        self.out = trainer.strategy.broadcast(self.out)

    def last(self) -> str:
        """What to say of the last checkpoint."""
        file = self.out / CHECKPOINT
        if self.saved is None:
            return "there is no checkpoint of this training yet"
        command = f"otkit-vae train --resume {shlex.quote(str(self.out))}"
        return f"the last checkpoint is {file}, of step {self.saved}: {command} goes on there"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: D102
        self.begun = True
        # The engine counts the steps of every optimiser, those of an adversary's too.
        each, loop = len(trainer.optimizers), trainer.fit_loop.epoch_loop
        loop.max_steps = each * self.max_steps if self.max_steps > 0 else self.max_steps
        loop.min_steps = each * loop.min_steps if loop.min_steps else None
        if trainer.ckpt_path:
            self.saved = pl_module.steps(trainer.current_epoch, _batches(trainer).position)
            self.write_metrics(trainer, pl_module)

    def on_train_batch_end(  # noqa: D102
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if pl_module.whole:
            return  # saved at the epoch's end, with its evaluation
        steps = pl_module.steps(trainer.current_epoch, done)
        if done % trainer.accumulate_grad_batches:
            self._postpone(trainer, steps)
            return
        trainer.should_stop = trainer.should_stop or self._postponed
        self._due = self._due or (self.every is not None and steps % self.every == 0)
        if (self._due or self._ends(trainer)) and not self._evaluates(trainer):
            self._save(trainer, pl_module, batch_idx, steps)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: D102
        batch_idx = trainer.fit_loop.epoch_loop.batch_idx
        steps = pl_module.steps(trainer.current_epoch, batch_idx + 1)
        if pl_module.whole or self.saved == steps:
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            self._postpone(trainer, steps)
        elif self._due or self._ends(trainer):
            self._save(trainer, pl_module, batch_idx, steps)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: D102
        if not pl_module.whole:
            return
        trainer.should_stop = trainer.should_stop or self._postponed
        self.write_metrics(trainer, pl_module)
        steps = pl_module.steps(trainer.current_epoch + 1, 0)
        due = self.every is None or steps % self.every == 0
        if due or self._due or self._ends(trainer) or trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer, pl_module, int(trainer.num_training_batches) - 1, steps)

    @staticmethod
    def _ends(trainer: lightning.Trainer) -> bool:
        # Before min_epochs and min_steps the engine goes on, asked as it may be to stop.
        asked = trainer.should_stop and trainer.fit_loop._can_stop_early
        return asked or 0 < trainer.max_steps <= trainer.global_step

    @staticmethod
    def _evaluates(trainer: lightning.Trainer) -> bool:
        """Whether an evaluation follows the batch, other than the last of a training that is asked to end."""
        asked, trainer.should_stop = trainer.should_stop, False
        try:
            loop: Any = trainer.fit_loop
            return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        finally:
            trainer.should_stop = asked

    def _postpone(self, trainer: lightning.Trainer, steps: int) -> None:
        """Do not end the training after so many steps, unless there is a checkpoint of them."""
        if trainer.should_stop and self.saved != steps:
            self._postponed, trainer.should_stop = True, False

    def _save(self, trainer: lightning.Trainer, training: Training, batch_idx: int, steps: int) -> None:
        training.settle()
        training.check_weights(trainer.current_epoch, batch_idx)
        trainer.save_checkpoint(self.out / CHECKPOINT)
        self.saved, self._due = steps, False

    def write_metrics(self, trainer: lightning.Trainer, training: Training) -> None:
        """Write metrics.csv, from the first process; before the first epoch's end, a row of what there is of it."""
        if not trainer.is_global_zero:
            return
        rows: list[dict[str, Any]] = [*training.history]
        if not rows:
            parts = {part: training.means(part) for part in ("train", "held_out")}
            row = {f"{part}_{name}": mean for part, means in parts.items() for name, mean in means.items()}
            rows = [{"epoch": 0, **row, "step": self.saved}]
        names = dict.fromkeys(name for row in rows for name in row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.out / METRICS, text.getvalue())


class Progress(Callback):
    """One bar over the whole training, with the means of the epoch so far and the time left."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: D102
        n, batches = int(trainer.num_training_batches), _batches(trainer)
        total = None if trainer.max_epochs is None else n * trainer.max_epochs
        done = batches.epoch * n + batches.position
        shown = {"unit": "step", "desc": "training", "disable": not trainer.is_global_zero}
        # Four times a second: drawing it is what a bar costs.
        self._bar = tqdm(total=total, initial=done, mininterval=0.25, **shown)

    def on_train_batch_end(  # noqa: D102
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar.update(1):
            means = pl_module.means("train")
            shown = {name: f"{means[name]:.4g}" for name in ("loss", "penalty") if name in means}
            self._bar.set_postfix({"epoch": trainer.current_epoch, **shown}, refresh=False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: D102
        self._bar.close()

    def on_exception(  # noqa: D102
        self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()


def _batches(trainer: lightning.Trainer) -> Batches:
    """The training's batches, set to its epoch: at the start of one the engine has not told them which it is."""
    batches: Any = trainer.train_dataloader
    batches.set_epoch(trainer.current_epoch)
    return batches
