"""The one warning that all iterations give, how it is noted, and how warnings find the line of the caller."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_BETWEEN = frozenset({"otkit", "torch", "joblib", "tqdm"})
"""This package, and what may stand between two of its functions in a stack: autograd, operators, jobs and bars."""
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached its tolerance; the message says what to change."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # ``warnings.warn`` makes the warning before it asks the filters, which belong to all threads.
        notes = _notes.get()
        if notes is not None:
            notes.append(str(self))


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn at the line that called this package, however deep in it this is."""
    # ``skip_file_prefixes`` does this from Python 3.12 on.
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextlib.contextmanager
def noted_failures() -> Iterator[list[str]]:
    """The ConvergenceWarnings that this thread gives meanwhile, whether or not a filter lets them be seen."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)
