"""Parts of a computation on several threads: NumPy's loops, products and LAPACK release the interpreter's lock."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

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


@functools.cache
def blas() -> Any:
    """The libraries for linear algebra of the process, where threadpoolctl is installed to set them; None elsewhere."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


_lock, _within = threading.Lock(), 0
_limit: Any = None


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Let each call of BLAS use one thread, for calls from several threads that would wait for one another.

    It is a setting of the process: whoever comes first makes it, and whoever leaves last restores it.
    """
    global _within, _limit
    with _lock:
        if _within == 0:
            _limit = blas().limit(limits=1)
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _limit.restore_original_limits()
