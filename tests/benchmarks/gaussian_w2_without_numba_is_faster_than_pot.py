"""The claim of `gaussian_w2_is_faster_than_pot`, and its rows, where the extra `fast` is not installed."""

from collections.abc import Iterator
from unittest import mock

from otkit.gaussian._bures import blocks, compiled
from tests.benchmarks import gaussian_w2_is_faster_than_pot
from tests.benchmarks.paired import Row


def rows() -> Iterator[Row]:
    without = {"return_value": None}
    with mock.patch.object(compiled, "loops", **without), mock.patch.object(blocks, "blas", **without):
        yield from gaussian_w2_is_faster_than_pot.rows()
