"""A matrix in a file, with which an interrupted computation can go on."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

from otkit._convergence import warn
from otkit.pairwise._blocks import Gaussians
from otkit.pairwise._tiles import Problem, Tile


class Store:
    """A matrix in a .npy file, and a record of its finished tiles: a line of JSON on what it is, and one per tile.

    The line of a tile is its row, its column, and 1, or 0 where a distance did not converge. A tile is written to the
    matrix before it is written to the record, so what the record names is there, and a line that was cut short names
    nothing.
    """

    def __init__(self, path: Path, problem: Problem) -> None:
        self.path, self.record = path, path.with_name(path.name + ".tiles")
        self.remedy = f"delete {self.path} and {self.record.name}, or choose another out"
        self.symmetric = problem.right is None
        self.done: frozenset[tuple[int, int]] = frozenset()
        header = {"shape": problem.shape, "dtype": str(problem.dtype), "tile": problem.tile,
                  "fingerprint": _fingerprint(problem)}  # fmt: skip
        if path.exists():
            self.done = self._finished_tiles(json.loads(json.dumps(header)))
        else:
            self._create(problem, header)
        try:
            # Opened only to be read, it is not made longer where its end is missing.
            held = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise ValueError(f"out: {path} is damaged ({error}); {self.remedy}") from None
        if (held.shape, held.dtype) != (problem.shape, problem.dtype):
            raise ValueError(f"out: {path} is not what {self.record.name} says that it is; {self.remedy}")
        self.matrix = np.lib.format.open_memmap(path, mode="r+")
        self.lines = self.record.open("a")

    def _finished_tiles(self, expected: dict[str, Any]) -> frozenset[tuple[int, int]]:
        if not self.record.exists():
            raise ValueError(
                f"out: {self.path} exists without a record {self.record.name} of what it holds; {self.remedy}"
            )
        lines = self.record.read_text(errors="replace").split("\n")
        try:
            header = dict(json.loads(lines[0]))
        except (ValueError, TypeError):
            raise ValueError(f"out: {self.record} is damaged, its first line is not a record; {self.remedy}") from None
        for key, value in expected.items():
            if header.get(key) != value:
                what = "of other measures, or of another distance or its options" if key == "fingerprint" else (
                    f"with {key} {header.get(key)} where this has {value}")  # fmt: skip
                raise ValueError(f"out: {self.path} holds distances {what}; {self.remedy}")
        # What follows the last line end was cut short; a line end keeps it from running into the next line.
        if lines[-1]:
            with self.record.open("a") as record:
                record.write("\n")
        found = [line for line in map(re.compile(r"(\d+) (\d+) ([01])").fullmatch, lines[1:-1]) if line]
        converged = {(int(line[1]), int(line[2])): line[3] == "1" for line in found}
        if missed := sum(not each for each in converged.values()):
            warn(
                f"out: {self.path} holds distances that did not converge when they were computed, in {missed} of its "
                f"{len(converged)} finished tiles; choose another out, and options with which they do"
            )
        return frozenset(converged)

    def _create(self, problem: Problem, header: dict[str, Any]) -> None:
        # Under another name until it is whole; NaN is what was not computed.
        whole = self.path.with_name(self.path.name + ".new")
        matrix = np.lib.format.open_memmap(whole, mode="w+", dtype=problem.dtype, shape=problem.shape)
        for name in problem.dtype.names or (...,):
            matrix[name] = np.nan if matrix[name].dtype.kind == "f" else False
        matrix.flush()
        del matrix
        self.record.write_text(json.dumps(header) + "\n")
        whole.replace(self.path)

    def add(self, tile: Tile, converged: bool) -> None:
        """Write a tile, and its transpose where the matrix is symmetric."""
        rows, columns, block = tile
        self.matrix[rows, columns] = block
        if self.symmetric:
            self.matrix[columns, rows] = block.T
        self.matrix.flush()
        self.lines.write(f"{rows.start} {columns.start} {int(converged)}\n")
        self.lines.flush()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()


def _fingerprint(problem: Problem) -> str:
    """What the distances depend on, as one number."""
    digest = hashlib.sha256()
    for part in _content((*problem.inputs, problem.left, problem.right)):
        digest.update(part)
    return digest.hexdigest()


def _content(value: Any) -> Iterator[bytes]:
    """The content of a value, as bytes that are the same in every process, and for 2 and 2.0."""
    if isinstance(value, torch.Tensor):
        value = value.numpy(force=True)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, tuple | list):
        yield f"{len(value)} values".encode()
        for part in value:
            yield from _content(part)
    elif isinstance(value, Gaussians):
        yield from _content((value.loc, value.cov))
    elif isinstance(value, dict):
        yield from _content(sorted(value.items()))
    elif isinstance(value, functools.partial):
        yield from _content((value.func, value.args, value.keywords))
    else:
        if isinstance(value, FunctionType):
            yield from _code(value.__code__)
            yield from _content((value.__defaults__, value.__kwdefaults__))
        try:
            yield pickle.dumps(value, protocol=5)
        except Exception as error:
            raise ValueError(
                f"out needs a name or a content to know {value!r} again when it resumes, and it cannot be pickled "
                f"({error}); expected a function that can be imported, and measures that can be pickled"
            ) from None


def _code(code: CodeType) -> Iterator[bytes]:
    """What a function does, as bytes: without the text of comments, and without that of the functions it calls."""
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:  # the order of a set is another in every process
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode()
