"""Two processes that talk by gloo on this machine, and cannot hang."""

import os
import socket
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

WORLD = 2
PATIENCE = 300
"""Seconds after which a process that hears nothing from the other gives up, and the test with it."""


def run(function: Callable[..., Any], folder: Path, *arguments: Any, world: int = WORLD) -> list[Any]:
    """What ``function(rank, *arguments)``, of a module, returns in each of two processes (or so many) of one group.

    They are as torchrun starts them.

    Args:
        function: What is run; its result must be tensors and plain values.
        folder: A folder for what the processes return.
        *arguments: What else it is given.
        world: How many processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.spawn(_process, (function, str(folder), port, world, arguments), nprocs=world, join=False)
    assert context is not None
    try:
        # True once all have ended, False when some have; raises the first exception of any.
        end = time.monotonic() + PATIENCE
        while not (ended := context.join(1)) and time.monotonic() < end:
            pass
    finally:
        for process in context.processes:
            process.kill()
    assert ended, f"the processes did not end in {PATIENCE} s"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _process(
    rank: int, function: Callable[..., Any], folder: str, port: int, world: int, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "two"}
    dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
    try:
        torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    except BaseException:
        # The other process fails as well, and which one torch reports is chance.
        traceback.print_exc()
        raise
    finally:
        dist.destroy_process_group()
