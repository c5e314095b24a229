"""One training from options to a run folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml

from otkit import __version__
from otkit_vae import checkpoint, engine, pictures, processes
from otkit_vae._files import only_writer, replacing, write_text
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data, warn_of_unlike_columns
from otkit_vae.evaluation import Evaluation, evaluate
from otkit_vae.model import VAE
from otkit_vae.objective import Objective
from otkit_vae.report import write_report
from otkit_vae.runs import (
    CHANGEABLE,
    CONFIG,
    EVALUATION,
    PLACE,
    Run,
    SavedRun,
    data_of,
    fixed_options,
    open_run,
    read_config,
    same_data,
    same_training,
)
from otkit_vae.sampling import undisturbed
from otkit_vae.trainer import Refused, make_trainer, restored, same_epochs, write_into


def train(config: TrainConfig) -> Run | None:
    """Train as the options say, and write the run folder.

    The folder has config.yaml, checkpoint.ckpt, metrics.csv (a row an epoch), reconstructions.png, samples.png,
    latent.png and report.html; ``otkit-vae train --config RUN/config.yaml --out OTHER`` repeats the training. The
    random states and settings of the process are left as they were.

    Returns:
        The run; None on processes other than the first, if there are several.

    Raises:
        ValueError: An option or the data are not as they should be; nothing was written.
        FileExistsError: The run folder has something in it.
    """
    return _train(config)


def resume(folder: str | Path, **changes: Any) -> Run | None:
    """Go on with a training that was killed or interrupted, from its last checkpoint, to the same end bit by bit.

    The same, that is, on the same build, device and numbers of threads and processes. A training that had ended has its
    numbers and pictures made anew, or goes on if there are more epochs.

    Args:
        folder: The run folder.
        **changes: Options to change: epochs, progress, checkpoint_steps, max_gradient_norm or trainer; and data or
            data_root, where the same observations are in another place. All others stay, as do those of the trainer
            that are not among the new ones, and in any case its accumulate_grad_batches and limit_train_batches, which
            determine the steps of an epoch.

    Raises:
        FileNotFoundError: The folder is not there, or is not that of a training.
        ValueError: Its options or its checkpoint are not those of this version, or do not belong together; its data
            are not those that it began with; or an option cannot be changed.
        FileExistsError: Another training writes to the folder.
    """
    folder = Path(folder)
    before, out = read_config(folder / CONFIG), changes.pop("out", None)
    if out is not None and Path(out).resolve() != folder.resolve():
        raise ValueError(
            f"out is {out!r}, and resume goes on in {folder}; expected no out (to train anew: "
            f"{shlex.join(['otkit-vae', 'train', '--config', str(folder / CONFIG), '--out', str(out)])})"
        )
    config = replace(before, **changes)
    config = replace(config, trainer=before.trainer | config.trainer)
    now = fixed_options(config)
    fixed = [name for name, value in fixed_options(before).items() if value != now[name]]
    if fixed:
        raise ValueError(
            f"resume: {folder} was begun with "
            + ", ".join(f"{name} {getattr(before, name)!r}, not {getattr(config, name)!r}" for name in fixed)
            + f"; expected the same (what may be changed: {', '.join(CHANGEABLE)})"
        )
    file, begun = folder / checkpoint.CHECKPOINT, {}
    if file.is_file():
        begun = checkpoint.read(file)[checkpoint.KEY]
        done = len(begun["history"])
        if config.epochs < done:
            raise ValueError(f"epochs is {config.epochs}, and {file} has {done} behind it; expected at least as many")
        same_training(begun["config"], before, folder)
    elif any(getattr(config, name) != getattr(before, name) for name in PLACE):
        raise ValueError(
            f"data is {config.data!r}, and {folder} has no checkpoint, which would know the data it was begun with "
            f"({before.data!r}); expected the same place, or a new folder"
        )
    return _train(replace(config, out=str(folder)), begun)


def _train(config: TrainConfig, begun: dict[str, Any] | None = None) -> Run | None:
    """Train, anew or on from a checkpoint, given what that says of the training: nothing where there is none yet."""
    with undisturbed(), restored():
        # Without a checkpoint it cannot be known whether other data are the same, and no place is asked for.
        data = data_of(config, Path(str(config.out)) if begun else None)
        if begun:
            same_data(begun["data"], data, config.data, Path(str(config.out)))
        config = config.with_weight(data.train.shape[1:])
        model, objective = prepare(config, data)
        trainer = make_trainer(config.trainer, objective.penalty, epochs=config.epochs)
        same_epochs(begun or {}, trainer)
        folder, beginning = Path(config.out or "runs"), nullcontext()
        if trainer.is_global_zero:
            if config.likelihood == "gaussian":
                warn_of_unlike_columns(data.train)
            if begun is None:
                folder = _new_folder(config.out, f"{data.name}-{config.penalty}")
            # A balanced weight is a result, not an option: given again it would be balanced again.
            config = replace(config, out=str(folder))
            goes_on = len((begun or {}).get("history", ())) < config.epochs
            beginning = _beginning(folder, config, goes_on)
            print(
                f"{data.name}: {len(data.train)} observations to train on, {len(data.held_out)} held out, "
                f"of shape {tuple(data.train.shape[1:])}; penalty {config.penalty}, weight {objective.weight:g}"
                + (f" from step {config.warmup} on" * (config.warmup > 0))
                + (f"; all in one batch, as batch_size is {config.batch_size}" * (config.batch_size > len(data.train))),
                file=sys.stderr,
            )
        write_into(folder, trainer, config.trainer)
        with only_writer(folder) if trainer.is_global_zero else nullcontext(), beginning:
            engine.fit(
                trainer,
                model,
                objective,
                data.train,
                data.held_out,
                folder,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                seed=config.seed,
                config=fixed_options(config),
                data=data.fingerprint,
                checkpoint_steps=config.checkpoint_steps,
                max_gradient_norm=config.max_gradient_norm,
                resume=begun is not None,
                progress=config.progress,
            )
        if not trainer.is_global_zero:
            return None
        with processes.alone():
            return _finished(folder, config, data, model, objective)


def _finished(folder: Path, config: TrainConfig, data: Data, model: VAE, objective: Objective) -> Run:
    """Draw the pictures, evaluate, say what ended the training before its time, and write the report."""
    # The engine leaves them in the precision of the training.
    model.to("cpu", data.train.dtype)
    objective.to("cpu", data.train.dtype)
    pictures.reconstructions(model, data.held_out, folder / "reconstructions.png")
    pictures.samples(model, folder / "samples.png", seed=config.seed)
    labels = None if data.held_out_labels is None else data.named(data.held_out_labels)
    pictures.latent_map(model, data.held_out, labels, folder / "latent.png")
    evaluation = evaluate(model, objective, data.held_out, batch_size=config.batch_size, seed=config.seed)
    run = open_run(folder, data)
    # By what the engine was told: a limit of steps or time, or an early stopping.
    for said in filter(None, (run.unfinished, run.warming)):
        print(said, file=sys.stderr)
    _report(run, evaluation)
    return Run(folder, model, evaluation)


def _report(run: SavedRun, evaluation: Evaluation) -> None:
    """Write report.html, with the numbers of a full evaluation where the folder has one of these weights."""
    try:
        write_report(run, None if (run.folder / EVALUATION).is_file() else evaluation)
    except ValueError:  # evaluation.json is of another version
        write_report(run, evaluation)


@contextmanager
def _beginning(folder: Path, config: TrainConfig, goes_on: bool) -> Iterator[None]:
    """Write the options, and drop the numbers of weights that will be there no longer; undo both if it is refused."""
    before = {file: file.read_bytes() for file in (folder / CONFIG, folder / EVALUATION) if file.is_file()}
    header = f"# The options of a training by otkit-vae train, otkit {__version__}.\n"
    write_text(folder / CONFIG, header + yaml.safe_dump(asdict(config), sort_keys=False))
    if goes_on:
        (folder / EVALUATION).unlink(missing_ok=True)
    try:
        yield
    except Refused:
        for file, content in before.items():
            with replacing(file) as kept:
                kept.write(content)
        if not before:
            (folder / CONFIG).unlink()
            with suppress(OSError):  # where loggers have files
                folder.rmdir()
        raise


def prepare(config: TrainConfig, data: Data) -> tuple[VAE, Objective]:
    """The untrained model and the objective that the options ask for, checked to fit the data and each other.

    Raises:
        ValueError: They do not fit.
    """
    config = config.with_weight(data.train.shape[1:])
    torch.manual_seed(config.seed)
    try:
        model = VAE.sized(
            data.train.shape[1:],
            config.latent_dim,
            config.likelihood,
            config.widths,
            network=config.network,
            posterior=config.posterior,
            prior=config.prior,
            components=config.components,
            scale=config.scale,
        )
    except RuntimeError as error:  # torch's word for too little memory
        raise MemoryError(
            f"latent_dim {config.latent_dim} and widths {config.widths} make a model that does not fit: {error}"
        ) from None
    objective = Objective(config.make_penalty(), config.weight, warmup=config.warmup)
    for part in (data.train, data.held_out):
        model.likelihood.check(part)
        if len(part) < objective.penalty.min_batch:
            raise ValueError(
                f"data: {len(data.train)} observations to train on and {len(data.held_out)} held out; the penalty "
                f"{config.penalty!r} needs at least {objective.penalty.min_batch} of each"
            )
    first = data.train[: config.batch_size]
    objective.check(model, first)
    if config.balance == "gradient":
        objective.balance(model, first, generator=torch.Generator().manual_seed(config.seed))
    return model, objective


def _new_folder(out: str | None, stem: str) -> Path:
    folder = Path("runs" if out is None else out)
    try:
        if out is None:
            return _first_free(folder, stem)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"out: {folder} exists and is not empty; expected a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            f"out: {error.filename or folder} cannot be made ({error.strerror}); expected a folder that can be written"
        ) from None
    return folder


def _first_free(folder: Path, stem: str) -> Path:
    numbers = count(1)
    while True:
        new = folder / f"{stem}-{next(numbers)}"
        with suppress(FileExistsError):
            new.mkdir(parents=True)
            return new
