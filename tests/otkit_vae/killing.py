"""A training that is killed again and again, and one that is not: ``python -m tests.otkit_vae.killing FOLDER SEED``.

One process has everything imported and forks: each child is a whole ``otkit-vae train``, and is killed by SIGKILL at a
moment that chance decides: after so many checkpoints were seen to be replaced, and some milliseconds more. Moments are
counted in checkpoints, not in seconds, so that a busy machine has them in the same places.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from otkit_vae import cli, engine, training  # noqa: F401

KILLS = 12
OPTIONS = (
    *("--penalty", "sinkhorn", "--prior", "mixture", "--components", "3", "--widths", "[16]", "--latent_dim", "2"),
    *("--epochs", "12", "--warmup", "50", "--checkpoint_steps", "2", "--progress", "false"),
)


def start(*arguments: object) -> int:
    """The id of a process that runs the command; its standard error goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.nice(5)  # who watches comes first, on a busy machine
        log = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = cli.main(["train", *map(str, arguments)])
    finally:
        os._exit(status)


def ended(pid: int) -> int | None:
    """The status with which a process ended; None if it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def send(pid: int, what: int, file: Path, changes: int, then: float) -> int | None:
    """Send a signal after so many changes of a file and some seconds more; the status, if the process ended first."""
    before, seen = stamp(file), 0
    while seen < changes:
        status = ended(pid)
        if status is not None:
            return status
        now = stamp(file)
        seen, before = seen + (now != before), now
        time.sleep(5e-4)
    time.sleep(then)
    os.kill(pid, what)
    return None


def stamp(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: str, seed: str) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    chance = random.Random(int(seed))
    assert status_of(start(*OPTIONS, "--out", "whole")) == 0
    file, kills = Path("killed/checkpoint.ckpt"), 0
    arguments: tuple[str, ...] = (*OPTIONS, "--out", "killed")
    for k in range(KILLS):
        pid = start(*arguments)
        # The first dies in its first steps, the last after them all.
        status = send(pid, signal.SIGKILL, file, chance.randint(1, 4) if k else 1, chance.uniform(0, 0.05))
        killed = status is None and status_of(pid) == -signal.SIGKILL
        print(f"{k}: {'killed' if killed else f'ended with {status}'}", flush=True)
        kills += killed
        arguments = ("--resume", "killed", "--progress", "false")
    pid = start(*arguments)
    interrupted = send(pid, signal.SIGINT, file, 1, 0.0) or status_of(pid)
    assert status_of(start(*arguments)) == 0
    print(f"kills {kills}\ninterrupted {interrupted}")


if __name__ == "__main__":
    main(*sys.argv[1:])
