r"""Matrices of distances among many measures, tile by tile.

The matrix :math:`D_{kl} = W(\mu_k, \nu_l)` is cut into square tiles, independent problems of about equal size.
Among the measures themselves it is symmetric, and only the tiles on and above the diagonal are computed. That one cut
serves everything that makes a large matrix bearable:

- **cores and clusters**: each tile is one joblib task that carries the measures of its rows and columns and nothing
  else. ``n_jobs`` means what it means in scikit-learn, and whatever backend ``joblib.parallel_config`` names takes over
  (``"dask"``, ``"ray"``);
- **streaming**: `pairwise_tiles` yields tiles as they are done, for matrices that are not to be held;
- **resuming**: with ``out=`` each tile goes into a .npy file and then into a record beside it, one line a tile. A
  computation that was interrupted goes on from there, with nothing done twice but the tiles that were under way.

joblib and tqdm come with the extra ``parallel``; one process without progress needs neither.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from otkit import empirical, gaussian
from otkit._arguments import Restore, as_tensors, require_count, require_finite, shape
from otkit.empirical._sliced import as_generator, random_directions
from otkit.gaussian._checks import require_covariance, require_gaussian

DISTANCES: dict[str, Callable[..., Any]] = {
    "wasserstein": empirical.wasserstein,
    "sliced_wasserstein": empirical.sliced_wasserstein,
    "max_sliced_wasserstein": empirical.max_sliced_wasserstein,
    "sinkhorn_cost": empirical.sinkhorn_cost,
    "gaussian_w2": gaussian.pairwise_w2,
}
"""What ``distance`` may be called, and the function that it names."""


class Tile(NamedTuple):
    """A block of a matrix of distances, and where it belongs: ``matrix[rows, columns] = block``."""

    rows: slice
    columns: slice
    block: np.ndarray


def pairwise_distances(
    measures: Any,
    others: Any = None,
    *,
    distance: str | Callable[[Any, Any], float] = "wasserstein",
    n_jobs: int | None = None,
    progress: bool = False,
    tile: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Any:
    r"""The matrix of distances among measures, or between measures and others.

    Distances are computed without gradients.

    Cost: that of :math:`N (N - 1) / 2` distances among N measures, or N·M to M others; memory O(N M), or O(tile²) with
    ``out``, beside the measures.

    Args:
        measures: What is compared. For distances between samples a sequence of point sets (n_k, d) of any sizes, or of
            pairs of points and weights (n_k,), where all weights have one sum and plain points have weights 1/n_k. For
            ``"gaussian_w2"`` the pair of means (N, d) and covariances (N, d, d), or a sequence of such pairs, as
            `otkit.gaussian.fit` gives them. For a function of your own a sequence of whatever it takes.
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
            tiles that they hold are not computed again, provided that measures, distance and options are the same.
        **options: Passed to the distance: p, reg, n_projections, generator and so on.

    Returns:
        The distances, with shape (N, N) or (N, M), in units of the data: NumPy for NumPy, torch for torch, and float64
        for a function of your own. With ``out``, a read-only ``numpy.memmap`` of the file.

    Raises:
        ValueError: No measures, other dimensions or masses, NaN among them or as a distance; an ``out`` that holds
            other distances, or that nothing is known about.
        TypeError: Arrays that are not floating point, or a distance that is not a number.
        ImportError: ``n_jobs`` or ``progress`` without the extra ``parallel``.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(20, 2))
        >>> print(pairwise_distances([x, x + [3.0, 4.0], x[:10] * 0.0], p=1).round(3))
        [[0.    5.    0.989]
         [5.    0.    5.001]
         [0.989 5.001 0.   ]]
    """
    problem = _problem(measures, others, distance, tile, options)
    if out is not None:
        with _Store(Path(out), problem) as store:
            for rows, columns, block in _tiles(problem, n_jobs, progress, store.done):
                store.add(rows, columns, block)
        return np.load(out, mmap_mode="r")
    matrix = np.empty(problem.shape, problem.dtype)
    for rows, columns, block in _tiles(problem, n_jobs, progress, frozenset()):
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
    return _tiles(_problem(measures, others, distance, tile, options), n_jobs, progress, frozenset())


Block = Callable[[Any, Any, bool], np.ndarray]
"""(the measures of the rows, those of the columns, whether they are the same) -> their distances."""


@dataclass(frozen=True)
class _Problem:
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

    def fingerprint(self) -> str:
        """What the distances depend on, in one number."""
        digest = hashlib.sha256()
        for part in _bytes((*self.inputs, self.left, self.right)):
            digest.update(part)
        return digest.hexdigest()


def _bytes(value: Any) -> Iterator[bytes]:
    """The content of a value, as bytes that are the same in every process."""
    if isinstance(value, torch.Tensor):
        value = value.numpy(force=True)
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, tuple | list):
        yield f"{len(value)} values".encode()
        for part in value:
            yield from _bytes(part)
    elif isinstance(value, _Gaussians):
        yield from _bytes((value.loc, value.cov))
    elif isinstance(value, dict):
        yield from _bytes(sorted(value.items()))
    else:
        try:
            yield pickle.dumps(value, protocol=5)
        except Exception as error:
            raise ValueError(
                f"out needs a name or a content to know {value!r} again when it resumes, and it cannot be pickled "
                f"({error}); expected a function that can be imported, and measures that can be pickled"
            ) from None


def _tiles(problem: _Problem, n_jobs: int | None, progress: bool, done: frozenset[tuple[int, int]]) -> Iterator[Tile]:
    corners = [corner for corner in problem.corners() if corner not in done]

    def tasks() -> Iterator[tuple[Any, ...]]:
        for i, j in corners:
            rows, columns = slice(i, i + problem.tile), slice(j, j + problem.tile)
            right = problem.left if problem.right is None else problem.right
            yield rows, columns, problem.block, problem.left[rows], right[columns], problem.right is None and i == j

    results = _run(tasks(), n_jobs)
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError('progress=True needs tqdm; install it with: pip install "otkit[parallel]"') from None
        before = len(problem.corners()) - len(corners)
        results = tqdm(results, total=len(corners) + before, initial=before, unit="tile")
    for tile in results:
        height, width = tile.block.shape
        rows, columns = tile.rows.start, tile.columns.start
        yield Tile(slice(rows, rows + height), slice(columns, columns + width), tile.block)


def _run(tasks: Iterator[tuple[Any, ...]], n_jobs: int | None) -> Iterator[Tile]:
    """Do the tasks in the order in which they are finished."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        raise ValueError(f"n_jobs is {n_jobs!r}; expected a whole number other than 0 (-1 for all cores), or None")
    try:
        import joblib
    except ImportError:
        if n_jobs in (None, 1):
            return (_compute(*task) for task in tasks)
        raise ImportError(f'n_jobs={n_jobs} needs joblib; install it with: pip install "otkit[parallel]"') from None
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    return parallel(joblib.delayed(_compute)(*task) for task in tasks)  # pyright: ignore[reportReturnType]


