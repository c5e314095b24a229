"""Observations from files, ready in memory: digits, MNIST and Fashion-MNIST, arrays, folders of images."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from otkit._files import read_table
from otkit_vae._idx import find_idx, read_idx

if TYPE_CHECKING:
    from PIL import Image

OBSERVATION_KEYS = ("x", "images", "data", "arr_0")
LABEL_KEYS = ("y", "labels", "target")
LABEL_COLUMNS = ("label", "labels", "target")  # no "y", which in a table is a coordinate
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

PUBLISHED = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
"""Data sets with a published split, by their names at openml.org."""

PACKAGED = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Where the packages of Debian put them (dataset-fashion-mnist)."""

UNLIKE = 100
"""How many times the standard deviation of others a column of a table has where they are not of one scale."""


@dataclass(frozen=True)
class Data:
    """Observations in two parts, with labels for the pictures where there are any.

    Attributes:
        name: What the data are called in file names.
        train: Observations to train on, float32, with shape (n, *event).
        held_out: Observations to evaluate on, with shape (m, *event).
        held_out_labels: Whole numbers, with shape (m,), or None.
        train_labels: Whole numbers, with shape (n,), or None.
        classes: The names of the labels 0, 1, ..., where they are texts or folders.
    """

    name: str
    train: Tensor
    held_out: Tensor
    held_out_labels: Tensor | None = None
    train_labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def named(self, labels: Tensor) -> np.ndarray:
        """Labels as the source has them: the names of their classes, or numbers where classes have none."""
        numbers = labels.numpy(force=True)
        return np.array(self.classes)[numbers] if self.classes else numbers

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What tells these observations from others, by part; labels do not count."""
        return {"train": fingerprint(self.train), "held_out": fingerprint(self.held_out)}


def fingerprint(x: Tensor) -> str:
    """The shape of a tensor and a hash of its values, the same on every machine.

    >>> fingerprint(torch.zeros(2, 3))
    '2 x 3, cd344090ba2b1f21'
    """
    values = x.numpy(force=True)
    digest = hashlib.sha256(str(x.dtype).encode())
    digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return f"{' x '.join(map(str, x.shape))}, {digest.hexdigest()[:16]}"


def load_data(source: str, *, held_out: float = 0.2, root: str | None = None) -> Data:
    """Load observations, in two parts.

    Unsigned bytes are images and are scaled to [0, 1], as are image files of 16 bits a pixel; other numbers stay as
    they are.

    Args:
        source: One of

            - "digits", scikit-learn's 1,797 scans of 8x8 pixels;
            - "mnist" or "fashion-mnist", 60,000 images of 28x28 pixels and the 10,000 that were published to hold out;
            - a folder with IDX files of such a data set (train-images-idx3-ubyte and so on, gzipped or not), in any
              order;
            - a folder of images of one size, of bytes, in grey or colour, or all of 16 or 32 bits or floats, in grey;
              where it has sub-folders, these are the labels, in alphabetical order;
            - a .npy file with observations (n, ...);
            - an .npz file with observations under x, images, data or arr_0 and, if it has them, labels under y,
              labels or target;
            - a .csv file with an observation in each row and, if its header has a column label, labels or target,
              labels there.

            Labels are whole numbers, or texts, which are numbered in alphabetical order and kept as `Data.classes`;
            those of a .csv file are texts if one of them is no number, or has a zero before it as 01 has.

        held_out: The fraction to hold out, 0 < held_out < 1, where no split was published. The split depends on the
            number of observations only, so that runs with different seeds compare.
        root: The folder with the IDX files of "mnist" or "fashion-mnist", or with a folder of that name that has them.
            By default fashion-mnist is taken from Debian's package dataset-fashion-mnist if that is installed; else
            scikit-learn downloads the data from openml.org, once.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The data are empty, not numeric, all the same, have NaN or infinities, or are not what is described
            above.

    Warns:
        UserWarning: Bytes of 0 and 1 only, which scaling leaves near 0.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected a fraction between 0 and 1")
    path = Path(source)
    if source in PUBLISHED:
        return _published(source, None if root is None else Path(root))
    if root is not None:
        raise ValueError(f"data_root is {root}, and data is {source!r}; expected it with {' or '.join(PUBLISHED)} only")
    if path.is_dir() and find_idx(path, "train", "images") is not None:
        return _in_random_order(_from_idx(path.name, path))
    if source == "digits":
        name, observations = "digits", _digits()
    elif path.is_dir():
        name, observations = path.name, _from_images(path)
    else:
        name, observations = path.stem, _from_file(path)
    return _split(name, source, observations, held_out)


