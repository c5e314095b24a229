"""The ``otkit`` command: distances between files of points."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
import warnings
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

EXAMPLES = """\
examples:
  otkit distance x.npy y.csv                           exact W_2
  otkit distance x.npy y.npy --p 1 --json              exact W_1, with sizes, units and seconds
  otkit distance x.npy y.npy --method sinkhorn --reg 0.1   the regularised cost (not its root)
  otkit distance x.npy y.npy --method sliced --seed 0  sliced W_2 on the directions of seed 0
  otkit distance x.npy y.npy --method gaussian         W_2 of the Gaussians fitted to the two samples
  otkit distance data.npz:codes y.npy --a weights      the array codes of data.npz, weighted by its array weights
"""

PAIRWISE_EXAMPLES = """\
examples:
  otkit pairwise a.npy b.npy c.csv                     the matrix as CSV, a line and a column for each file
  otkit pairwise samples.npz --jobs -1 --progress      each array of the .npz is a set of points; all cores
  otkit pairwise *.npy --out distances.npy             into a file, tile by tile
  otkit pairwise *.npy --out distances.npy --resume    go on where that was interrupted
"""

METHODS = {
    "exact": "wasserstein",
    "sinkhorn": "sinkhorn_cost",
    "sliced": "sliced_wasserstein",
    "gaussian": "gaussian_w2",
}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line on stderr, with exit status 2."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (those of the process by default); return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        # Imported only now: torch takes seconds to load, and --help should not.
        from otkit import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ConvergenceWarning)
            try:
                answer = options.run(options)
            except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
                print(f"otkit: error: {' '.join(str(error).split())}", file=sys.stderr)
                return 2
    except KeyboardInterrupt:
        print("otkit: interrupted", file=sys.stderr)
        return 130
    for warning in caught:
        print(f"otkit: warning: {warning.message}", file=sys.stderr)
    print(answer)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="otkit", description="Optimal transport distances.")
    parser.add_argument("--version", action="version", version=f"otkit {metadata.version('otkit')}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    file = "a .npy, .npz or .csv file of points, with shape (n, d), or (n,) in one dimension; FILE.npz:NAME for one of several arrays"  # fmt: skip  # noqa: E501

    distance = commands.add_parser(
        "distance",
        help="the distance between two sets of points",
        description="The Wasserstein distance between two sets of points, uniformly weighted unless --a or --b "
        "says otherwise. Prints one number.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    distance.set_defaults(run=_distance)
    distance.add_argument("x", help=file)
    distance.add_argument("y", help="the same, with shape (m, d) or (m,)")
    weights = "weights of {0}, with shape ({1},): a file, or the name of an array where {0} is a .npz file"
    distance.add_argument("--a", help=weights.format("x", "n"))
    distance.add_argument("--b", help=weights.format("y", "m") + "; of the same sum")

    pairwise = commands.add_parser(
        "pairwise",
        help="the matrix of distances among many sets of points",
        description="The matrix of distances among sets of points: one a file, or one for each array of a .npz file, "
        "or for each part of a .npy file with shape (N, n, d). Prints CSV, or writes a file.",
        epilog=PAIRWISE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pairwise.set_defaults(run=_pairwise)
    pairwise.add_argument("x", nargs="+", help="files of points")
    pairwise.add_argument("--jobs", type=int, help="processes to share the work, -1 for all cores (default 1)")
    pairwise.add_argument("--out", type=Path, help="a .npy file for the matrix; interrupted, it can be resumed")
    pairwise.add_argument("--resume", action="store_true", help="go on with the --out of an interrupted run")
    pairwise.add_argument("--progress", action="store_true", help="show a bar on stderr")

    for command in (distance, pairwise):
        command.add_argument(
            "--method", choices=list(METHODS), default="exact", help="exact (default); sinkhorn: the cost "
            "min <P,M> + reg KL(P|a×b), M = |x-y|^p; sliced: the mean over directions; gaussian: of fitted Gaussians",
        )  # fmt: skip
        command.add_argument("--p", type=float, default=2.0, help="the exponent p >= 1 of the distance (default 2)")
        command.add_argument("--reg", type=float, help="sinkhorn's reg > 0, absolute, in the units of |x-y|^p")
        command.add_argument("--n-projections", type=int, help="the number of sliced's directions (default 256)")
        command.add_argument("--seed", type=int, help="the seed of sliced's directions (default 0)")
        command.add_argument("--json", action="store_true", help="print a JSON object that says more")
    distance.add_argument(
        "--reg-relative", type=float, help="sinkhorn's reg as a multiple of the mean of |x-y|^p over all pairs"
    )
    return parser


def _method_options(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword options of the method, and an error for those that belong to another."""
    belongs = {"reg": "sinkhorn", "reg_relative": "sinkhorn", "n_projections": "sliced", "seed": "sliced"}
    for name, method in belongs.items():
        if getattr(options, name, None) is not None and options.method != method:
            raise ValueError(f"--{name.replace('_', '-')} is an option of --method {method}, not of {options.method}")
    if options.method == "gaussian":
        if options.p != 2:
            raise ValueError("--method gaussian is W_2; expected --p 2")
        return {}
    if options.method == "sliced":
        count = 256 if options.n_projections is None else options.n_projections
        return {"p": options.p, "n_projections": count, "generator": options.seed or 0}
    if options.method == "sinkhorn":
        if options.reg is None and getattr(options, "reg_relative", None) is None:
            raise ValueError("--method sinkhorn needs --reg")
        if options.reg is not None and getattr(options, "reg_relative", None) is not None:
            raise ValueError("--reg and --reg-relative exclude each other; expected one")
        return {"p": options.p, "reg": options.reg}
    return {"p": options.p}


