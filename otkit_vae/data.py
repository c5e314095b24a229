"""Observations from files, ready in memory: scikit-learn's digits, or a user's own array."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

OBSERVATION_KEYS = ("x", "images", "data", "arr_0")
LABEL_KEYS = ("y", "labels", "target")


@dataclass(frozen=True)
class Data:
    """Observations in two parts, with labels for the pictures where there are any.

    Attributes:
        name: What the data is called in file names.
        train: Observations to train on, float32, with shape (n, *event).
        held_out: Observations to evaluate on, with shape (m, *event).
        held_out_labels: Whole numbers, with shape (m,), or None.
    """

    name: str
    train: Tensor
    held_out: Tensor
    held_out_labels: Tensor | None = None


def load_data(source: str, *, held_out: float = 0.2) -> Data:
    """Load and split observations.

    Args:
        source: "digits" for scikit-learn's 1,797 scans of 8x8 pixels, scaled to [0, 1]; or the path of a .npy file with
            observations (n, ...), or of an .npz file with observations under x, images, data or arr_0 and, if it has
            them, labels under y, labels or target. Unsigned bytes are images and are scaled to [0, 1]; other numbers
            stay as they are.
        held_out: The fraction to hold out, 0 < held_out < 1. The split depends on the number of observations only, so
            that runs with different seeds compare.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, not numeric, has NaN or infinities, or does not hold what is described above.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected a fraction between 0 and 1")
    if source == "digits":
        name, (x, labels) = "digits", _digits()
    else:
        name, (x, labels) = Path(source).stem, _from_file(Path(source))
    n_held_out = round(held_out * len(x))
    if min(n_held_out, len(x) - n_held_out) < 2:
        raise ValueError(
            f"data ({source}) has {len(x)} observations; expected enough for 2 in each part at held_out = {held_out}"
        )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:n_held_out], order[n_held_out:]
    return Data(name, x[train], x[test], None if labels is None else labels[test])


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    return torch.tensor(x.reshape(-1, 8, 8) / 16, dtype=torch.float32), torch.tensor(labels)


def _from_file(path: Path) -> tuple[Tensor, Tensor | None]:
    if not path.is_file():
        raise FileNotFoundError(f"data: no file {path}; expected 'digits', or the path of a .npy or .npz file")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                x, labels = content, None
            else:
                x, labels = _arrays(path, {key: content[key] for key in content.files})
    except OSError as error:
        raise OSError(f"data: {path} cannot be read ({error.strerror or error})") from None
    except (EOFError, zipfile.BadZipFile, ValueError) as error:
        if str(error).startswith("data"):
            raise
        raise ValueError(f"data: {path} is not a .npy or .npz file of numbers; expected one written by numpy") from None
    return _observations(path, x), _labels(path, labels, len(x))


def _arrays(path: Path, content: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    key = next((key for key in OBSERVATION_KEYS if key in content), None)
    if key is None:
        raise ValueError(
            f"data: {path} has the arrays {', '.join(content) or '(none)'}; "
            f"expected observations under one of {', '.join(OBSERVATION_KEYS)}"
        )
    return content[key], next((content[key] for key in LABEL_KEYS if key in content), None)


def _observations(path: Path, x: np.ndarray) -> Tensor:
    if x.dtype.kind not in "fiub":
        raise ValueError(f"data: {path} has dtype {x.dtype}; expected numbers")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"data: {path} has shape {x.shape}; expected observations (n, ...), none of the dimensions empty"
        )
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        raise ValueError(f"data: {path} has {bad} values that are NaN or infinite of {x.size}; expected finite numbers")
    scaled = x / np.float32(255) if x.dtype == np.uint8 else x
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"data: {path} has values up to {np.abs(x).max():.3g}; expected numbers that fit float32")
    if bool((tensor == tensor[0]).all()):
        raise ValueError(f"data: {path} has {len(x)} observations that are all the same; expected data that vary")
    return tensor


def _labels(path: Path, labels: np.ndarray | None, n: int) -> Tensor | None:
    if labels is None:
        return None
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool(np.all(labels == np.round(labels))))
    if labels.shape != (n,) or not whole:
        raise ValueError(
            f"data: {path} has labels of shape {labels.shape} and dtype {labels.dtype}; expected ({n},) whole numbers"
        )
    return torch.from_numpy(labels.astype(np.int64))
