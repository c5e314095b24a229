"""Models in files: weights and architecture, never code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from otkit_vae.model import VAE

FORMAT = 2
KEY = "otkit_vae"


def describe(model: VAE) -> dict[str, Any]:
    """What a checkpoint says of a model under the key "otkit_vae", beside the "state_dict"."""
    return {"format": FORMAT, "architecture": model.architecture}


def load(path: str | Path) -> VAE:
    """The model of a checkpoint that ``otkit-vae train`` wrote, on the CPU, in evaluation mode.

    Only tensors and plain values are read: a file with code in it is refused.

    Args:
        path: A checkpoint, or a run folder that has one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint of this project, or of a format that this version does not know.
    """
    path = Path(path)
    file = path / "checkpoint.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"path: no checkpoint {file}; expected a file or run folder of otkit-vae train")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        about = content[KEY]
        architecture, weights = about["architecture"], content["state_dict"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"path: {file} is not a checkpoint of otkit-vae train ({reason})") from None
    if about["format"] != FORMAT or architecture is None:
        raise ValueError(
            f"path: {file} has format {about['format']} and architecture {architecture}; expected format {FORMAT}"
        )
    model = VAE.sized(**architecture)
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return model.eval()
