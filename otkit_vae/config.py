"""What one training is: the options of ``otkit-vae train``, checked before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

import numpy as np

from otkit_vae import penalties
from otkit_vae.likelihoods import LIKELIHOODS
from otkit_vae.networks import NETWORKS
from otkit_vae.posteriors import POSTERIORS
from otkit_vae.priors import COMPONENTS, PRIORS
from otkit_vae.sampling import checked_seed

CHOICES = {
    "likelihood": tuple(LIKELIHOODS),
    "posterior": tuple(POSTERIORS),
    "prior": tuple(PRIORS),
    "network": tuple(NETWORKS),
    "balance": ("none", "gradient"),
}

TYPES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("data", "data_root", "out"), ("a text", str)),
    **dict.fromkeys(("latent_dim", "components", "epochs", "batch_size", "warmup"), ("a whole number", int)),
    **dict.fromkeys(("seed", "checkpoint_steps"), ("a whole number", int)),
    **dict.fromkeys(("weight", "scale", "learning_rate", "max_gradient_norm"), ("a number", int | float)),
    "widths": ("a list of whole numbers", list | tuple),
    **dict.fromkeys(("penalty_options", "trainer"), ("options by their names", dict)),
    "progress": ("true or false", bool),
}
"""What the options are, in words and as types; those whose default is None may be None."""


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training.

    Args:
        penalty: The latent penalty, by name: none, kl, gaussian_w2, aggregated_gaussian_w2, wasserstein, sinkhorn,
            sliced, max_sliced, mmd, cramer_wold, wae_gan; from Python also one that you registered.
        penalty_options: Options of the penalty, such as '{p: 1}' for wasserstein or '{kernel: gaussian}' for mmd.
        weight: The weight of the penalty, >= 0, in nats per unit of penalty; the penalty's own default for
            observations of that size if null.
        warmup: Over how many steps the weight grows from 0 to its value.
        balance: "gradient" to multiply the weight (whose default is then 1) by the ratio of the reconstruction's
            gradient to the penalty's at the start; "none" to take it as it is.
        data: "digits" (bundled with scikit-learn), "mnist", "fashion-mnist", or the path of a .npy or .npz file with
            observations (n, ...), of a .csv file with one in each row, of a folder of images of one size, or of a
            folder with IDX files.
        data_root: The folder with the IDX files of mnist or fashion-mnist; Debian's dataset-fashion-mnist, or a
            download from openml.org, if null.
        likelihood: "bernoulli" for data in [0, 1], or "gaussian" with one scale for any data.
        scale: The standard deviation of the gaussian likelihood; learned if null.
        latent_dim: The dimension of a code.
        posterior: What the encoder gives: "deterministic" codes, "diagonal" Gaussians, or Gaussians with "full"
            covariances.
        prior: "normal" for N(0, I), or "mixture" for Gaussians that are learned with the model.
        components: The number of Gaussians of a mixture.
        network: "mlp", or "conv" for images.
        widths: The widths of the encoder's hidden layers, or the channels of its convolutions, mirrored in the decoder;
            sized from the data if null.
        epochs: How many times to go through the data.
        batch_size: The size of a batch, over all processes; a smaller remainder is left out of each epoch,
            but fewer observations than that are one batch.
        learning_rate: Adam's learning rate.
        seed: Seeds the weights, the order of the data and every draw.
        out: The run folder to write, which must be new or empty; runs/DATA-PENALTY-K, K the first free number, if null.
        progress: Whether to show a progress bar.
        checkpoint_steps: How many steps apart checkpoints are written, within epochs too; at each epoch's end if null.
        max_gradient_norm: The norm of a step's gradient above which the training stops, naming the step and the batch;
            no limit if null. To make gradients smaller instead, see trainer.gradient_clip_val. A loss or weights that
            are not finite stop a training in any case.
        trainer: Options of the training engine, pytorch_lightning.Trainer, by their names: devices, precision and so
            on.
    """

    penalty: str = "wasserstein"
    penalty_options: dict[str, Any] | None = None
    weight: float | None = None
    warmup: int = 0
    balance: str = "none"
    data: str = "digits"
    data_root: str | None = None
    likelihood: str = "bernoulli"
    scale: float | None = None
    latent_dim: int = 8
    posterior: str = "diagonal"
    prior: str = "normal"
    components: int = COMPONENTS
    network: str = "mlp"
    widths: list[int] | None = None
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    out: str | None = None
    progress: bool = True
    checkpoint_steps: int | None = None
    max_gradient_norm: float | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in fields(self):
            object.__setattr__(self, option.name, _plain(option.name, getattr(self, option.name)))
            value = getattr(self, option.name)
            if option.name in TYPES and not (value is None and option.default is None):
                expected, kind = TYPES[option.name]
                _require(expected, option.name, value, kind)
        for width in self.widths or ():
            _require("a list of whole numbers", "widths", width, int)
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(f"checkpoint_steps is {self.checkpoint_steps}; expected a whole number >= 1, or null")
        if self.out == "":
            raise ValueError("out is empty; expected the name of a folder")
        penalty = self.make_penalty()
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; expected a finite number >= 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        for name in ("latent_dim", "components", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a whole number >= 1")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; expected a whole number of steps >= 0")
        if self.widths is not None and any(width < 1 for width in self.widths):
            raise ValueError(f"widths is {self.widths}; expected whole numbers >= 1")
        if self.batch_size < penalty.min_batch:
            raise ValueError(
                f"batch_size is {self.batch_size}; the penalty {self.penalty!r} needs at least {penalty.min_batch}"
            )
        for name in ("learning_rate", "scale", "max_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a finite number > 0")
        checked_seed(self.seed)

    def with_weight(self, event_shape: Sequence[int]) -> TrainConfig:
        """These options with the default weight for observations of a shape, if the weight is open.

        It stays open where it is to be balanced, as it is then a ratio of gradients.
        """
        if self.weight is not None or self.balance != "none":
            return self
        return replace(self, weight=self.make_penalty().weight_for(event_shape))

    def make_penalty(self) -> penalties.LatentPenalty:
        """The penalty of that name, with its options."""
        return penalties.get(self.penalty, **(self.penalty_options or {}))


def _plain(name: str, value: Any) -> Any:
    """A value as a file can hold it: NumPy's, paths and times as Python's numbers and texts, in lists and options too.

    Raises:
        ValueError: There is no such value.
    """
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike | timedelta):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(f"{name}.{key}", part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(name, part) for part in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name} is {value!r}; expected numbers, texts, lists or options by their names")


def _require(expected: str, name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
