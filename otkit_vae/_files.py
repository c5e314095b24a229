"""Files written in one step: a kill, a full disk or a fault leaves what was there before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which is put in its place once all of it is on the disk.

    Raises:
        OSError: It could not be written; what was there before is kept.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        kept = "; the one that was there is kept" if path.exists() else ""
        raise OSError(f"{path} cannot be written ({error.strerror or error}){kept}") from None
    finally:
        # Not where there is a folder in its place, or none at all: that was said above.
        if partial.is_file():
            partial.unlink()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep a second training out of a folder, where the system can; a kill releases it, and leaves nothing behind.

    Raises:
        FileExistsError: Another training writes to it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"out: another training writes to {folder}; expected one at a time (wait for it, or stop it)"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def partial_of(path: Path) -> Path:
    """The file that a kill may leave beside one that was being written."""
    return path.with_name(f".{path.name}.partial")


def write_text(path: Path, text: str) -> None:
    """Write a text, in UTF-8, in one step."""
    with replacing(path) as file:
        file.write(text.encode())


def _sync(folder: Path) -> None:
    """Make a new name in a folder permanent, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
