"""A matrix of distances cut into tiles, and the tiles done by joblib."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from otkit._arguments import Restore
from otkit._convergence import ConvergenceWarning, noted_failures, warn


class Tile(NamedTuple):
    """A block of a matrix of distances, and where it belongs: ``matrix[rows, columns] = block``."""

    rows: slice
    columns: slice
    block: np.ndarray


Block = Callable[[Any, Any, bool], np.ndarray]
"""(the measures of the rows, those of the columns, whether they are the same) -> their distances."""


@dataclass(frozen=True)
class Problem:
    """What is to be computed: sequences of measures, which may be sliced, and the distances of a block of them."""

    left: Any
    right: Any | None
    block: Block
    tile: int
    dtype: np.dtype[Any]
    restore: Restore | None
    device: torch.device | None
    inputs: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), len(self.left if self.right is None else self.right)

    def corners(self) -> list[tuple[int, int]]:
        """Where the tiles begin."""
        starts = [range(0, length, self.tile) for length in self.shape]
        return [(i, j) for i, j in itertools.product(*starts) if self.right is not None or i <= j]


def tiles_of(
    problem: Problem, n_jobs: int | None, progress: bool, done: frozenset[tuple[int, int]]
) -> Iterator[tuple[Tile, bool]]:
    """The tiles that are not done, and whether all distances of each converged."""
    corners = [corner for corner in problem.corners() if corner not in done]

    def tasks() -> Iterator[tuple[Any, ...]]:
        for i, j in corners:
            rows, columns = slice(i, i + problem.tile), slice(j, j + problem.tile)
            right = problem.left if problem.right is None else problem.right
            same = problem.right is None and i == j
            yield os.getpid(), rows, columns, problem.block, problem.left[rows], right[columns], same

    results = _run(tasks(), n_jobs)
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError('progress=True needs tqdm; install it with: pip install "otkit[parallel]"') from None
        before = len(problem.corners()) - len(corners)
        results = tqdm(results, total=len(corners) + before, initial=before, unit="tile")
    for tile, failures, here in results:
        if not here:
            for message in dict.fromkeys(failures):
                warn(message)
        height, width = tile.block.shape
        rows, columns = tile.rows.start, tile.columns.start
        yield Tile(slice(rows, rows + height), slice(columns, columns + width), tile.block), not failures


def _run(tasks: Iterator[tuple[Any, ...]], n_jobs: int | None) -> Iterator[tuple[Tile, list[str], bool]]:
    """Do the tasks in the order in which they are finished."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or n_jobs == 0):
        raise ValueError(f"n_jobs is {n_jobs!r}; expected a whole number other than 0 (-1 for all cores), or None")
    try:
        import joblib
    except ImportError:
        if n_jobs in (None, 1):
            return (_compute(*task) for task in tasks)
        raise ImportError(f'n_jobs={n_jobs} needs joblib; install it with: pip install "otkit[parallel]"') from None
    parallel = joblib.Parallel(n_jobs=None if n_jobs is None else int(n_jobs), return_as="generator_unordered")
    return parallel(joblib.delayed(_compute)(*task) for task in tasks)  # pyright: ignore[reportReturnType]


def _compute(
    home: int, rows: slice, columns: slice, block: Block, left: Any, right: Any, same: bool
) -> tuple[Tile, list[str], bool]:
    """A tile, what did not converge, and whether that was warned of here; elsewhere nobody would have seen it."""
    here = os.getpid() == home
    with contextlib.ExitStack() as stack:
        if not here:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", ConvergenceWarning)
        failures = stack.enter_context(noted_failures())
        tile = Tile(rows, columns, block(left, right, same))
    return tile, failures, here
