"""The two public functions: the whole matrix, and its tiles one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otkit.pairwise._problem import problem_of
from otkit.pairwise._room import require_room_for_matrix
from otkit.pairwise._store import Store
from otkit.pairwise._tiles import Tile, tiles_of


def pairwise_distances(
    measures: Any,
    others: Any = None,
    *,
    distance: str | Callable[[Any, Any], float] = "wasserstein",
    n_jobs: int | None = None,
    progress: bool = False,
    tile: int | None = None,
    out: str | Path | None = None,
    bounds: bool = False,
    **options: Any,
) -> Any:
    r"""The matrix of distances among measures, or between measures and others.

    Distances are computed without gradients.

    Cost: that of :math:`N (N - 1) / 2` distances among N measures, or N·M to M others; memory O(N M), or O(tile²) with
    ``out``, besides the measures.

    Args:
        measures: What is compared. For distances between samples, a sequence of point sets (n_k, d) of any sizes, or of
            pairs of points and weights (n_k,), where all weights have the same sum and plain points have weights 1/n_k.
            For ``"gaussian_w2"``, the pair of means (N, d) and covariances (N, d, d), or a sequence of such pairs, as
            `otkit.gaussian.fit` gives them. For a function of your own, a sequence of whatever it takes.
        others: The measures of the columns; None for the distances among ``measures``.
        distance: ``"wasserstein"`` (exact), ``"sliced_wasserstein"`` (on the same directions for all pairs, those of
            seed 0 unless ``generator`` says otherwise), ``"max_sliced_wasserstein"``, ``"sinkhorn_cost"`` (not 0 on the
            diagonal), ``"gaussian_w2"``; or a function of two measures that returns a number, symmetric if ``others``
            is None, and importable by name or picklable where other processes are to run it.
        n_jobs: The number of processes, as in scikit-learn: None for 1 (or what ``joblib.parallel_config`` says), -1
            for as many as there are cores.
        progress: Whether to show a bar that counts tiles.
        tile: The side of a tile; by default 32, or less so that there are several to share.
        out: A .npy file to hold the matrix, with a record ``<out>.tiles`` beside it. Where both are there already, the
            tiles that they hold are not computed again, provided that measures, distance and options are the same. A
            function of your own is known by its name and by its code, not by that of the functions it calls.
        bounds: Whether each entry says how much of it is certain: for ``"wasserstein"`` and ``"sinkhorn_cost"``, the
            result is then a structured array with the fields distance, lower_bound and upper_bound (of the exact
            distance, or of the exact cost beside an entropic one) and converged.
        **options: Passed to the distance: p, reg, n_projections, generator and so on.

    Returns:
        The distances, with shape (N, N) or (N, M), in units of the data: NumPy for NumPy, torch for torch, and float64
        for a function of your own. With ``out``, a read-only ``numpy.memmap`` of the file.

    Raises:
        ValueError: No measures, dimensions or masses that differ, NaN in a measure or as a distance; an ``out`` that
            holds other distances, or that nothing is known about.
        TypeError: Arrays that are not floating point, or a distance that is not a number.
        MemoryError: More measures, or distances without ``out``, than this machine has memory for; found before the
            first distance.
        OSError: More distances than the disk of ``out`` has room for.
        ImportError: ``n_jobs`` or ``progress`` without the extra ``parallel``.

    Warns:
        ConvergenceWarning: A distance was not found to its tolerance, in this process, in another, or before the
            computation of ``out`` was interrupted.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(20, 2))
        >>> print(pairwise_distances([x, x + [3.0, 4.0], x[:10] * 0.0], p=1).round(3))
        [[0.    5.    0.989]
         [5.    0.    5.001]
         [0.989 5.001 0.   ]]
    """
    problem = problem_of(measures, others, distance, tile, bounds, options)
    require_room_for_matrix(problem.shape, problem.dtype, None if out is None else Path(out))
    if out is not None:
        with Store(Path(out), problem) as store:
            for finished, converged in tiles_of(problem, n_jobs, progress, store.done):
                store.add(finished, converged)
        return np.load(out, mmap_mode="r")
    matrix = np.empty(problem.shape, problem.dtype)
    for (rows, columns, block), _ in tiles_of(problem, n_jobs, progress, frozenset()):
        matrix[rows, columns] = block
        if problem.right is None:
            matrix[columns, rows] = block.T
    return problem.restore(torch.from_numpy(matrix).to(problem.device)) if problem.restore else matrix


def pairwise_tiles(
    measures: Any,
    others: Any = None,
    *,
    distance: str | Callable[[Any, Any], float] = "wasserstein",
    n_jobs: int | None = None,
    progress: bool = False,
    tile: int | None = None,
    bounds: bool = False,
    **options: Any,
) -> Iterator[Tile]:
    """The matrix of `pairwise_distances`, one `Tile` after the other as they are done, in any order.

    Among the measures themselves only tiles on and above the diagonal come: those below are their transposes. Blocks
    are NumPy arrays. Arguments and errors are those of `pairwise_distances`.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(4, 20, 2))
        >>> for rows, columns, block in pairwise_tiles(list(x), tile=2):
        ...     print(rows, columns, block.shape)
        slice(0, 2, None) slice(0, 2, None) (2, 2)
        slice(0, 2, None) slice(2, 4, None) (2, 2)
        slice(2, 4, None) slice(2, 4, None) (2, 2)
    """
    problem = problem_of(measures, others, distance, tile, bounds, options)
    return (tile for tile, _ in tiles_of(problem, n_jobs, progress, frozenset()))
