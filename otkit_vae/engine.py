"""Training with PyTorch Lightning, which only this module, `callbacks` and `trainer` import.

A training is a function of its options. The order of the data follows from the seed and the epoch, what is drawn at a
step from the seed, the step and the process, the weight of the penalty from the step. A checkpoint therefore keeps the
parameters, the optimisers, the place in the epoch and the history of the metrics, and no state of a generator: a
training that goes on from it is what it would have been without the break, bit by bit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from otkit_vae import checkpoint as checkpoints
from otkit_vae import processes
from otkit_vae.batches import Batches
from otkit_vae.callbacks import Folder, Progress
from otkit_vae.denormals import EVERY, drop_denormals
from otkit_vae.distributions import gaussian_form
from otkit_vae.model import VAE
from otkit_vae.objective import Objective, Terms
from otkit_vae.penalties import AdversarialPenalty
from otkit_vae.sampling import reseed, seed_of
from otkit_vae.trainer import AN_EPOCH, COLUMNS, Refused, restored, same_averages, same_epochs

LISTED = 32
"""How many observations are listed where they are told of; of more, the list comes last, after what there is to do."""

TOGETHER = 10
"""After how many steps the metrics of several processes come together: each time all wait for the slowest."""


def fit(
    trainer: lightning.Trainer,
    model: VAE,
    objective: Objective,
    train: Tensor,
    held_out: Tensor,
    out: Path,
    *,
    batch_size: int,
    learning_rate: float,
    seed: int,
    config: dict[str, Any] | None = None,
    data: dict[str, str] | None = None,
    checkpoint_steps: int | None = None,
    max_gradient_norm: float | None = None,
    resume: bool = False,
    progress: bool = True,
) -> None:
    """Train a model in place, and leave checkpoint.ckpt and metrics.csv in a folder.

    Args:
        trainer: The engine.
        model: The model.
        objective: What to minimise.
        train: Observations to train on, with shape (n, *event).
        held_out: Observations to report on, with shape (m, *event).
        out: The folder to write to.
        batch_size: The size of a batch, over all processes.
        learning_rate: Adam's learning rate.
        seed: Seeds the order of the data and the draws.
        config: The options of the training, plain values, for the checkpoint.
        data: The fingerprint of the data, for the checkpoint.
        checkpoint_steps: How many steps apart checkpoints are written; at the end of each epoch if None.
        max_gradient_norm: The norm of a step's gradient, before any clipping, above which the training stops; no limit
            if None.
        resume: Whether to go on from the folder's checkpoint, where it has one.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: An epoch does not have the steps that it has in the checkpoint.
        Refused: The engine does not begin, or ends before the first checkpoint.
        ArithmeticError: The loss or the weights are no longer finite, or a gradient is above its limit.
        OSError: The folder cannot be written to, or another process has ended; what the folder has is whole.
        KeyboardInterrupt: The training was interrupted.
    """
    # The engine does not clip gradients that an optimiser in one kernel might unscale, not in bfloat16 either.
    precision = str(trainer.precision)
    fused = not (precision.startswith("16") or (precision.endswith("mixed") and trainer.gradient_clip_val))
    training = Training(
        model,
        objective,
        learning_rate,
        seed=seed,
        config=config,
        data=data,
        fused=fused,
        max_gradient_norm=max_gradient_norm,
    )
    folder = Folder(out, checkpoint_steps, trainer.max_steps)
    # With a limit of steps the engine takes a checkpoint of an epoch's end for one before it, and ends the epoch again.
    trainer.fit_loop.epoch_loop.max_steps = -1
    trainer.callbacks += [*([Progress()] if progress else []), folder]  # pyright: ignore[reportAttributeAccessIssue]
    least = objective.penalty.min_batch
    file = out / checkpoints.CHECKPOINT
    with restored():
        try:
            trainer.fit(
                training,
                Batches(train, batch_size, min_batch=least, seed=seed),
                Batches(held_out, batch_size, min_batch=least),
                ckpt_path=file if resume and file.is_file() else None,
                weights_only=True,
            )
        except MisconfigurationException as error:
            raise (ValueError if folder.begun else Refused)(f"trainer: {error}") from None
        except ValueError as error:
            if folder.begun:
                raise
            raise Refused(str(error).strip()) from error
        except SystemExit:
            # The engine's answer to Ctrl-C.
            if trainer.interrupted:
                raise KeyboardInterrupt(folder.last()) from None
            raise
        except RuntimeError as error:
            if not processes.lost(error):
                raise
            reason = str(error).split(". ")[0]
            raise ConnectionError(f"another process of the training has ended ({reason}); {folder.last()}") from error
    # A process on another machine need not see the file.
    if folder.saved is None and not (folder.out / checkpoints.CHECKPOINT).is_file():
        raise Refused("trainer: the training ended before its first checkpoint; expected a longer max_time")
    # Of a training that had ended too, where a kill may have left other rows.
    folder.write_metrics(trainer, training)
    model.eval()


class Training(lightning.LightningModule):
    """A model and its objective, as the engine wants to see them.

    One row of metrics an epoch: the means over the training batches, and the same over held-out data.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        learning_rate: float,
        *,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        data: dict[str, str] | None = None,
        fused: bool = True,
        max_gradient_norm: float | None = None,
    ):
        super().__init__()
        self.model, self.objective, self.learning_rate = model, objective, learning_rate
        self.seed, self.config, self.data, self.fused = seed, config, data, fused
        self.max_gradient_norm = max_gradient_norm
        # An adversary has an optimiser of its own, and the engine leaves two optimisers to us.
        self.automatic_optimization = not isinstance(objective.penalty, AdversarialPenalty)
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, list[float]] = {}
        self._noted: list[tuple[str, int, int, int, list[Tensor]]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        # The engine notes the hook that runs, forty times a step, and torch would look for parameters in each note.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def steps(self, epoch: int, batch_idx: int) -> int:
        """How many steps the optimiser has made at a batch."""
        trainer = self.trainer
        an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        return epoch * an_epoch + batch_idx // trainer.accumulate_grad_batches

    @property
    def whole(self) -> bool:
        """Whether the epoch has had all its batches."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready >= self.trainer.num_training_batches

    def configure_model(self) -> None:
        """Take on the precision of the training before a checkpoint is read, which the engine would round."""
        self.trainer.precision_plugin.convert_module(self)

    def on_train_epoch_start(self) -> None:  # noqa: D102
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # pyright: ignore[reportOptionalMemberAccess]

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:  # noqa: D102
        reseed(self.seed, 1, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # noqa: D102
        n, seed = self.trainer.train_dataloader.size, seed_of(self.seed, 3, self.current_epoch, batch_idx)  # pyright: ignore
        with processes.known(n, seed):  # each of several processes has its share of the loss
            terms = self._terms(batch, self.steps(self.current_epoch, batch_idx))
            self._note("train", terms, batch_idx, len(batch))
            if isinstance(self.objective.penalty, AdversarialPenalty):
                ours, theirs = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
                self._minimise(ours, terms.loss)
                self._minimise(theirs, self.objective.penalty.adversary_loss(terms.z, self.model.prior))
        return terms.loss

    # The engine asks for it at every step, and Python would work it out each time.
    training_step.__signature__ = inspect.signature(training_step)  # pyright: ignore[reportFunctionMemberAccess]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: D102
        batch_idx = self.trainer.fit_loop.epoch_loop.batch_idx
        if self.steps(self.current_epoch, batch_idx) % EVERY == 0:
            drop_denormals(optimizer)
        if self.max_gradient_norm is None:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        # What is not finite is skipped by a scaler of half precision, or found in the weights.
        if self.max_gradient_norm < norm < math.inf:
            raise self.failure(
                f"the norm of the gradient is {norm:.4g}, more than max_gradient_norm {self.max_gradient_norm:g},",
                self.current_epoch,
                self._window(batch_idx),
            )

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:  # noqa: D102
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _minimise(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_validation_start(self) -> None:
        """Forget an earlier evaluation within the epoch, of other weights."""
        self._noted = [noted for noted in self._noted if noted[0] == "train"]
        self._sums.pop("held_out", None)

    def on_validation_batch_start(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: D102
        reseed(self.seed, 2, self.current_epoch, batch_idx, self.global_rank)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:  # noqa: D102
        step = self.steps(self.current_epoch + 1, 0)
        self._note("held_out", self._terms(batch, step), batch_idx, len(batch))

    def on_validation_epoch_end(self) -> None:
        """Let callbacks monitor the evaluation when it ends: within an epoch there is no row yet."""
        self._found("held_out")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # noqa: D102
        penalty = self.objective.penalty
        theirs = list(penalty.discriminator.parameters()) if isinstance(penalty, AdversarialPenalty) else []
        known = {id(parameter) for parameter in theirs}
        ours = [parameter for parameter in self.parameters() if id(parameter) not in known]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(ours, lr=self.learning_rate, fused=self.fused)]
        if isinstance(penalty, AdversarialPenalty):
            optimizers.append(torch.optim.Adam(theirs, lr=penalty.learning_rate, fused=self.fused))
        return optimizers

    def means(self, part: str) -> dict[str, float]:
        """The means of the metrics since the epoch began, for "train" or "held_out", of this process.

        With several processes, of all of them up to when they last came together (`TOGETHER`); nothing before.
        """
        if not processes.spread():
            self.settle()
        if part not in self._sums:
            return {}
        *totals, n = self._sums[part]
        return {name: total / n for name, total in zip(COLUMNS, totals, strict=True)}

    def on_train_epoch_end(self) -> None:  # noqa: D102
        if not self.whole:
            return
        row = {"epoch": self.current_epoch} | self._found("train", "held_out")
        row["step"] = self.steps(self.current_epoch + 1, 0)
        self._sums = {}
        self.history.append(row)
        for logger in self.loggers:
            logger.log_metrics(row, step=int(row["step"]))

    def _found(self, *parts: str) -> dict[str, float]:
        """The means of parts over all processes, by the columns of a row, for callbacks too: log_dict takes long."""
        self.settle()
        totals = {part: sums.tolist() for part, sums in self._totals().items() if part in parts}
        row = {f"{p}_{name}": n[k] / n[-1] for p, n in totals.items() for k, name in enumerate(COLUMNS)}
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in row.items()})
        return row

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        self.settle()
        checkpoint[checkpoints.KEY] = checkpoints.describe(self.model) | {
            "config": self.config,
            "data": self.data,
            "weight": self.objective.weight,
            "an_epoch": {name: repr(getattr(self.trainer, name)) for name in AN_EPOCH},
            "stopped": self.trainer.should_stop,
            "history": self.history,
            "sums": self._totals(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        about = checkpoint[checkpoints.KEY]
        same_epochs(about, self.trainer)
        same_averages(checkpoint, self.trainer)
        self.history, self.objective.weight = about["history"], about["weight"]
        for callback in self.trainer.early_stopping_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if state is not None:
                # What stopped the training stops it still, unless it is given another patience, which then holds.
                stopped = about.get("stopped", False) and state["patience"] == callback.patience
                self.trainer.should_stop = self.trainer.should_stop or stopped
                state["patience"] = callback.patience
        # Sums over all processes, for the first of them.
        self._sums = {part: (sums * (self.global_rank == 0)).tolist() for part, sums in about["sums"].items()}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take the weights of a checkpoint; a ValueError if they are not those that the training has."""
        # The copy that a callback averages in has no trainer, and is given what the training has taken.
        with nullcontext() if self._trainer is None else checkpoints.fitting(Path(str(self.trainer.ckpt_path))):
            return super().load_state_dict(*args, **kwargs)

    def _totals(self) -> dict[str, Tensor]:
        """The sums over all processes, with shape (5,) each: of the metrics, and how many observations they are of."""
        device = self.device if processes.spread() else "cpu"
        return {
            part: processes.total(torch.tensor(sums, dtype=torch.float64, device=device)).cpu()
            for part, sums in self._sums.items()
        }

    def _terms(self, batch: Tensor, step: int) -> Terms:
        """The terms of a batch; an ArithmeticError if a solver fails on them, as on codes that are not finite."""
        try:
            return self.objective(self.model, batch, step=step)
        except (ValueError, torch.linalg.LinAlgError) as error:  # pyright: ignore
            epoch, batch_idx = self.current_epoch, self.trainer.fit_loop.epoch_loop.batch_idx
            if self.trainer.validating:
                self.check_weights(epoch, batch_idx)
                what, batches = "the loss of held-out observations", self._window(batch_idx)
            else:
                self._check_weights_before(epoch, batch_idx)
                what, batches = "the loss", [batch_idx]
            raise self.failure(f"{what} cannot be computed ({error})", epoch, batches) from error

    def _note(self, part: str, terms: Terms, batch_idx: int, n: int) -> None:
        form = gaussian_form(terms.posterior)
        scale = form.scale if form is not None and form.is_diagonal else terms.posterior.stddev
        values = [value.detach() for value in (terms.loss, terms.reconstruction, terms.penalty, scale)]
        values[-1] = values[-1].mean()
        spread = part == "train" and processes.spread()
        if spread:  # shares of several processes
            values[-1] = values[-1] * (n * self.trainer.world_size / self.trainer.train_dataloader.size)  # pyright: ignore
        self._noted.append((part, self.current_epoch, batch_idx, n, values))
        # Another device, or process, is not waited for at every step.
        if len(self._noted) >= (TOGETHER if spread else 1 if terms.loss.device.type == "cpu" else 100):
            self.settle()

    def settle(self) -> None:
        """Add up what has been noted of the steps; raise an ArithmeticError if a loss in training is not finite.

        All processes take part.
        """
        noted, self._noted = self._noted, []
        spread = processes.spread()
        shares = [torch.stack(values) for part, *_, values in noted if spread and part == "train"]
        whole = iter(processes.total(torch.stack(shares)) / self.trainer.world_size if shares else ())
        for part, epoch, batch_idx, n, values in noted:
            numbers = [value.item() for value in (next(whole) if spread and part == "train" else values)]
            if part == "train" and not math.isfinite(numbers[0]):
                if len(noted) == 1 and not spread:
                    self._check_weights_before(epoch, batch_idx)
                raise self.failure(f"the loss is {numbers[0]:g}", epoch, [batch_idx])
            sums = self._sums.setdefault(part, [0.0] * (len(numbers) + 1))
            for k, number in enumerate((*numbers, 1.0)):
                sums[k] += n * number

    def check_weights(self, epoch: int, batch_idx: int) -> None:
        """Raise an ArithmeticError if a parameter is not finite after the step of a batch."""
        for name, parameter in self.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise self.failure(f"the gradient of {name} was not finite", epoch, self._window(batch_idx))

    def _check_weights_before(self, epoch: int, batch_idx: int) -> None:
        """As `check_weights`, after the step before that of a batch, whose gradient may be what broke them."""
        first = self._window(batch_idx)[0]
        if first:
            self.check_weights(epoch, first - 1)
        elif epoch:
            self.check_weights(epoch - 1, int(self.trainer.num_training_batches) - 1)

    def _window(self, batch_idx: int) -> range:
        """The batches of an epoch, up to the given one, whose gradients are accumulated with its own."""
        return range(batch_idx - batch_idx % self.trainer.accumulate_grad_batches, batch_idx + 1)

    def failure(self, what: str, epoch: int, batches: Sequence[int]) -> ArithmeticError:
        """An error that says what happened at batches of a step, which observations they had, and where to go on."""
        folder = next(c for c in self.trainer.callbacks if isinstance(c, Folder))  # pyright: ignore
        order: Any = self.trainer.train_dataloader
        indices = torch.cat([order.indices(epoch, batch_idx) for batch_idx in batches]).tolist()
        place = f"batch {batches[0]}" if len(batches) == 1 else f"batches {batches[0]} to {batches[-1]}"
        observations, listed = f"training observations {indices}", ""
        if len(indices) > LISTED:
            listed = f"; the observations: {indices}"
            observations = f"{len(indices)} training observations listed last"
        return ArithmeticError(
            f"{what} at step {self.steps(epoch, batches[-1])} (epoch {epoch}, {place}, of the {observations}); "
            f"{folder.last()}; try a smaller learning_rate or weight{listed}"
        )
