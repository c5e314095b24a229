"""The ``otkit`` command: distances between files of points."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from otkit import ConvergenceWarning, __version__, empirical, gaussian, pairwise_distances
from otkit._arguments import as_tensors, require_exponent, require_finite, require_positive
from otkit._files import named_sets, points_of, require_one_order, weights_for, weights_of
from otkit.empirical._bounded import bounded_wasserstein
from otkit.empirical._directions import random_directions
from otkit.empirical._measures import Measures, pair_of_measures

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
  otkit pairwise a.npy b.npy --weights wa.npy wb.npy --json  with bounds of each distance, and whether all converged
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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ConvergenceWarning)
            try:
                answer = options.run(options)
            except (ValueError, TypeError, OSError, MemoryError, OverflowError, RuntimeError, ImportError) as error:
                print(f"otkit: error: {' '.join(str(error).split())}", file=sys.stderr)
                return 2
    except KeyboardInterrupt:
        print("otkit: interrupted", file=sys.stderr)
        return 130
    for warning in caught:
        print(f"otkit: warning: {warning.message}", file=sys.stderr)
    try:
        print(answer, flush=True)
    except OSError as error:
        # So that the rest is not tried again when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"otkit: error: the answer cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(prog="otkit", description="Optimal transport distances.")
    parser.add_argument("--version", action="version", version=f"otkit {__version__}")
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
    pairwise.set_defaults(run=_pairwise, reg_relative=None)
    pairwise.add_argument("x", nargs="+", help="files of points")
    pairwise.add_argument(
        "--weights", nargs="+", help="files of weights, one for each set of points, in the same order and of one sum"
    )
    pairwise.add_argument("--jobs", type=_whole(31), help="processes to share the work, -1 for all cores (default 1)")
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
        command.add_argument("--n-projections", type=_whole(31), help="the number of sliced's directions (default 256)")
        command.add_argument("--seed", type=_whole(63), help="the seed of sliced's directions (default 0)")
        command.add_argument("--json", action="store_true", help="print a JSON object that says more")
    distance.add_argument(
        "--reg-relative", type=float, help="sinkhorn's reg as a multiple of the mean of |x-y|^p over all pairs"
    )
    return parser


def _whole(bits: int) -> Callable[[str], int]:
    """A reader of whole numbers that fit into so many bits and a sign."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = 2**bits
        if abs(value) >= 2**bits:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number below 2^{bits}")
        return value

    return whole


