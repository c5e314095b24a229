"""The training engine, PyTorch Lightning's Trainer, with its own options: from a shell, from YAML and from Python."""

from __future__ import annotations

import copy
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import torch.distributed as dist
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning_fabric.plugins.io import CheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import DDPStrategy

from otkit_vae import checkpoint as checkpoints
from otkit_vae import processes
from otkit_vae.penalties import AdversarialPenalty, AggregatedPenalty, LatentPenalty, NoPenalty, PerSamplePenalty

OURS = {
    *("max_epochs", "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "num_sanity_val_steps"),
    *("use_distributed_sampler", "default_root_dir", "inference_mode", "barebones", "fast_dev_run", "overfit_batches"),
    *("limit_test_batches", "limit_predict_batches", "reload_dataloaders_every_n_epochs", "model_registry"),
    *("enable_autolog_hparams",),
}
"""The options of the engine that are set here, by options of ours, or have no meaning here."""

COLUMNS = ("loss", "reconstruction", "penalty", "posterior_scale")
"""The metrics of a training, each of which there is for "train" and for "held_out"."""

AN_EPOCH = ("accumulate_grad_batches", "limit_train_batches")
"""The options of the engine that determine the number of steps of an epoch."""

LEAST = {
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"), 1),
    **dict.fromkeys(("log_every_n_steps", "min_epochs", "min_steps"), 0),
}
"""The options of the engine that are counts whose sense it does not check itself, and the least that has a sense."""

REFUSED: dict[type[lightning.Callback], str] = {
    GradientAccumulationScheduler: "accumulate_grad_batches, the same in all epochs, by which steps are counted",
    StochasticWeightAveraging: "EMAWeightAveraging, whose averages are in the checkpoint: here they would be in none",
    LearningRateFinder: "learning_rate: a rate found anew when a training goes on would be another",
    ModelCheckpoint: "checkpoint_steps: a run has one checkpoint, to go on from",
    BackboneFinetuning: "one that knows encoder and decoder: there is no part by the name of backbone",
}
"""The callbacks that do not go with a model here or a checkpoint to go on from, and what to take instead."""

LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What the engine tells the processes that it starts."""


class Refused(ValueError):
    """The engine does not train with the options that it has; nothing was trained."""


def add_options(parser: ArgumentParser) -> None:
    """Give a parser the group ``trainer``: the options of the engine's Trainer, as its signature has them."""
    parser.add_class_arguments(lightning.Trainer, "trainer", skip={*OURS}, instantiate=False)
    parser.set_defaults({"trainer.devices": 1, "trainer.deterministic": True})


def chosen(options: Namespace) -> dict[str, Any]:
    """Those options of the parsed group that are not as they are by default, as plain values."""
    default = _parser().get_defaults().trainer.as_dict()
    return {name: value for name, value in plain(options.as_dict()).items() if value != default.get(name)}


def plain(value: Any) -> Any:
    """A parsed value as a file has it: parsed callbacks and loggers have enumerations among their defaults."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.value if isinstance(value, Enum) else value


@lru_cache(1)
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    add_options(parser)
    return parser


def make_trainer(options: dict[str, Any], penalty: LatentPenalty, *, epochs: int) -> lightning.Trainer:
    """The engine with its own options, checked.

    Args:
        options: Options of the Trainer by their names, as plain values, callbacks and loggers by class_path.
        penalty: The penalty that will be trained with.
        epochs: How many times to go through the data.

    Raises:
        ValueError: An option is not known, not as it should be, or does not go with the penalty.
    """
    given = _instantiated(options)
    _check_numbers(given)
    if isinstance(penalty, AdversarialPenalty):
        for name, off in (("accumulate_grad_batches", 1), ("gradient_clip_val", None)):
            if given[name] not in (off, 0):
                raise ValueError(
                    f"trainer: {name} is {given[name]}; the penalty {penalty.name} expects {off}, as it has an "
                    "optimiser for its adversary beside the model's"
                )
    _check_callbacks(given)
    if given["precision"] == "16-true":
        raise ValueError(
            "trainer: precision is 16-true, in which Adam's squares of gradients are 0; expected 16-mixed, bf16-mixed, "
            "bf16-true, 32-true or 64-true"
        )
    several = given["devices"] not in (1, "1") or given["num_nodes"] > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and given["strategy"] == "auto" and isinstance(penalty, AdversarialPenalty | NoPenalty):
        # A backward pass that does not reach all parameters: the adversary's, or those of a learned prior.
        given["strategy"] = "ddp_find_unused_parameters_true"
    given["logger"] = given["logger"] or False
    given["profiler"] = given["profiler"] or Unprofiled()
    given["plugins"] = [*_listed(given["plugins"]), Checkpoints()]
    try:
        with quiet():
            trainer = lightning.Trainer(
                **given,
                max_epochs=epochs,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
            )
    except (MisconfigurationException, TypeError, ImportError) as error:  # some options need other packages
        raise ValueError(f"trainer: {error}") from None
    if dist.is_available() and dist.is_initialized() and trainer.world_size != dist.get_world_size():
        raise ValueError(
            f"trainer: devices {given['devices']} and num_nodes {given['num_nodes']} make {trainer.world_size}; "
            f"expected {dist.get_world_size()} processes, which this program has begun with: that cannot change in it"
        )
    if trainer.world_size > 1 and not isinstance(penalty, AggregatedPenalty | PerSamplePenalty):
        raise ValueError(
            f"trainer: there are {trainer.world_size} processes, and the penalty {type(penalty).__name__} would be "
            "computed of the part of the batch that one has; expected one derived from AggregatedPenalty or "
            "PerSamplePenalty"
        )
    if isinstance(trainer.strategy, DDPStrategy):
        # The buffers of a model are constants: they are alike from the start, and not sent at every step.
        ours = {"forward_sync_buffers": False, "gradient_as_bucket_view": True}
        trainer.strategy._ddp_kwargs = ours | trainer.strategy._ddp_kwargs
    return trainer


def write_into(folder: Path, trainer: lightning.Trainer, options: Mapping[str, Any]) -> None:
    """Let what the engine writes of its own be in the folder of the run, which had no name when the engine was made.

    Args:
        folder: The folder.
        trainer: The engine.
        options: Its options, by which it has a logger of its own or does not.
    """
    trainer._default_root_dir = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
    if options.get("logger") is True:
        trainer._logger_connector.configure_logger(True)


def _instantiated(options: dict[str, Any]) -> dict[str, Any]:
    """All options of the engine, those that are not given by default, with callbacks and loggers made."""
    taken = sorted(OURS & options.keys())
    if taken:
        raise ValueError(f"trainer: {', '.join(taken)} is set by otkit-vae; expected options among the others")
    parser = _parser()
    try:
        with warnings.catch_warnings():
            # A new name in recent versions of the parser, which older ones do not know.
            warnings.filterwarnings("ignore", message="(?s).*(instantiate_classes|DeprecationWarning)")
            # A copy, as the parser puts its own objects into lists that it is given.
            parsed = parser.parse_object({"trainer": copy.deepcopy(options)})
            return vars(parser.instantiate_classes(parsed)["trainer"])
    except (ArgumentError, TypeError, ImportError) as error:
        raise ValueError(f"trainer: {error}") from None


def _check_callbacks(given: Mapping[str, Any]) -> None:
    """Refuse callbacks that do not go with a model here, and let those that wait for a metric see it."""
    for callback in _listed(given["callbacks"]):
        for kind, expected in REFUSED.items():
            if isinstance(callback, kind):
                raise ValueError(f"trainer: callbacks has a {kind.__name__}; expected {expected}")
        if isinstance(callback, EarlyStopping):
            _see_metrics(callback, given)


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Refuse numbers by which the engine would fail within the training, or train otherwise than they say."""
    for name, least in LEAST.items():
        value = given[name]
        if isinstance(value, int) and value < least:  # a float is a fraction of an epoch, which the engine checks
            raise ValueError(f"trainer: {name} is {value}; expected a whole number >= {least}")
    clip = given["gradient_clip_val"]
    if clip is not None and not clip >= 0:
        raise ValueError(f"trainer: gradient_clip_val is {clip:g}; expected a number >= 0, or null")
    for name in ("limit_train_batches", "max_steps"):
        if given[name] == 0:
            raise ValueError(f"trainer: {name} is 0; expected steps to train by")


def _see_metrics(callback: EarlyStopping, given: Mapping[str, Any]) -> None:
    """Let a callback look at its metric when there is a new value: the engine's own rule is to look at evaluations."""
    known = [f"{part}_{name}" for part in ("train", "held_out") for name in COLUMNS]
    if given["limit_val_batches"] == 0:
        known = [name for name in known if name.startswith("train")]
    if callback.strict and callback.monitor not in known:
        raise ValueError(
            f"trainer: callbacks has an EarlyStopping that monitors {callback.monitor!r}; expected one of "
            f"{', '.join(known)}, or strict: false"
        )
    if callback.monitor.startswith("train"):
        callback._check_on_train_epoch_end = True
    elif given["check_val_every_n_epoch"] != 1:
        callback._check_on_train_epoch_end = False


def same_epochs(about: Mapping[str, Any], trainer: lightning.Trainer) -> None:
    """See that an epoch has the steps that it has in a checkpoint, by what the checkpoint says of the training.

    Raises:
        ValueError: It does not: the steps counted so far would be others.
    """
    for name, before in about.get("an_epoch", {}).items():
        now = repr(getattr(trainer, name))
        if now != before:
            raise ValueError(
                f"trainer: {name} is {now}, and was {before} when the checkpoint was written; expected the same, as it "
                "makes the steps of an epoch (to change it, train in a new folder)"
            )


def same_averages(content: Mapping[str, Any], trainer: lightning.Trainer) -> None:
    """See that a training whose checkpoint has averages of the weights goes on to average them.

    Raises:
        ValueError: It does not, and would go on from the averages, by an optimiser that knows the weights under them.
    """
    averages = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # pyright: ignore
    if "averaging_state" in content and not averages:
        raise ValueError(
            "trainer: callbacks has none that averages the weights, as the checkpoint has them; expected the "
            "EMAWeightAveraging that the training was begun with (to go on without it, train in a new folder)"
        )


class Checkpoints(CheckpointIO):
    """How the engine writes and reads checkpoints: in one step, and never code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: D102
        checkpoints.write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: D102
        return checkpoints.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:  # noqa: D102
        Path(path).unlink(missing_ok=True)


class Unprofiled(Profiler):
    """No profiler, and no cost: the engine opens seventy profiled sections a step."""

    _nothing = nullcontext()

    def start(self, action_name: str) -> None: ...  # noqa: D102

    def stop(self, action_name: str) -> None: ...  # noqa: D102

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # pyright: ignore  # noqa: D102
        return self._nothing


def _listed(given: Any) -> list[Any]:
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


@contextmanager
def quiet() -> Iterator[None]:
    """Within this context the engine gives no hints (more workers, another logger): they are on things decided here."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def restored() -> Iterator[None]:
    """Quietly, and leaving the settings of the process as they were: a Trainer sets some when it is made and run."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, environment = torch.backends.cudnn.benchmark, dict(os.environ)
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # Only the main thread may set what answers a signal.
    main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with quiet(), processes.in_training():
            # Else torch, made deterministic, writes every result twice: first NaN, to show who reads it too early.
            memory.fill_uninitialized_memory = False
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = cudnn
        if dist.is_available() and dist.is_initialized():
            # By these a next training finds the processes of the group, and starts no others.
            environment |= {name: os.environ[name] for name in LAUNCHED if name in os.environ}
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        if main:
            signal.signal(signal.SIGINT, interrupt)