def _distance(options: argparse.Namespace) -> str:
    chosen = _method_options(options)
    x, y = _points("x", options.x), _points("y", options.y)
    a, b = _weights("a", options.a, options.x), _weights("b", options.b, options.y)
    report = _report(x, y, a, b, options, chosen)
    return json.dumps(report) if options.json else repr(report["value"])


def _report(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None,
    b: np.ndarray | None,
    options: argparse.Namespace,
    chosen: dict[str, Any],
) -> dict[str, Any]:
    """What ``--json`` prints: the one place where numbers are computed and named."""
    from otkit import empirical, gaussian

    start = time.perf_counter()
    extra: dict[str, Any] = {}
    units = "data"
    if options.method == "gaussian":
        if a is not None or b is not None:
            raise ValueError("--method gaussian is for uniformly weighted samples; expected no --a or --b")
        value = gaussian.w2(*_fit("x", x), *_fit("y", y))
    elif options.method == "sinkhorn":
        if options.reg_relative is not None:
            chosen["reg"] = options.reg_relative * _mean_cost(x, y, a, b, options.p)
        value = empirical.sinkhorn_cost(x, y, a=a, b=b, **chosen)
        extra, units = {"reg": chosen["reg"]}, f"data^{options.p:g}"
    elif options.method == "sliced":
        value, error = empirical.sliced_wasserstein(x, y, a=a, b=b, return_error=True, **chosen)
        extra = {"standard_error": float(error), "n_projections": chosen["n_projections"], "seed": chosen["generator"]}
    else:
        value = empirical.wasserstein(x, y, a=a, b=b, **chosen)
    sizes = {"n": len(x), "m": len(y), "d": x.shape[1], "p": options.p}
    timing = {"seconds": time.perf_counter() - start}
    return {"method": options.method, "value": _finite(value), "units": units, **extra, **sizes, **timing}


def _mean_cost(x: np.ndarray, y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None, p: float) -> float:
    """The mean of |x - y|^p over all pairs, a row at a time."""
    rows = [np.average(np.linalg.norm(point - y, axis=-1) ** p, weights=b) for point in x]
    return float(np.average(rows, weights=a))


def _pairwise(options: argparse.Namespace) -> str:
    chosen = _method_options(options)
    out = options.out
    if options.resume and out is None:
        raise ValueError("--resume goes on with a file; expected --out as well")
    if out is not None and out.suffix != ".npy":
        raise ValueError(f"--out is {out}; expected a .npy file")
    if out is not None and out.exists() and not options.resume:
        raise ValueError(f"--out {out} exists; expected --resume to go on with it, or another name")
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"--out is {out}; expected an existing folder, and there is no {out.parent}")
    named = [one for file in options.x for one in _sets(file)]
    measures: list[Any] = [points for _, points in named]
    if options.method == "gaussian":
        measures = [_fit(name, points) for name, points in named]

    from otkit import pairwise_distances

    start = time.perf_counter()
    matrix = pairwise_distances(
        measures,
        distance=METHODS[options.method],
        n_jobs=options.jobs,
        progress=options.progress,
        out=out,
        **chosen,
    )
    names = [name for name, _ in named]
    if options.json:
        units = f"data^{options.p:g}" if options.method == "sinkhorn" else "data"
        report = {"method": options.method, "units": units, "p": options.p, "names": names}
        report |= {"seconds": time.perf_counter() - start}
        report |= {"distances": matrix.tolist()} if out is None else {"out": str(out)}
        return json.dumps(report)
    if out is not None:
        return f"{out}: {len(names)} x {len(names)} distances"
    lines = [["", *names], *([name, *map(repr, row)] for name, row in zip(names, matrix.tolist(), strict=True))]
    return "\n".join(",".join(f'"{c}"' if "," in c else c for c in line) for line in lines)


