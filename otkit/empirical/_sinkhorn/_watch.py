"""What a long iteration shows, and when its patience ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

Progress: TypeAlias = bool | Callable[[int, float], Any] | None
"""Nothing, a line on the screen (by tqdm if it is installed), or a function of iterations and marginal error."""


class Watch:
    """Counts iterations, and shows them; a context, at the end of which the screen is left as it should be.

    An iteration is a product with the kernel and one with its transpose, or what takes as long.

    Args:
        max_iter: The most iterations.
        progress: What to show.
    """

    def __init__(self, max_iter: int, progress: Progress = None):
        self.max_iter, self.n_iter, self.interrupted = max_iter, 0, False
        self.show, self.close = (progress, None) if callable(progress) else _on_screen() if progress else (None, None)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.close is not None:
            self.close()

    @property
    def over(self) -> bool:
        """Whether patience has ended."""
        return self.interrupted or self.n_iter >= self.max_iter

    def interrupt(self) -> None:
        """Call this where a KeyboardInterrupt is caught: it is raised again, unless somebody watches who will see it.

        An unfinished result is for people. A loop, such as a training, would take it for a result, and go on.
        """
        if self.show is None:
            raise
        self.interrupted = True

    def count(self, iterations: int, error: float) -> None:
        """Count iterations that led to a marginal error."""
        self.n_iter += iterations
        if self.show is not None and not self.interrupted:
            self.show(self.n_iter, error)


def _on_screen() -> tuple[Callable[[int, float], None], Callable[[], None]]:
    """A function that shows a line, and one that ends it."""
    try:
        from tqdm.auto import tqdm
    except ImportError:

        def line(n_iter: int, error: float) -> None:
            print(f"\rSinkhorn: iteration {n_iter}, marginal error {error:.1e}", end="", file=sys.stderr, flush=True)

        return line, lambda: print(file=sys.stderr)
    bar = tqdm(desc="Sinkhorn", unit=" iterations")

    def update(n_iter: int, error: float) -> None:
        bar.set_postfix_str(f"marginal error {error:.1e}", refresh=False)
        bar.update(n_iter - bar.n)

    return update, bar.close