def warn_of_unlike_columns(x: Tensor) -> None:
    """Warn if columns of a table x (n, d) have scales too far apart for a likelihood that has one scale for all.

    The largest standard deviation is compared with the lower quartile of them, without those of columns that do not
    vary: some pixels of images that are given as rows hardly do. Observations of other shapes are images.

    Warns:
        UserWarning: It is more than a hundred times as large.
    """
    scales = x.double().std(0) if x.ndim == 2 else torch.empty(0)
    scales = scales[scales > 0]
    if len(scales) and scales.max() > UNLIKE * scales.quantile(0.25, interpolation="lower"):
        warnings.warn(
            f"data: columns have standard deviations from {scales.min():.3g} to {scales.max():.3g}, and the gaussian "
            "likelihood has one scale for all, so that small ones hardly count; expected columns of one scale, such as "
            "(x - x.mean(0)) / x.std(0)",
            stacklevel=2,
        )


class Observations(NamedTuple):
    """Observations (n, *event), their labels (n,) if there are any, and the names of these if they have any."""

    x: Tensor
    labels: Tensor | None
    classes: tuple[str, ...] = ()


def _split(name: str, source: str, observations: Observations, held_out: float) -> Data:
    x, labels, classes = observations
    n_held_out = round(held_out * len(x))
    if min(n_held_out, len(x) - n_held_out) < 2:
        raise ValueError(
            f"data ({source}) has {len(x)} observations; expected enough for 2 in each part at held_out = {held_out}"
        )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:n_held_out], order[n_held_out:]
    if labels is None:
        return Data(name, x[train], x[test])
    return Data(name, x[train], x[test], labels[test], labels[train], classes)


def _in_random_order(data: Data) -> Data:
    """Each part in an order of its own: files may be sorted by class, and some numbers are of the first ones only."""

    def mixed(x: Tensor, labels: Tensor | None) -> Observations:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        return Observations(x[order], None if labels is None else labels[order])

    train, test = mixed(data.train, data.train_labels), mixed(data.held_out, data.held_out_labels)
    return Data(data.name, train.x, test.x, test.labels, train.labels)


def _digits() -> Observations:
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    return Observations(torch.tensor(x.reshape(-1, 8, 8) / 16, dtype=torch.float32), torch.tensor(labels))


def _published(name: str, root: Path | None) -> Data:
    if root is not None:
        for folder in (root, root / name):
            if find_idx(folder, "train", "images") is not None:
                return _from_idx(name, folder)
        raise FileNotFoundError(
            f"data_root: no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in {root} or {root / name}; "
            f"expected the IDX files of {name}"
        )
    packaged = PACKAGED.get(name)
    if packaged is not None and find_idx(packaged, "train", "images") is not None:
        return _from_idx(name, packaged)
    from sklearn.datasets import fetch_openml

    try:
        x, labels = fetch_openml(PUBLISHED[name], version=1, as_frame=False, return_X_y=True, parser="liac-arff")
    except Exception as error:
        # Whatever a download can fail with.
        raise OSError(
            f"data: {name} could not be fetched from openml.org ({type(error).__name__}: {error}); give the folder of "
            "its IDX files as data_root"
        ) from None
    images = torch.from_numpy(np.asarray(x, dtype=np.float32).reshape(-1, 28, 28) / 255)
    numbers = torch.from_numpy(np.asarray(labels).astype(np.int64))
    # The last 10,000 are those that were published to test on.
    return Data(name, images[:-10_000], images[-10_000:], numbers[-10_000:], numbers[:-10_000])


def _from_idx(name: str, folder: Path) -> Data:
    parts: list[Observations] = []
    for part in ("train", "t10k"):
        images, labels = find_idx(folder, part, "images"), find_idx(folder, part, "labels")
        if images is None:
            raise FileNotFoundError(f"data: no file {folder / part}-images-idx3-ubyte, gzipped or not; expected it too")
        x = _observations(images, read_idx(images))
        parts.append(Observations(x, None if labels is None else _labels(labels, read_idx(labels), len(x))[0]))
    train, test = parts
    if train.x.shape[1:] != test.x.shape[1:]:
        raise ValueError(f"data: {folder} has images {tuple(train.x.shape[1:])} to train on, and others to test on")
    return Data(name, train.x, test.x, test.labels, train.labels)


def _from_images(folder: Path) -> Observations:
    from PIL import Image

    files = sorted(_images_in(folder))
    if not files:
        raise FileNotFoundError(
            f"data: {folder} has no images; expected files {', '.join(IMAGE_SUFFIXES)}, or IDX files such as "
            "train-images-idx3-ubyte"
        )
    images: list[np.ndarray] = []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(_pixels(image))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"data: {file} cannot be read as an image ({error})") from None
        if images[-1].shape[:2] != images[0].shape[:2]:
            (h, w), (height, width) = images[-1].shape[:2], images[0].shape[:2]
            raise ValueError(f"data: {file} has {w} x {h} pixels, {files[0]} {width} x {height}; expected one size")
        kind, first = images[-1].dtype, images[0].dtype
        if kind != first:
            raise ValueError(f"data: {file} has pixels of {kind}, {files[0]} of {first}; expected one kind")
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, -1) for image in images]
        images = [np.moveaxis(image, -1, 0) for image in images]
    x = np.stack(images)
    if x.dtype == np.uint16:
        x = x / np.float32(65535)
    labels = np.array([str(file.parent.relative_to(folder)) for file in files])
    return Observations(_observations(folder, x), *_labels(folder, labels if len(set(labels)) > 1 else None, len(x)))