def _fit(name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from otkit import gaussian

    if len(points) < 2:
        raise ValueError(f"{name} has {len(points)} points; expected at least 2 to fit a Gaussian")
    return gaussian.fit(points)


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the result is {value}; expected data that float64 can hold to the power p (scale them)")
    return float(value)


def _sets(file: str) -> list[tuple[str, np.ndarray]]:
    """The named sets of points that a file holds."""
    path, key = _split(file)
    if path.suffix == ".npz" and key is None:
        return [(f"{file}:{key}", _as_points(file, array)) for key, array in _archive("x", path).items()]
    array = _array("x", file)
    if array.ndim == 3:
        return [(f"{file}[{k}]", part) for k, part in enumerate(array)]
    return [(file, _as_points(file, array))]


def _points(name: str, file: str) -> np.ndarray:
    return _as_points(f"{name} ({file})", _array(name, file))


def _as_points(name: str, points: np.ndarray) -> np.ndarray:
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2:
        raise ValueError(f"{name} has shape {points.shape}; expected points (n, d) or (n,)")
    return points


def _weights(name: str, file: str | None, of: str) -> np.ndarray | None:
    if file is None:
        return None
    path, _ = _split(of)
    if path.suffix == ".npz" and path.is_file() and not Path(file).exists() and file in _archive(name, path):
        file = f"{path}:{file}"
    weights = _array(name, file)
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.ndim != 1:
        raise ValueError(f"{name} ({file}) has shape {weights.shape}; expected weights (n,)")
    return weights


def _split(file: str) -> tuple[Path, str | None]:
    """The path, and the name of an array after ``.npz:``."""
    path, separator, key = file.rpartition(".npz:")
    return (Path(path + ".npz"), key) if separator else (Path(file), None)


def _array(name: str, file: str) -> np.ndarray:
    path, key = _split(file)
    if path.suffix == ".npz":
        arrays = _archive(name, path)
        if key is None and len(arrays) > 1:
            raise ValueError(f"{name}: {path} holds {len(arrays)} arrays ({', '.join(arrays)}); expected {path}:NAME")
        if key is not None and key not in arrays:
            raise ValueError(f"{name}: {path} holds no array {key}; expected one of {', '.join(arrays)}")
        return arrays[key] if key is not None else next(iter(arrays.values()))
    return _table(name, path) if path.suffix == ".csv" else _numbers(name, path, _load(name, path))


def _archive(name: str, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file."""
    with _load(name, path) as archive:
        try:
            arrays = {key: _numbers(name, path, archive[key]) for key in archive.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name}: {path} cannot be read as arrays of numbers ({error})") from None
    if not arrays:
        raise ValueError(f"{name}: {path} holds no arrays; expected at least one")
    return arrays


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


def _numbers(name: str, path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: {path} has dtype {array.dtype}; expected numbers")
    return array.astype(np.float64)


def _table(name: str, path: Path) -> np.ndarray:
    """The numbers of a .csv file; its first line is a header if no cell of it is a number."""
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no file {path}; expected a .npy, .npz or .csv file")
    rows: list[list[float]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            for first, cells in enumerate(cells for cells in reader if cells):
                if first == 0 and not any(_is_number(cell) for cell in cells):
                    continue
                if rows and len(cells) != len(rows[0]):
                    raise ValueError(f"line {reader.line_num} has {len(cells)} cells; expected {len(rows[0])}")
                for column, cell in enumerate(cells, start=1):
                    if not _is_number(cell):
                        raise ValueError(f"line {reader.line_num}, column {column} is {cell!r}; expected a number")
                rows.append([float(cell) for cell in cells])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{name}: {path}: {error}") from None
    if not rows:
        raise ValueError(f"{name}: {path} holds no line of numbers separated by commas")
    return np.array(rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
