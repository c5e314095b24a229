"""Parts of a computation on several threads: NumPy's loops, products and LAPACK release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def on_threads(threads: int, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do the parts, on several threads, with floating-point errors ignored: what fails misses its certificate."""

    def quietly(part: Part) -> Result:
        with np.errstate(all="ignore"):  # a state of the thread
            return work(part)

    threads = min(threads, len(parts))
    if threads <= 1:
        return [quietly(part) for part in parts]
    # Each thread has its own number of threads for torch, and new ones start with the last that was set.
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(quietly, parts))
    finally:
        torch.set_num_threads(usual)
