"""The one warning of everything that iterates, and who takes note of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached its tolerance; the message says what to change."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # ``warnings.warn`` makes the warning before it asks the filters, which belong to all threads.
        notes = _notes.get()
        if notes is not None:
            notes.append(str(self))


@contextlib.contextmanager
def noted_failures() -> Iterator[list[str]]:
    """What is warned of in this thread meanwhile, whether or not it is shown."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)
