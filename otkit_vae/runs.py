"""Run folders, opened again: what ``otkit-vae train`` left, with its data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from otkit import __version__
from otkit_vae import checkpoint
from otkit_vae._files import write_text
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data, load_data
from otkit_vae.evaluation import Evaluation, EvaluationOptions, FullEvaluation, Reference, evaluate_fully
from otkit_vae.model import VAE
from otkit_vae.objective import Objective

CONFIG = "config.yaml"
"""The file of a run's options."""

EVALUATION = "evaluation.json"
"""The file of a run's numbers."""


@dataclass(frozen=True)
class Run:
    """What a training left: its folder, the model, and its numbers on held-out data."""

    folder: Path
    model: VAE
    evaluation: Evaluation


class SavedRun(NamedTuple):
    """A training, finished or as far as its last checkpoint.

    Attributes:
        folder: The run folder.
        config: The options of the training.
        data: Its data.
        model: The model, on the CPU, in evaluation mode.
        objective: The objective, a trained part of the penalty included.
        epochs: How many epochs the model has behind it; those of the config if None.
        step: The step of the checkpoint, which tells its weights from those of others; None if there is none.
        steps: How many steps the model's optimiser has made; step counts those of an adversary's too.
        ended: Which limit ended the training before its epochs, in words; empty if none did.
    """

    folder: Path
    config: TrainConfig
    data: Data
    model: VAE
    objective: Objective
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    ended: str = ""

    @property
    def unfinished(self) -> str:
        """That the model has fewer epochs behind it than the options ask for, in words; empty if it has them all."""
        if self.epochs in (None, self.config.epochs):
            return ""
        return f"{self.folder}: the model has {self.epochs} of {self.config.epochs} epochs behind it{self.ended}"

    @property
    def warming(self) -> str:
        """That the weight of the penalty did not get to its full value, in words; empty if it did."""
        if self.steps is None or self.steps >= self.config.warmup:
            return ""
        return (
            f"{self.folder}: warmup is {self.config.warmup}, and the training made {self.steps} steps: the weight got "
            f"to {self.objective.weight_at(self.steps):.4g}, and not to {self.objective.weight:g}"
        )


def open_run(folder: str | Path, data: Data | None = None) -> SavedRun:
    """Open a run folder.

    Args:
        folder: What ``otkit-vae train`` wrote.
        data: Its data, if they are in memory; they are loaded again by default.

    Raises:
        FileNotFoundError: The folder is not there, or has no config.yaml or checkpoint.ckpt, or its data are gone.
        ValueError: The config or the checkpoint is not one of this version; they do not belong together; or the data
            are not those that the model was trained on.
    """
    folder = Path(folder)
    config, file, content = _read(folder)
    data = data_of(config, folder) if data is None else data
    same_data(content[checkpoint.KEY]["data"], data, config.data, folder)
    # A balanced weight is a result of the training, not an option.
    objective = Objective(config.make_penalty(), content[checkpoint.KEY]["weight"], warmup=config.warmup)
    with checkpoint.fitting(file):  # some penalties have a part that is trained, an adversary
        objective.load_state_dict(checkpoint.part_of(content, "objective"))
    epochs, step = len(content[checkpoint.KEY]["history"]), content["global_step"]
    steps = step // len(content["optimizer_states"])
    model, ended = checkpoint.model_of(content, file), _ended(content, config, steps)
    return SavedRun(folder, config, data, model, objective.eval(), epochs, step, steps, ended)


def open_model(folder: str | Path) -> VAE:
    """The model of a run folder, as `open_run` has it: its data need not be there."""
    _, file, content = _read(Path(folder))
    return checkpoint.model_of(content, file)


def _read(folder: Path) -> tuple[TrainConfig, Path, dict[str, Any]]:
    """The options of a run, the file of its checkpoint and what is in it, which belong together."""
    config, file = read_config(folder / CONFIG), folder / checkpoint.CHECKPOINT
    content = checkpoint.read(file)
    same_training(content[checkpoint.KEY]["config"], config, folder)
    return config, file, content


def _ended(content: Mapping[str, Any], config: TrainConfig, steps: int) -> str:
    """Which limit ended a training, and what to raise: what follows the epochs that the model has behind it."""
    most, about = config.trainer.get("max_steps", -1), content[checkpoint.KEY]
    if 0 < most <= steps:
        return f", as trainer.max_steps is {most}: to go on, resume with a greater one"
    if not about.get("stopped", False):
        return ""
    last = len(about["history"])
    for name, state in content["callbacks"].items():
        stopped = name.startswith("EarlyStopping") and state.get("stopping_reason_message", True)
        if stopped and state["stopped_epoch"] in (last - 1, last):  # at the end of an epoch, or within one
            return (
                f", as its EarlyStopping, of patience {state['patience']}, ended it: to go on, resume with "
                "trainer.callbacks that have a greater one"
            )
    if config.trainer.get("max_time") is not None:
        return f", as trainer.max_time is {config.trainer['max_time']}: to go on, resume with a longer one"
    return ", as one of its callbacks ended it"