def _compute(rows: slice, columns: slice, block: Block, left: Any, right: Any, same: bool) -> Tile:
    return Tile(rows, columns, block(left, right, same))


@dataclass(frozen=True)
class _Loop:
    """A function of two measures, for each pair of a block."""

    distance: Callable[[Any, Any], Any]
    zero_on_diagonal: bool
    dtype: np.dtype[Any]

    def __call__(self, left: Any, right: Any, same: bool) -> np.ndarray:
        block = np.zeros((len(left), len(right)), self.dtype)
        for i, j in np.ndindex(*block.shape):
            if same and (i > j or (i == j and self.zero_on_diagonal)):
                block[i, j] = block[j, i]
            else:
                block[i, j] = self._number(self.distance(left[i], right[j]))
        return block

    @staticmethod
    def _number(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"distance returned {value!r} of type {type(value).__name__}; expected a number") from None
        if math.isnan(number):
            raise ValueError("distance returned NaN; expected a number")
        return number


@dataclass(frozen=True)
class _BetweenPoints:
    """A distance of this package between two pairs of points and weights."""

    name: str
    options: dict[str, Any]

    def __call__(self, left: tuple[np.ndarray, Any], right: tuple[np.ndarray, Any]) -> Any:
        (x, a), (y, b) = left, right
        return DISTANCES[self.name](x, y, a=a, b=b, validate=False, **self.options)


@dataclass(frozen=True)
class _Gaussians:
    """Means (N, d) and covariances (N, d, d), sliced together."""

    loc: np.ndarray
    cov: np.ndarray

    def __len__(self) -> int:
        return len(self.loc)

    def __getitem__(self, part: Any) -> _Gaussians:
        return _Gaussians(self.loc[part], self.cov[part])


def _between_gaussians(left: _Gaussians, right: _Gaussians, same: bool) -> np.ndarray:
    """The distances between all Gaussians of the rows and all of the columns."""
    others = () if same else (right.loc, right.cov)
    return gaussian.pairwise_w2(left.loc, left.cov, *others, validate=False)


