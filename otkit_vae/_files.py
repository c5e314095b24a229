"""Files written in one step: a kill, a full disk or a fault leaves what was there before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place once all of it is on the disk.

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


def partial_of(path: Path) -> Path:
    """What a kill may leave of a file that was being written, beside it."""
    return path.with_name(f".{path.name}.partial")


def write_text(path: Path, text: str) -> None:
    """Write a text, in UTF-8, in one step."""
    with replacing(path) as file:
        file.write(text.encode())


def _sync(folder: Path) -> None:
    """Make a new name in a folder last, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
