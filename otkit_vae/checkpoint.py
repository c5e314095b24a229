"""Models in files: weights and architecture, never code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from otkit import __version__
from otkit_vae._files import replacing
from otkit_vae.model import VAE

CHECKPOINT, METRICS = "checkpoint.ckpt", "metrics.csv"
"""The files of a run's last state and of its numbers by epochs."""

FORMAT = 5
KEY = "otkit_vae"
"""Where a checkpoint has what we say of it, beside the "state_dict" and the state of the training."""

PARTS = ("state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
ABOUT = ("architecture", "config", "data", "weight", "history", "sums")
"""What every checkpoint has, and what it has under `KEY`."""


def describe(model: VAE) -> dict[str, Any]:
    """What a checkpoint says of a model under the key "otkit_vae", beside the "state_dict"."""
    return {"format": FORMAT, "version": __version__, "architecture": model.architecture}


def write(content: dict[str, Any], file: Path) -> None:
    """Write a checkpoint, in one step: a kill at any moment leaves the old one or the new one, whole.

    Raises:
        OSError: It could not be written, on a full disk say; the old one is kept.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(file) as partial:
        partial.write(buffer.getbuffer())


def read(file: Path) -> dict[str, Any]:
    """All that a checkpoint has, on the CPU.

    Only tensors and plain values are read: a file with code in it is refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint of this project, is damaged, has code in it, is of a format that this
            version does not know, or lacks a part.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"path: no checkpoint {file}; expected a file or run folder of otkit-vae train (what save_pretrained wrote "
            "is read by VAE.from_pretrained)"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        about = content[KEY] if isinstance(content, dict) else {}
        known, version = about["format"], about.get("version", "another version")
    except pickle.UnpicklingError as error:
        what = "has code in it, which is not run" if "Unsupported" in str(error) else "is cut off or damaged"
        raise ValueError(f"path: {file} is not a checkpoint of otkit-vae train: it {what}") from None
    except PermissionError as error:
        raise PermissionError(f"path: {file} cannot be read ({error.strerror})") from None
    except (RuntimeError, EOFError, OSError) as error:
        reason = str(error).split("\n")[0] or "it ends too early"
        raise ValueError(
            f"path: {file} is not a checkpoint of otkit-vae train, or is cut off or damaged ({reason})"
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"path: {file} is not a checkpoint of otkit-vae train: it has no {KEY!r}") from None
    if known != FORMAT:
        raise ValueError(
            f"path: {file} has format {known}, of otkit {version}; expected format {FORMAT}, which otkit {__version__} "
            "reads"
        )
    missing = [part for part in PARTS if part not in content] + [f"{KEY}.{part}" for part in ABOUT if part not in about]
    if missing:
        raise ValueError(f"path: {file} is no whole checkpoint: it has no {', '.join(missing)}")
    return content


def load(path: str | Path) -> VAE:
    """The model of a checkpoint that ``otkit-vae train`` wrote, on the CPU, in evaluation mode.

    Args:
        path: A checkpoint, or a run folder that has one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint that can be read, or its model is one that was not made by `VAE.sized`.
    """
    path = Path(path)
    file = path / CHECKPOINT if path.is_dir() else path
    return model_of(read(file), file)


def model_of(content: Mapping[str, Any], file: Path) -> VAE:
    """The model of what was read from a file.

    Raises:
        ValueError: The model was not made by `VAE.sized`, or its weights and its architecture do not fit each other.
    """
    architecture = content[KEY]["architecture"]
    if architecture is None:
        raise ValueError(f"path: {file} has a model with networks of its own; expected one made by VAE.sized")
    with fitting(file):
        model = VAE.sized(**architecture)
        model.load_state_dict(part_of(content, "model"))
    return model.eval()


def part_of(content: Mapping[str, Any], module: str) -> dict[str, Any]:
    """The weights of the "model" or of the "objective", by their names in it."""
    prefix = f"{module}."
    return {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}


@contextmanager
def fitting(file: Path) -> Iterator[None]:
    """Say, where something does not fit (a weight is missing or of another shape), in which file it was."""
    try:
        yield
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"path: {file} does not hold what was trained: {' '.join(str(error).split())}") from None
