"""The ``otkit`` command: distances between files of points."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import numpy as np

EXAMPLES = """\
examples:
  otkit distance x.npy y.npy                  exact W_2
  otkit distance x.npy y.npy --p 1 --json     exact W_1, with sizes and the power W_1^1
  otkit distance x.npy y.npy --reg 0.1        Sinkhorn: the regularised cost (not its root)
  otkit distance x.npy y.npy --gaussian       W_2 of the Gaussians fitted to the two samples
"""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line on stderr, with exit status 2."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (those of the process by default); return its exit status."""
    options = _parser().parse_args(arguments)
    # Imported only now: torch takes seconds to load, and --help should not.
    from otkit import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            report = _distance(options)
        except (ValueError, TypeError, OSError, MemoryError) as error:
            print(f"otkit: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    for warning in caught:
        print(f"otkit: warning: {warning.message}", file=sys.stderr)
    print(json.dumps(report) if options.json else repr(report["value"]))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="otkit", description="Optimal transport distances.")
    parser.add_argument("--version", action="version", version=f"otkit {metadata.version('otkit')}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    distance = commands.add_parser(
        "distance",
        help="the distance between two sets of points",
        description="The Wasserstein distance between two sets of points, uniformly weighted unless --a or --b "
        "says otherwise. Prints one number.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    distance.add_argument("x", type=Path, help="a .npy file of points, with shape (n, d), or (n,) in one dimension")
    distance.add_argument("y", type=Path, help="a .npy file of points, with shape (m, d), or (m,)")
    distance.add_argument("--p", type=float, default=2.0, help="the exponent p >= 1 of the distance (default 2)")
    distance.add_argument("--a", type=Path, help="a .npy file of weights of x, with shape (n,)")
    distance.add_argument("--b", type=Path, help="a .npy file of weights of y, with shape (m,) and the same sum")
    which = distance.add_mutually_exclusive_group()
    which.add_argument(
        "--reg", type=float, help="print the Sinkhorn cost min <P,M> + reg KL(P|a×b), M = |x-y|^p, for this reg > 0"
    )
    which.add_argument(
        "--gaussian", action="store_true", help="print W_2 of the Gaussians with the means and covariances of x and y"
    )
    distance.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object: what, value, p, n, m, d; transport_cost or reg as well",
    )
    return parser


def _distance(options: argparse.Namespace) -> dict[str, object]:
    from otkit import empirical, gaussian

    x, y = _points("x", options.x), _points("y", options.y)
    a, b = (None if path is None else _weights(name, path) for name, path in (("a", options.a), ("b", options.b)))
    report: dict[str, object] = {"p": options.p, "n": len(x), "m": len(y), "d": x.shape[1]}
    if options.gaussian:
        if options.p != 2 or a is not None or b is not None:
            raise ValueError("--gaussian is W_2 of uniformly weighted samples; expected no --a or --b, and --p 2")
        if min(len(x), len(y)) < 2:
            raise ValueError(f"x has {len(x)} points and y {len(y)}; expected at least 2 each to fit a Gaussian")
        moments = [part for points in (x, y) for part in (points.mean(0), np.atleast_2d(np.cov(points.T)))]
        return {"what": "gaussian", "value": _finite(gaussian.w2(*moments)), **report}
    if options.reg is not None:
        value = _finite(empirical.sinkhorn_cost(x, y, options.p, reg=options.reg, a=a, b=b))
        return {"what": "sinkhorn_cost", "value": value, "reg": options.reg, **report}
    value = _finite(empirical.wasserstein(x, y, options.p, a=a, b=b))
    try:
        power: float | None = value**options.p
    except OverflowError:
        power = None
    return {"what": "wasserstein", "value": value, "transport_cost": power, **report}


def _finite(value: np.ndarray) -> float:
    if not np.isfinite(value):
        raise ValueError(f"the result is {value}; expected data that float64 can hold to the power p (scale them)")
    return float(value)


def _weights(name: str, path: Path) -> np.ndarray:
    weights = _array(name, path)
    if weights.ndim != 1:
        raise ValueError(f"{name} ({path}) has shape {weights.shape}; expected weights (n,)")
    return weights


def _points(name: str, path: Path) -> np.ndarray:
    points = _array(name, path)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2:
        raise ValueError(f"{name} ({path}) has shape {points.shape}; expected points (n, d) or (n,)")
    return points


def _array(name: str, path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no file {path}; expected a .npy file")
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise OSError(f"{name}: {path} cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{name}: {path} is not a .npy file of numbers; expected one written by numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: {path} holds several arrays; expected a .npy file of one")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: {path} has dtype {array.dtype}; expected numbers")
    return array.astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
