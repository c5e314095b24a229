"""Timing by pairs: alternately in one process, so that a machine's moods cancel in the ratio.

A case names its sizes as "d 8", "n 1000", "reg 0.02", so that plots can find them (`recorded.size`).
"""

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from tests.benchmarks.recorded import PACKAGES


@dataclass(frozen=True)
class Row:
    """One comparison: ours against another's on the same inputs.

    Attributes:
        case: What was computed on what.
        other: The name of the other.
        ours_seconds: The median of our time for one call.
        other_seconds: The median of the other's.
        ratio: The median of other / ours over the pairs.
        low: The lower quartile of that ratio.
        high: The upper quartile.
        asked: What the ratio is meant to be at least, or None.
    """

    case: str
    other: str
    ours_seconds: float
    other_seconds: float
    ratio: float
    low: float
    high: float
    asked: float | None

    HEAD: ClassVar[str] = f"{'':<74}{'ours':>13}{'other':>14}  other / ours"

    def __str__(self) -> str:
        asked = "" if self.asked is None else f"asked {self.asked:g}{'' if self.ratio >= self.asked else '  MISSED'}"
        times = f"{self.ours_seconds * 1e3:10.3f} ms {self.other_seconds * 1e3:10.3f} ms"
        return f"{self.case:<52}{self.other:<22}{times}  {self.ratio:6.2f} ({self.low:.2f}-{self.high:.2f})  {asked}"

    def json(self) -> dict[str, object]:
        return asdict(self)


def paired(
    case: str,
    ours: Callable[[], object],
    others: dict[str, tuple[Callable[[], object], float | None]],
    *,
    seconds: float = 3.0,
    least: int = 7,
) -> list[Row]:
    """Call ours and the others in turn, and compare medians.

    Args:
        case: What is computed.
        ours: Our call.
        others: For each name, the call and the ratio that is asked for.
        seconds: About how long to go on.
        least: The fewest repetitions.
    """
    calls = {"": ours} | {name: call for name, (call, _) in others.items()}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[""]) < least:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    rows = []
    for name, (_, asked) in others.items():
        ratios = np.array(times[name]) / np.array(times[""])
        low, middle, high = (float(q) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
        mine, theirs = (float(np.median(times[k])) for k in ("", name))
        rows.append(Row(case, name, mine, theirs, middle, low, high, asked))
    return rows


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions(),
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    described = Path("/proc/cpuinfo")
    names = [line for line in described.read_text().splitlines() if "model name" in line] if described.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of the packages that are compared, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