def _problem(measures: Any, others: Any, distance: Any, tile: int | None, options: dict[str, Any]) -> _Problem:
    if isinstance(distance, str) and distance not in DISTANCES:
        raise ValueError(f"distance is {distance!r}; expected a function, or one of {', '.join(DISTANCES)}")
    if not isinstance(distance, str) and not callable(distance):
        raise TypeError(f"distance is {distance!r} of type {type(distance).__name__}; expected a name or a function")
    both = [("measures", measures)] if others is None else [("measures", measures), ("others", others)]
    for name, collection in both:
        if not isinstance(collection, Sequence | np.ndarray | torch.Tensor) or isinstance(collection, str):
            raise TypeError(f"{name} is a {type(collection).__name__}; expected a sequence of measures")
        if len(collection) == 0:
            raise ValueError(f"{name} is empty; expected at least one measure")

    restore: Restore | None = None
    device = None
    dtype = np.dtype(np.float64)
    block: Block
    if callable(distance):
        sides = [list(collection) for _, collection in both]
        call = functools.partial(distance, **options) if options else distance
        block = _Loop(call, zero_on_diagonal=False, dtype=dtype)
    elif distance == "gaussian_w2":
        if options:
            raise TypeError(f"{', '.join(options)}: not an option of gaussian_w2; expected none")
        read = [_gaussians(name, collection) for name, collection in both]
        sides, (restore, device) = [side for side, *_ in read], _one_kind(read)
        _require_same("dimension", [(n, s.loc.shape[-1]) for (n, _), s in zip(both, sides, strict=True)])
        block, dtype = _between_gaussians, sides[0].loc.dtype
    else:
        read = [_points(name, collection) for name, collection in both]
        sides, (restore, device) = [side for side, *_ in read], _one_kind(read)
        named = [(f"{n}[{k}]", one) for (n, _), side in zip(both, sides, strict=True) for k, one in enumerate(side)]
        _require_same("dimension", [(name, one[0].shape[-1]) for name, one in named])
        _require_same("mass", [(name, 1.0 if one[1] is None else float(one[1].sum())) for name, one in named],
                      rel=1e3 * restore.eps)  # fmt: skip
        options = _with_directions(distance, options, named[0][1][0])
        dtype = named[0][1][0].dtype
        block = _Loop(_BetweenPoints(distance, options), distance != "sinkhorn_cost", dtype)
    longest = max(len(side) for side in sides)
    return _Problem(
        left=sides[0],
        right=None if others is None else sides[1],
        block=block,
        tile=min(32, -(-longest // 8)) if tile is None else require_count("tile", tile),
        dtype=dtype,
        restore=restore,
        device=device,
        inputs=(distance, options),
    )


def _points(
    name: str, collection: Any
) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], Restore, torch.device | None]:
    """Point sets with their weights or None, checked once here so that no pair need be."""
    sides = []
    for k, measure in enumerate(collection):
        points, weights = measure if isinstance(measure, tuple) and len(measure) == 2 else (measure, None)
        here = f"{name}[{k}]"
        (x, a), restore = as_tensors(**{here: points, f"the weights of {here}": weights},
                                     optional=(f"the weights of {here}",))  # fmt: skip
        _require_no_gradient(here, x, a)
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{here} has shape {shape(x)}; expected points (n, d), or a tuple of points and weights")
        require_finite(here, x)
        if a is not None:
            if tuple(a.shape) != (len(x),):
                raise ValueError(f"the weights of {here} have shape {shape(a)}; expected ({len(x)},)")
            require_finite(f"the weights of {here}", a)
            if bool((a < 0).any()) or not bool((a > 0).any()):
                raise ValueError(f"the weights of {here} must not be negative, nor all zero; got {a.tolist()[:5]} ...")
        sides.append(((x.numpy(force=True), None if a is None else a.numpy(force=True)), restore, x.device))
    restore, device = _one_kind(sides)
    return [side for side, *_ in sides], restore, device


def _gaussians(name: str, collection: Any) -> tuple[_Gaussians, Restore, torch.device | None]:
    if isinstance(collection[0], tuple):
        collection = [np.stack(part) if isinstance(part[0], np.ndarray) else torch.stack(part)
                      for part in zip(*collection, strict=True)]  # fmt: skip
    if len(collection) != 2:
        raise ValueError(f"{name} has {len(collection)} parts; expected the pair of means (N, d) and covariances "
                         "(N, d, d), or a sequence of pairs")  # fmt: skip
    loc_name, cov_name = f"the means of {name}", f"the covariances of {name}"
    (loc, cov), restore = as_tensors(**{loc_name: collection[0], cov_name: collection[1]})
    _require_no_gradient(name, loc, cov)
    require_gaussian(loc_name, loc, cov_name, cov)
    if loc.ndim != 2 or cov.ndim != 3 or len(loc) != len(cov):
        raise ValueError(f"{loc_name} have shape {shape(loc)} and the covariances {shape(cov)}; expected (N, d) and "
                         "(N, d, d)")  # fmt: skip
    require_finite(loc_name, loc)
    require_covariance(cov_name, cov, restore.eps)
    return _Gaussians(loc.numpy(force=True), cov.numpy(force=True)), restore, loc.device


