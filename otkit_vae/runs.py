"""Run folders, opened again: what ``otkit-vae train`` left, with its data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from otkit_vae import penalties
from otkit_vae.checkpoint import load
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data, load_data
from otkit_vae.model import VAE
from otkit_vae.objective import Objective


class SavedRun(NamedTuple):
    """A finished training.

    Attributes:
        folder: The run folder.
        config: The options of the training.
        data: Its data.
        model: The model, on the CPU, in evaluation mode.
        objective: The objective, a trained part of the penalty included.
    """

    folder: Path
    config: TrainConfig
    data: Data
    model: VAE
    objective: Objective


def open_run(folder: str | Path) -> SavedRun:
    """Open a run folder.

    Raises:
        FileNotFoundError: The folder is not there, or has no config.yaml or checkpoint.ckpt, or its data are gone.
        ValueError: The config or the checkpoint is not one of this version.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"run: no file {folder / 'config.yaml'}; expected a run folder of otkit-vae train")
    config = read_config(folder / "config.yaml")
    model = load(folder)
    objective = objective_of(config)
    weights = torch.load(folder / "checkpoint.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    prefix = "objective."
    # Some penalties have a part that is trained, an adversary.
    objective.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return SavedRun(folder, config, data_of(config), model, objective.eval())


def read_config(file: Path) -> TrainConfig:
    """The options in a config.yaml."""
    try:
        return TrainConfig(**yaml.safe_load(file.read_text()))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"run: {file} does not hold the options of a training of this version ({error})") from None


def objective_of(config: TrainConfig) -> Objective:
    """The objective that the options ask for."""
    return Objective(penalties.get(config.penalty), config.weight)


def data_of(config: TrainConfig) -> Data:
    """The data that the options ask for."""
    return load_data(config.data)


def identity(config: TrainConfig) -> dict[str, object]:
    """The options that a result depends on, the default weight as a number."""
    options = asdict(config) | {"weight": objective_of(config).weight}
    return {name: value for name, value in options.items() if name not in ("out", "progress")}
