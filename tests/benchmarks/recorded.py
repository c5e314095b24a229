"""What was measured, as JSON lines in docs/measurements, and the tables made of it.

A claim has a file of its name; a line has one row and the machine that it was measured on. The tables of the README and
of the documentation are made by `table` and by nothing else: a number in them is one that a command has printed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "measurements"
PACKAGES = ("numpy", "scipy", "torch", "numba", "POT", "torchmetrics", "geomloss", "ott-jax", "pythae")
Measured = dict[str, Any]


def write(file: Path, rows: list[Measured]) -> None:
    """Put rows of one number of threads in the place of those that the file has."""
    threads = {row["threads"] for row in rows}
    kept = [row for row in lines(file) if row["threads"] not in threads] if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        json.dumps(row, ensure_ascii=False) + "\n" for row in sorted(kept + rows, key=lambda row: row["threads"])
    )
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def lines(file: Path) -> list[Measured]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def read(claim: str, cases: str = "", threads: int | None = None) -> list[Measured]:
    """The recorded rows of a claim.

    Args:
        claim: Its name.
        cases: A regular expression that the case contains.
        threads: Only those of so many threads.
    """
    rows = lines(FOLDER / f"{claim}.jsonl")
    found = [r for r in rows if re.search(cases, r["case"]) and threads in (None, r["threads"])]
    if not found:
        raise ValueError(f"{claim} has no row whose case contains {cases!r}, of {threads or 'any'} threads")
    return found


def size(case: str, name: str) -> float:
    """The number after a name in a case: 8 for "d" in "costs given, n 1000, d 8"."""
    found = re.search(rf"(?<!\w){re.escape(name)} ([\d.]+(?:e-?\d+)?)", case)
    if found is None:
        raise ValueError(f"the case {case!r} has no number after {name!r}")
    return float(found[1])


def table(claim: str, cases: str = "", threads: int | None = None) -> str:
    """A markdown table of recorded rows, and below it what repeats it and where it was measured."""
    rows = read(claim, cases, threads)
    made = next(make for key, make in TABLES.items() if key in rows[0])
    return f"{made(rows)}\n\n{source(claim, rows)}\n"


def source(claim: str, rows: list[Measured]) -> str:
    """The command, and each machine."""
    where = dict.fromkeys(
        f"{row['processor']}, {row['cores']} cores, on {row['threads']} thread{'s' * (row['threads'] > 1)}, "
        f"Python {row['python']}, " + ", ".join(f"{name} {row[name]}" for name in PACKAGES if name in row)
        for row in rows
    )
    return f"*`python -m tests.benchmarks {claim}`: {'; '.join(where)}.*"


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A markdown table."""
    head = list(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def of_threads(rows: list[Measured]) -> Callable[[Measured], str]:
    """What is added to the case: the number of threads, where rows differ in it."""
    several = len({row["threads"] for row in rows}) > 1
    return lambda row: f"{row['case']}, {row['threads']} thread{'s' * (row['threads'] > 1)}" if several else row["case"]


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _paired(rows: list[Measured]) -> str:
    name = of_threads(rows)

    def cells(row: Measured) -> list[str]:
        spread = f" ({row['low']:.2f} to {row['high']:.2f})" if row["high"] else ""
        asked = (
            "" if row["asked"] is None else f"{row['asked']:.3g}" + (", missed" if row["ratio"] < row["asked"] else "")
        )
        times = duration(row["ours_seconds"]), duration(row["other_seconds"])
        return [name(row), times[0], row["other"], times[1], f"{row['ratio']:.2f}{spread}", asked]

    head = ("case", "otkit", "against", "its time", "its time / otkit's", "asked")
    return grid(head, map(cells, rows))


def slope_at_the_end(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value against log size between the last two."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def _growth(rows: list[Measured]) -> str:
    name = of_threads(rows)

    def cells(row: Measured) -> list[str]:
        shown = duration if row.get("unit", "seconds") == "seconds" else "{:.0f}".format
        first, end = (f"{row['sizes'][k]:,}: {shown(row['seconds'][k])}" for k in (0, -1))
        exponents = (
            f"{row['exponent']:.2f}",
            f"{slope_at_the_end(row['sizes'], row['seconds']):.2f}",
            f"{row['theory']:g}",
        )
        return [name(row), row["size"], *exponents, first, end]

    head = ("function", "grows with", "exponent", "at the end", "theory", "smallest", "largest")
    return grid(head, map(cells, rows))


def _errors(rows: list[Measured]) -> str:
    methods = list(dict.fromkeys(name for row in rows for name in row["errors"]))

    def cells(row: Measured) -> list[str]:
        return [row["case"], *(_error(row["errors"], name) for name in methods)]

    return grid(("relative error of", *methods), map(cells, rows))


def _error(errors: dict[str, float | None], name: str) -> str:
    if name not in errors:
        return "–"
    error = errors[name]
    return "NaN" if error is None else f"{error:.0e}" if error else "0"


def _held(rows: list[Measured]) -> str:
    """What holds where: a row a question, a column a library."""
    libraries = list(dict.fromkeys(name for row in rows for name in row["answers"]))
    return grid(("", *libraries), ([row["case"], *(row["answers"].get(n, "–") for n in libraries)] for row in rows))


def _far(rows: list[Measured]) -> str:
    def cells(row: Measured) -> list[str]:
        far = long(row["far_seconds"]), storage(row["far_bytes"])
        return [row["case"], row["measured"], duration(row["measured_seconds"]), row["growth"], *far]

    return grid(("the job", "measured", "time", "scaled by", "the job's time", "its memory"), map(cells, rows))


def long(seconds: float) -> str:
    for unit, size in (("years", 365.25 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return duration(seconds)


def storage(size: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


TABLES: dict[str, Callable[[list[Measured]], str]] = {
    "ratio": _paired,
    "exponent": _growth,
    "far_seconds": _far,
    "errors": _errors,
    "answers": _held,
}


README = FOLDER.parents[1] / "README.md"
BLOCK = re.compile(r"(?<=<!-- measured: )(\w+)( -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """A page with the tables between ``<!-- measured: CLAIM -->`` and ``<!-- end -->`` made anew."""
    return BLOCK.sub(lambda block: block[1] + block[2] + table(block[1]), text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