def _one_kind(read: Sequence[tuple[Any, Restore, torch.device | None]]) -> tuple[Restore, torch.device | None]:
    restores = {restore for _, restore, _ in read}
    if len(restores) > 1:
        kinds = ", ".join(f"{'torch' if r.to_torch else 'numpy'} {r.dtype}" for r in restores)
        raise TypeError(f"measures of one kind and dtype expected; got {kinds}")
    (restore,) = restores
    return restore, read[0][2] if restore.to_torch else None


def _require_no_gradient(name: str, *tensors: torch.Tensor | None) -> None:
    if any(t is not None and t.requires_grad for t in tensors):
        raise ValueError(f"{name} requires a gradient, and pairwise distances have none; expected {name}.detach()")


def _require_same(what: str, values: Sequence[tuple[str, float]], rel: float = 0.0) -> None:
    first_name, first = values[0]
    for name, value in values:
        if abs(value - first) > rel * first:
            raise ValueError(f"{name} has {what} {value:.12g} but {first_name} has {first:.12g}; expected the same")


def _with_directions(distance: str, options: dict[str, Any], points: np.ndarray) -> dict[str, Any]:
    """The options with directions drawn once, in place of a generator that each process would draw from anew."""
    options = dict(options)
    if "sliced" not in distance:
        return options
    source = as_generator(options.pop("generator", None) if options.get("generator") is not None else 0)
    if distance == "max_sliced_wasserstein":
        return options | {"generator": int(torch.randint(2**62, (), generator=source))}
    if options.get("projections") is None:
        directions, _ = random_directions(points.shape[-1], options.pop("n_projections", 256), source)
        options["projections"] = directions.numpy().astype(points.dtype)
    return options


class _Store:
    """A matrix in a .npy file, and a record of its finished tiles: a line of JSON for what it is, and one a tile.

    A tile is written to the matrix before it is written to the record, so what the record names is there, and a last
    line that was cut short names nothing.
    """

    def __init__(self, path: Path, problem: _Problem) -> None:
        self.path, self.record = path, path.with_name(path.name + ".tiles")
        self.symmetric = problem.right is None
        self.done: frozenset[tuple[int, int]] = frozenset()
        header = {"shape": problem.shape, "dtype": str(problem.dtype), "tile": problem.tile,
                  "fingerprint": problem.fingerprint()}  # fmt: skip
        if path.exists():
            self.done = self._finished_tiles(json.loads(json.dumps(header)))
        else:
            self._create(problem, header)
        self.matrix = np.lib.format.open_memmap(path, mode="r+")
        self.lines = self.record.open("a")

    def _finished_tiles(self, expected: dict[str, Any]) -> frozenset[tuple[int, int]]:
        remedy = f"delete {self.path} and {self.record.name}, or choose another out"
        if not self.record.exists():
            raise ValueError(f"out: {self.path} exists without a record {self.record.name} of what it holds; {remedy}")
        lines = self.record.read_text().split("\n")
        header = json.loads(lines[0])
        for key, value in expected.items():
            if header.get(key) != value:
                what = "of other measures, or of another distance or its options" if key == "fingerprint" else (
                    f"with {key} {header.get(key)} where this has {value}")  # fmt: skip
                raise ValueError(f"out: {self.path} holds distances {what}; {remedy}")
        # What follows the last line end was cut short; a line end keeps it from running into the next line.
        if lines[-1]:
            with self.record.open("a") as record:
                record.write("\n")
        return frozenset((row, column) for row, column in map(_corner, lines[1:-1]) if row >= 0)

    def _create(self, problem: _Problem, header: dict[str, Any]) -> None:
        # Under another name until it is whole; NaN is what was not computed.
        whole = self.path.with_name(self.path.name + ".new")
        matrix = np.lib.format.open_memmap(whole, mode="w+", dtype=problem.dtype, shape=problem.shape)
        matrix[:] = np.nan
        matrix.flush()
        del matrix
        self.record.write_text(json.dumps(header) + "\n")
        whole.replace(self.path)

    def add(self, rows: slice, columns: slice, block: np.ndarray) -> None:
        """Write a tile, and its transpose where the matrix is symmetric."""
        self.matrix[rows, columns] = block
        if self.symmetric:
            self.matrix[columns, rows] = block.T
        self.matrix.flush()
        self.lines.write(f"{rows.start} {columns.start}\n")
        self.lines.flush()

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()


def _corner(line: str) -> tuple[int, int]:
    """The row and column of a line of the record, or (-1, -1) for one that was cut short."""
    words = line.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and all(map(str.isdigit, words)) else (-1, -1)
