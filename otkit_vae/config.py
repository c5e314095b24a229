"""What one training is: the options of ``otkit-vae train``, checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from otkit_vae import penalties
from otkit_vae.likelihoods import LIKELIHOODS


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training.

    Args:
        penalty: The latent penalty, by name: none, kl, gaussian_w2, wasserstein, sinkhorn; from Python also one that
            you registered.
        weight: The weight of the penalty, >= 0, in nats for a unit of penalty; the penalty's own default if null.
        data: "digits" (bundled with scikit-learn), or the path of a .npy or .npz file with observations (n, ...).
        likelihood: "bernoulli" for data in [0, 1], or "gaussian" with one learned scale for any data.
        latent_dim: The dimension of a code.
        widths: The widths of the encoder's hidden layers, mirrored in the decoder; sized from the data if null.
        epochs: How many times to go through the data.
        batch_size: The size of a batch; a smaller remainder is left out of each epoch.
        learning_rate: Adam's learning rate.
        seed: Seeds the weights, the order of the data and every draw.
        out: The run folder to write, which must be new or empty; runs/DATA-PENALTY-K, K the first free number, if null.
        progress: Whether to show a progress bar.
    """

    penalty: str = "wasserstein"
    weight: float | None = None
    data: str = "digits"
    likelihood: str = "bernoulli"
    latent_dim: int = 8
    widths: list[int] | None = None
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    out: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("latent_dim", "epochs", "batch_size", "seed"):
            _require("a whole number", name, getattr(self, name), int)
        for name in ("weight", "learning_rate"):
            if getattr(self, name) is not None:
                _require("a number", name, getattr(self, name), int | float)
        if self.widths is not None:
            _require("a list of whole numbers", "widths", self.widths, list | tuple)
            for width in self.widths:
                _require("a list of whole numbers", "widths", width, int)
        if self.out == "":
            raise ValueError("out is empty; expected the name of a folder")
        penalty = penalties.get(self.penalty)
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; expected a finite number >= 0")
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood is {self.likelihood!r}; expected one of {', '.join(LIKELIHOODS)}")
        for name in ("latent_dim", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a whole number >= 1")
        if self.widths is not None and any(width < 1 for width in self.widths):
            raise ValueError(f"widths is {self.widths}; expected whole numbers >= 1")
        if self.batch_size < penalty.min_batch:
            raise ValueError(
                f"batch_size is {self.batch_size}; the penalty {self.penalty!r} needs at least {penalty.min_batch}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected a finite number > 0")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected a whole number from 0 to 2**32 - 1")


def _require(expected: str, name: str, value: Any, kind: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
