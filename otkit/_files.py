"""Points and weights from .npy, .npz and .csv files, with errors that name the file and what is wrong in it."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def named_sets(name: str, file: str) -> list[tuple[str, np.ndarray]]:
    """The named sets of points that a file holds, for the argument of this name."""
    path, key = _split(file)
    if path.suffix == ".npz" and key is None:
        with _archive(name, path) as archive:
            arrays = [(f"{path}:{key}", _member(name, path, archive, key)) for key in archive.files]
    else:
        arrays = [(file, _array(name, file))]
    return [one for of, array in arrays for one in _parts(of, array)]


def _parts(of: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if array.ndim == 3 and len(array) == 0:
        raise ValueError(f"{of} has shape {array.shape}; expected at least one set of points (N, n, d)")
    if array.ndim == 3:
        return [(f"{of}[{k}]", part) for k, part in enumerate(array)]
    return [(of, _as_points(of, array))]


def points_of(name: str, file: str) -> np.ndarray:
    """The points (n, d) of a file, for the argument of this name."""
    return _as_points(f"{name} ({file})", _array(name, file))


def _as_points(name: str, points: np.ndarray) -> np.ndarray:
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2:
        raise ValueError(f"{name} has shape {points.shape}; expected points (n, d) or (n,)")
    return points


def require_one_order(files: Sequence[str]) -> None:
    """Raise if .csv files have the same columns, by their headers, in different orders."""
    known: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for file in files:
        header = _header(Path(file))
        first, order = known.setdefault(tuple(sorted(header)), (file, header))
        if header != order:
            raise ValueError(
                f"{file} has the columns {', '.join(header)}, and {first} has {', '.join(order)}; expected one order"
            )


def weights_of(name: str, file: str | None, of: str) -> np.ndarray | None:
    """The weights (n,) that belong to the points of the file ``of``: a file, or an array beside them in its .npz."""
    if file is None:
        return None
    path, _ = _split(of)
    if path.suffix == ".npz" and path.is_file() and not Path(file).exists():
        with _archive(name, path) as archive:
            file = f"{path}:{file}" if file in archive.files else file
    weights = _array(name, file)
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.ndim != 1:
        raise ValueError(f"{name} ({file}) has shape {weights.shape}; expected weights (n,)")
    return weights


def weights_for(files: list[str], named: list[tuple[str, np.ndarray]]) -> list[np.ndarray]:
    """The weights (n,) of named sets of points, in their order: a file for each, or files that hold several."""
    found = [one for file in files for one in named_sets("--weights", file)]
    if len(found) != len(named):
        raise ValueError(f"--weights holds {len(found)} sets for {len(named)} sets of points; expected one for each")
    for (name, weights), (of, points) in zip(found, named, strict=True):
        if weights.shape != (len(points), 1):
            raise ValueError(f"weights {name} have shape {weights.shape}; expected ({len(points)},), as {of}")
    return [weights[:, 0] for _, weights in found]


def _split(file: str) -> tuple[Path, str | None]:
    """The path, and the name of an array after ``.npz:``."""
    path, separator, key = file.rpartition(".npz:")
    return (Path(path + ".npz"), key) if separator else (Path(file), None)


def _array(name: str, file: str) -> np.ndarray:
    path, key = _split(file)
    if path.suffix == ".npz":
        with _archive(name, path) as archive:
            keys = archive.files
            if key is None and len(keys) > 1:
                raise ValueError(f"{name}: {path} holds {len(keys)} arrays ({', '.join(keys)}); expected {path}:NAME")
            if key is not None and key not in keys:
                raise ValueError(f"{name}: {path} holds no array {key}; expected one of {', '.join(keys)}")
            return _member(name, path, archive, keys[0] if key is None else key)
    return read_table(name, path)[0] if path.suffix == ".csv" else _numbers(f"{name}: {path}", _load(name, path))


def _archive(name: str, path: Path) -> np.lib.npyio.NpzFile:
    """A .npz file, of which no array is read yet."""
    archive = _load(name, path)
    if not archive.files:
        raise ValueError(f"{name}: {path} holds no arrays; expected at least one")
    return archive


def _member(name: str, path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    where = f"{name}: {path}:{key}"
    try:
        array = archive[key]
    except (ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{where} cannot be read as an array of numbers ({error})") from None
    return _numbers(where, array)


def _load(name: str, path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no file {path}; expected a .npy, .npz or .csv file")
    if path.suffix not in {".npy", ".npz"}:
        raise ValueError(f"{name}: {path} ends in {path.suffix or 'nothing'}; expected a .npy, .npz or .csv file")
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise OSError(f"{name}: {path} cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{name}: {path} is not a {path.suffix} file of numbers, as NumPy writes them") from None
    if isinstance(loaded, np.ndarray) == (path.suffix == ".npz"):
        raise ValueError(f"{name}: {path} is not a {path.suffix} file, whatever its name says")
    return loaded


def _numbers(where: str, array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray):  # what is in the zip file without being an array
        raise ValueError(f"{where} is not an array, as NumPy writes them; expected numbers")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where} has dtype {array.dtype}; expected numbers")
    return array.astype(np.float64)


def read_table(name: str, path: Path, apart: Sequence[str] = ()) -> tuple[np.ndarray, list[str] | None]:
    """The numbers (n, d) of a .csv file; its first line is a header if no cell of it is a number.

    Args:
        name: The argument that the file is for.
        path: The file.
        apart: Names for a column that need not be of numbers: the first that has one is not among them.

    Returns:
        The numbers, and the cells of that column without the blanks around them, None if there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no file {path}; expected a .npy, .npz or .csv file")
    rows: list[list[float]] = []
    texts: list[str] = []
    at = width = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            for first, cells in enumerate(cells for cells in reader if cells):
                if first == 0 and _is_header(cells):
                    at = next((k for k, cell in enumerate(cells) if cell.strip().lower() in apart), None)
                    width = len(cells) if at is not None else None
                    continue
                width = width or len(cells)
                if len(cells) != width:
                    raise ValueError(f"line {reader.line_num} has {len(cells)} cells; expected {width}")
                for column, cell in enumerate(cells, start=1):
                    if column - 1 != at and not _is_number(cell):
                        found = f"line {reader.line_num}, column {column} is {cell!r}; expected a number"
                        if apart and at is None:
                            found += f", or a header that calls the column {' or '.join(apart)}"
                        raise ValueError(found)
                if at is not None:
                    texts.append(cells.pop(at).strip())
                rows.append([float(cell) for cell in cells])
    except OSError as error:
        raise OSError(f"{name}: {path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path} is not text in UTF-8 ({error}); expected numbers and commas") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{name}: {path}: {error}") from None
    if not rows:
        raise ValueError(f"{name}: {path} holds no line of numbers separated by commas")
    return np.array(rows), None if at is None else texts


def _header(path: Path) -> list[str]:
    """The names of the columns of a .csv file that has been read; none where it, or its header, is not there."""
    if path.suffix != ".csv":
        return []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        cells = next(cells for cells in csv.reader(lines) if cells)
    return [cell.strip() for cell in cells] if _is_header(cells) else []


def _is_header(cells: Sequence[str]) -> bool:
    return not any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
