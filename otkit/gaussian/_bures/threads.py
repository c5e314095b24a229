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
    results: dict[int, Result] = {}
    todo = enumerate(parts)  # of which each thread takes the next

    def take_parts() -> None:
        for k, part in todo:
            results[k] = quietly(part)

    # Each thread has its own number of threads for torch, and new ones start with the last that was set.
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads - 1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            torch.set_num_threads(1)
            others = [pool.submit(take_parts) for _ in range(threads - 1)]
            take_parts()  # a thread takes long to start, so this one works as well
            for other in others:
                other.result()
    finally:
        torch.set_num_threads(usual)
    return [results[k] for k in range(len(parts))]