def _method_options(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword options of the method, and an error for those that belong to another."""
    belongs = {"reg": "sinkhorn", "reg_relative": "sinkhorn", "n_projections": "sliced", "seed": "sliced"}
    for name, method in belongs.items():
        if getattr(options, name) is not None and options.method != method:
            raise ValueError(f"--{name.replace('_', '-')} is an option of --method {method}, not of {options.method}")
    if options.method == "gaussian":
        if options.p != 2:
            raise ValueError("--method gaussian is W_2; expected --p 2")
        return {}
    if options.method == "sliced":
        count = 256 if options.n_projections is None else options.n_projections
        return {"p": options.p, "n_projections": count, "generator": options.seed or 0}
    if options.method == "sinkhorn":
        if options.reg is None and options.reg_relative is None:
            either = " or --reg-relative" if options.command == "distance" else ""
            raise ValueError(f"--method sinkhorn needs --reg{either}")
        if options.reg is not None and options.reg_relative is not None:
            raise ValueError("--reg and --reg-relative exclude each other; expected one")
        return {"p": options.p, "reg": options.reg}
    return {"p": options.p}


def _distance(options: argparse.Namespace) -> str:
    report = _report(options)
    return json.dumps(report) if options.json else repr(report["value"])


def _report(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--json`` prints: the one place where numbers are computed and named."""
    chosen = _method_options(options)
    x, y = points_of("x", options.x), points_of("y", options.y)
    require_one_order([options.x, options.y])
    a, b = weights_of("a", options.a, options.x), weights_of("b", options.b, options.y)
    start = time.perf_counter()
    extra: dict[str, Any] = {}
    units = "data"
    tensors, restore = as_tensors(x=x, y=y, a=a, b=b, optional=("a", "b"))
    measures = pair_of_measures(*tensors, eps=restore.eps, validate=True)
    if options.method == "gaussian":
        if a is not None or b is not None:
            raise ValueError("--method gaussian is for uniformly weighted samples; expected no --a or --b")
        value = gaussian.w2(*_fit("x", x), *_fit("y", y))
    elif options.method == "sinkhorn":
        if options.reg_relative is not None:
            chosen["reg"] = _relative_reg(options.reg_relative, measures, options.p)
        units = f"data^{options.p:g}"
        if options.json:
            solved = empirical.solve(x, y, a=a, b=b, **chosen)
            value = solved.value
            bounds = {"exact_lower_bound": float(solved.lower_bound), "exact_upper_bound": float(solved.upper_bound)}
            extra = {"reg": chosen["reg"], **bounds, **_status(solved)}
        else:
            value = empirical.sinkhorn_cost(x, y, a=a, b=b, **chosen)
    elif options.method == "sliced" and options.json:
        value, error = empirical.sliced_wasserstein(x, y, a=a, b=b, return_error=True, **chosen)
        directions, _ = random_directions(x.shape[1], chosen["n_projections"], chosen["generator"])
        extra = {"standard_error": float(error), "n_projections": len(directions), "seed": chosen["generator"]}
    elif options.method == "sliced":
        value = empirical.sliced_wasserstein(x, y, a=a, b=b, **chosen)
    elif options.json and x.shape[1] > 1:
        (value, lower, upper), solved = bounded_wasserstein(x, y, a=a, b=b, **chosen)
        extra = {"lower_bound": lower, "upper_bound": upper, **_status(solved)}
    else:
        value = empirical.wasserstein(x, y, a=a, b=b, **chosen)
    sizes = {"n": len(x), "m": len(y), "d": x.shape[1], "p": options.p}
    timing = {"seconds": time.perf_counter() - start}
    return {"method": options.method, "value": _finite(value), "units": units, **extra, **sizes, **timing}


def _status(solved: Any) -> dict[str, Any]:
    error, iterations = float(solved.marginal_error), int(solved.n_iter)
    return {"marginal_error": error, "n_iter": iterations, "converged": bool(solved.converged)}


def _relative_reg(factor: float, measures: Measures, p: float) -> float:
    """The factor times the mean of |x - y|^p over all pairs, a row at a time."""
    p, factor = require_exponent(p), require_positive("--reg-relative", factor)
    x, y, a, b = (part.numpy() for part in measures)
    rows = [np.average(np.linalg.norm(point - y, axis=-1) ** p, weights=b) for point in x]
    return require_positive("--reg-relative times the mean of |x-y|^p", factor * float(np.average(rows, weights=a)))


def _pairwise(options: argparse.Namespace) -> str:
    chosen, out = _method_options(options), options.out
    if out is not None:
        _require_new_or_resumed(out, options.resume)
    elif options.resume:
        raise ValueError("--resume goes on with a file; expected --out as well")
    named = [one for file in options.x for one in named_sets("x", file)]
    require_one_order(options.x)
    measures: list[Any] = [points for _, points in named]
    if options.weights is not None:
        measures = list(zip(measures, weights_for(options.weights, named), strict=True))
    if options.method == "gaussian":
        if options.weights is not None:
            raise ValueError("--method gaussian is for uniformly weighted samples; expected no --weights")
        measures = [_fit(name, points) for name, points in named]

    names = [name for name, _ in named]
    # On the line exact distances come by sorting: there is nothing to bound.
    certified = options.method == "sinkhorn" or (options.method == "exact" and named[0][1].shape[1] > 1)
    bounds = options.json and out is None and certified
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            matrix = pairwise_distances(
                measures,
                distance=METHODS[options.method],
                n_jobs=options.jobs,
                progress=options.progress,
                out=out,
                bounds=bounds,
                **chosen,
            )
        except ValueError as error:
            # A user with files knows the measures by their names, not by their numbers.
            message = re.sub(r"measures\[(\d+)\]", lambda found: names[int(found[1])], str(error))
            raise ValueError(message) from None
    for warning in caught:
        warnings.warn(warning.message, warning.category, stacklevel=1)
    if out is None:
        _finite((matrix["distance"] if bounds else matrix).max(initial=0.0))
    if options.json:
        units = f"data^{options.p:g}" if options.method == "sinkhorn" else "data"
        report = {"method": options.method, "units": units, "p": options.p, "names": names}
        report |= {"seconds": time.perf_counter() - start, "converged": not caught}
        if bounds:
            prefix = "exact_" if options.method == "sinkhorn" else ""
            for bound in ("lower_bound", "upper_bound"):
                report[f"{prefix}{bound}s"] = matrix[bound].tolist()
            matrix = matrix["distance"]
        report |= {"distances": matrix.tolist()} if out is None else {"out": str(out)}
        return json.dumps(report)
    if out is not None:
        return f"{out}: {len(names)} x {len(names)} distances"
    return _as_csv(names, matrix)


def _require_new_or_resumed(out: Path, resume: bool) -> None:
    if out.suffix != ".npy":
        raise ValueError(f"--out is {out}; expected a .npy file")
    if out.exists() and not resume:
        raise ValueError(f"--out {out} exists; expected --resume to go on with it, or another name")
    if not out.parent.is_dir():
        raise ValueError(f"--out is {out}; expected an existing folder, and there is no {out.parent}")
    if not out.exists() and not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out is {out}; expected a folder that can be written to")


def _as_csv(names: list[str], matrix: np.ndarray) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    writer.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    return text.getvalue().rstrip("\n")


def _fit(name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(points) < 2:
        raise ValueError(f"{name} has {len(points)} points; expected at least 2 to fit a Gaussian")
    require_finite(name, torch.from_numpy(points))
    loc, cov = gaussian.fit(points, validate=False)
    require_finite(f"the covariance of {name}", torch.from_numpy(cov))
    return loc, cov


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the result is {value}; expected data that float64 can hold to the power p (scale them)")
    return float(value)


if __name__ == "__main__":
    sys.exit(main())
