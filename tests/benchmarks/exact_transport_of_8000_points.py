"""The exact cost between 8000 and 8000 points in d = 8, with costs or points given, against `ot.emd2`.

Each is called twice and timed once; minutes on an idle machine, and 2 GB.
"""

from collections.abc import Iterator

from tests.benchmarks.exact_transport_is_never_slower_than_emd2 import against_emd2
from tests.benchmarks.paired import Row


def rows() -> Iterator[Row]:
    yield from against_emd2("normal d 8", 8000, 1.5, from_points=True)