def same_training(written: Mapping[str, Any], config: TrainConfig, folder: Path) -> None:
    """See that the options in a run's checkpoint are those of its config.yaml.

    Raises:
        ValueError: They are not.
    """
    other = [name for name, value in fixed_options(config).items() if written.get(name) != value]
    if other:
        raise ValueError(
            f"run: {folder / checkpoint.CHECKPOINT} is of a training with other {', '.join(other)} than "
            f"{folder / CONFIG} has; expected the two files of one training"
        )


def same_data(known: Mapping[str, str], data: Data, source: str, folder: Path) -> None:
    """See that data are still those of a run or comparison: otherwise held-out ones may have been trained on.

    Raises:
        ValueError: They are not.
    """
    changed = [
        f"{part} was {known.get(part, 'not noted')}, and is {now}"
        for part, now in data.fingerprint.items()
        if known.get(part) != now
    ]
    if changed:
        raise ValueError(
            f"data: {source} has changed since {folder} was trained on it ({'; '.join(changed)}: shape and hash); "
            "expected the same observations: put them back, or train in a new folder"
        )


def read_config(file: Path) -> TrainConfig:
    """The options in a config.yaml.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold the options of a training of this version.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")  # what is no text is no YAML either, which says so
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"run: no file {file}; expected a run folder of otkit-vae train") from None
    except OSError as error:
        raise OSError(f"run: {file} cannot be read ({error.strerror or error})") from None
    try:
        return TrainConfig(**yaml.safe_load(text))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        written = text.split("\n")[0].removeprefix("# ") if text.startswith("#") else "Its version is not known."
        raise ValueError(
            f"run: {file} does not hold the options of a training of this version, otkit {__version__} ({error}). "
            f"{written}"
        ) from None


def data_of(config: TrainConfig, run: Path | None = None) -> Data:
    """The data that the options ask for, new ones or those of a run that was begun.

    Raises:
        FileNotFoundError: They are not there; for a run it is said how it finds them where they are now.
    """
    try:
        return load_data(config.data, root=config.data_root)
    except FileNotFoundError as error:
        if run is None:
            raise
        raise FileNotFoundError(
            f"{error} (where data that {run} was trained on have moved, give it their new place: otkit-vae train "
            f"--resume {shlex.quote(str(run))} --data PLACE, or data in {run / CONFIG})"
        ) from None


WITHOUT_EFFECT = ("progress", "checkpoint_steps", "max_gradient_norm")
"""The options, besides the folder, that a result does not depend on."""

PLACE = ("data", "data_root")
"""The options that say where the data are; whether they are the same, their fingerprint says."""

CHANGEABLE = ("epochs", *WITHOUT_EFFECT, *PLACE, "trainer")
"""The options that may be changed when a training goes on."""


def fixed_options(config: TrainConfig) -> dict[str, Any]:
    """The options that stay when a training goes on."""
    return _without(config, ("out", *CHANGEABLE))


def result_options(config: TrainConfig) -> dict[str, Any]:
    """The options that a result depends on."""
    return _without(config, ("out", *WITHOUT_EFFECT))


def _without(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """The other options, as a file has them: a tuple there is a list."""
    return json.loads(json.dumps({name: value for name, value in asdict(config).items() if name not in names}))


def evaluated(
    run: SavedRun, options: EvaluationOptions, reference: Reference, *, progress: bool = False
) -> FullEvaluation:
    """Evaluate a run fully.

    Args:
        run: The run.
        options: The options of the evaluation.
        reference: What models of the run's data are judged against.
        progress: Whether to show, on a terminal, which part is computed.
    """
    return evaluate_fully(
        run.model,
        run.objective,
        run.data,
        options,
        batch_size=run.config.batch_size,
        reference=reference,
        progress=progress,
    )


def write_evaluation(
    run: SavedRun, options: EvaluationOptions, evaluation: FullEvaluation, *, ended: bool = False
) -> None:
    """Write evaluation.json into the folder of a run, in one step.

    Args:
        run: The run.
        options: The options of the evaluation.
        evaluation: Its numbers.
        ended: Whether it is known that the training has ended, by which a comparison recognises a finished run.
    """
    about = {"training": result_options(run.config), "step": run.step, "ended": ended, "evaluation": asdict(options)}
    content = about | evaluation.as_dict()
    write_text(run.folder / EVALUATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
