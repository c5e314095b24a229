"""One number of an evaluation, and a table of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Better = Literal["lower", "higher"]


class Measure(NamedTuple):
    """A number beside what it would be if there were nothing to find.

    Attributes:
        key: Its name in files.
        title: What it is, in words.
        value: The number.
        null: Its value where codes follow the prior, or generated data the distribution of the data, at the same number
            of points; None where there is none.
        better: Which way is better; None where neither is, as below the null value of a distance.
    """

    key: str
    title: str
    value: float
    null: float | None = None
    better: Better | None = None


def table(sections: Mapping[str, Iterable[Measure]], notes: Iterable[str] = ()) -> str:
    """Measures as a table for a terminal, one section below the other, and notes at the end.

    >>> print(table({"samples": [Measure("precision", "precision", 0.75, 1.0)]}))
    samples         value      null
    -------------------------------
    precision        0.75         1
    """
    parts = {heading: list(measures) for heading, measures in sections.items()}
    titles = [*parts, *(measure.title for measures in parts.values() for measure in measures)]
    width = max(map(len, titles), default=0) + 2
    lines: list[str] = []
    for heading, measures in parts.items():
        head = f"{heading:<{width}}{'value':>10}{'null':>10}"
        lines += [*([""] if lines else []), head, "-" * len(head)]
        for measure in measures:
            null = "" if measure.null is None else f"{measure.null:.4g}"
            lines.append(f"{measure.title:<{width}}{measure.value:>10.4g}{null:>10}".rstrip())
    text = list(notes)
    return "\n".join([*lines, *(["", *text] if text else [])])