def _images_in(folder: Path) -> Iterator[Path]:
    """The files of images in a folder and its sub-folders, some of which may be links."""
    for at, _, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        here = Path(at)
        if here.resolve() in map(Path.resolve, here.parents):
            raise ValueError(f"data: {here} is a link to a folder that it is in; expected none, as it has no end")
        yield from (here / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def _unreadable(error: OSError) -> NoReturn:
    raise OSError(f"data: {error.filename} cannot be read ({error.strerror or error})") from None


def _pixels(image: Image.Image) -> np.ndarray:
    """Bytes, of one channel or three; for a file with more than a byte a pixel its numbers, of one channel."""
    if image.mode.startswith("I") or image.mode == "F":
        # PIL has the 16 bits of some files in 32.
        sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        return np.asarray(image).astype(np.uint16) if sixteen else np.asarray(image)
    # One byte a channel, whatever the palette; transparency is left out.
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _from_file(path: Path) -> Observations:
    if not path.is_file():
        raise FileNotFoundError(
            f"data: no file {path}; expected one of digits, {', '.join(PUBLISHED)}, or the path of a .npy, .npz or "
            ".csv file or of a folder"
        )
    if path.suffix == ".csv":
        x, texts = read_table("data", path, LABEL_COLUMNS)
        return Observations(_observations(path, x), *_labels(path, _numbers(texts), len(x)))
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                x, labels = content, None
            else:
                x, labels = _arrays(path, content)
    except OSError as error:
        raise OSError(f"data: {path} cannot be read ({error.strerror or error})") from None
    except (EOFError, zipfile.BadZipFile, ValueError) as error:
        if str(error).startswith("data"):
            raise
        raise ValueError(f"data: {path} is not a .npy or .npz file of numbers; expected one written by numpy") from None
    return Observations(_observations(path, x), *_labels(path, labels, len(x)))


def _arrays(path: Path, content: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
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
            f"data: {path} has shape {x.shape}; expected observations (n, d) or (n, ...), no dimension empty (of "
            "numbers, x[:, None])"
        )
    bad = int(np.count_nonzero(~np.isfinite(x)))
    if bad:
        raise ValueError(f"data: {path} has {bad} values that are NaN or infinite of {x.size}; expected finite numbers")
    if x.dtype == np.uint8 and x.max() == 1:
        warnings.warn(
            f"data: {path} has bytes of 0 and 1 only, which are scaled to 0 and 1/255; expected 0 and 255, or numbers "
            "that stay as they are, such as x.astype(bool)",
            stacklevel=4,
        )
    scaled = x / np.float32(255) if x.dtype == np.uint8 else x
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"data: {path} has values up to {np.abs(x).max():.3g}; expected numbers that fit float32")
    if len(x) > 1 and bool((tensor == tensor[0]).all()):
        raise ValueError(f"data: {path} has {len(x)} observations that are all the same; expected data that vary")
    return tensor


def _numbers(texts: list[str] | None) -> np.ndarray | None:
    """The numbers that texts are, or the texts where one of them is none: 01 is a name, and another one than 1."""
    if texts is None:
        return None
    cells = np.array(texts)
    if any(text[:1] == "0" and text[1:].isdigit() for text in texts):
        return cells
    try:
        return cells.astype(np.float64)
    except ValueError:
        return cells


def _labels(path: Path, labels: np.ndarray | None, n: int) -> tuple[Tensor | None, tuple[str, ...]]:
    """Whole numbers, and the names of their classes if they have any."""
    if labels is None:
        return None, ()
    if labels.shape == (n,) and labels.dtype.kind == "U":
        if missing := int((labels == "").sum()):
            raise ValueError(f"data: {path} has {missing} labels that are empty of {n}; expected one for each")
        classes, numbers = np.unique(labels, return_inverse=True)
        return torch.from_numpy(numbers), tuple(classes.tolist())
    if labels.shape == (n,) and labels.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            numbers = labels.astype(np.int64)
        # What is no whole number, or none of int64, infinities too, has become another number.
        if bool(np.all(numbers == labels)):
            return torch.from_numpy(numbers), ()
    raise ValueError(
        f"data: {path} has labels of shape {labels.shape} and dtype {labels.dtype}; expected ({n},) whole numbers that "
        "fit int64, or texts (of other labels, numpy.unique(labels, return_inverse=True)[1])"
    )
