"""Whether a matrix of distances, and the measures, fit: found out before the work, not after hours of it."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np


def memory() -> float:
    """The bytes of memory that this machine has; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def require_room_for_matrix(shape: tuple[int, int], dtype: np.dtype[Any], out: Path | None) -> None:
    """Refuse a matrix that memory, or the disk of a new file, cannot hold."""
    needed = math.prod(shape) * dtype.itemsize
    asked = f"measures: {shape[0]} x {shape[1]} distances take {_size(needed)}"
    if out is None and needed > (room := memory()):
        raise MemoryError(
            f"{asked}, and this machine has {_size(room)} of memory; give a file to stream to, out=, or take "
            "pairwise_tiles, which holds one tile at a time"
        )
    if out is not None and not out.exists() and needed > (room := shutil.disk_usage(out.absolute().parent).free):
        raise OSError(
            f"{asked}, and the disk of out = {out} has {_size(room)} left; give another disk, or take pairwise_tiles, "
            "which keeps nothing"
        )


def require_room_for_measures(name: str, needed: int) -> None:
    """Refuse measures that memory cannot hold, such as files that are mapped into it and would be copied."""
    if needed > (room := memory()):
        raise MemoryError(
            f"{name} take {_size(needed)}, and this machine has {_size(room)} of memory; compute the matrix part by "
            "part, with some of them as measures and some as others"
        )


def _size(count: float) -> str:
    return f"{count / 2**30:.3g} GiB"
