"""One number of an evaluation, and a table of many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Better = Literal["lower", "higher"]

NULL_DRAWS = 20
"""The draws over which a null value is averaged that costs little: for a few hundred codes one is off by a tenth."""


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


class Section(NamedTuple):
    """Measures under a heading.

    Attributes:
        heading: What they are measures of.
        null: The heading of their null values.
        measures: The measures.
    """

    heading: str
    null: str
    measures: tuple[Measure, ...]


def table(sections: Iterable[Section], notes: Iterable[str] = ()) -> str:
    """Sections as a table for a terminal, one below the other, and notes at the end.

    >>> print(table([Section("samples", "real", (Measure("precision", "precision", 0.75, 0.9),))]))
    samples                                  value      real
    --------------------------------------------------------
    precision                                 0.75       0.9
    """
    sections = list(sections)
    titles = [title for s in sections for title in (s.heading, *(measure.title for measure in s.measures))]
    width = max(34, *map(len, titles)) + 2
    lines: list[str] = []
    for heading, null, measures in sections:
        head = f"{heading:<{width}}{'value':>10}{null:>10}"
        lines += [*([""] if lines else []), head, "-" * len(head)]
        for measure in measures:
            beside = "" if measure.null is None else f"{measure.null:.4g}"
            lines.append(f"{measure.title:<{width}}{measure.value:>10.4g}{beside:>10}".rstrip())
    return "\n".join([*lines, *([""] if len(sections) > 1 else []), *notes]).rstrip()
