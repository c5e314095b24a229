"""Which test runs which line, and how long each takes: the tests of a mutant are those that run its lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest


class Recorder:
    """A plugin of pytest: a context of coverage for each test, and its seconds."""

    def __init__(self, cover: coverage.Coverage) -> None:
        self.cover, self.seconds = cover, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.cover.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def record(paths: list[str], data: Path) -> int:
    """Run the tests of the paths once and add what they cover to the data."""
    cover = coverage.Coverage(data_file=str(data), branch=True, source=["otkit"])
    if data.exists():
        cover.load()
    recorder = Recorder(cover)
    cover.start()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *paths], plugins=[recorder])
    cover.stop()
    cover.save()
    file = data.with_suffix(".json")
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | recorder.seconds))
    return int(code)


class Covering:
    """The tests that run given lines, the fastest first."""

    def __init__(self, data: Path, root: Path) -> None:
        self.data, self.root = coverage.CoverageData(str(data)), root
        self.data.read()
        self.seconds: dict[str, float] = json.loads(data.with_suffix(".json").read_text())

    def tests(self, file: str, first: int, last: int) -> list[str]:
        """The tests of the lines; those of the whole file for lines that run at its import."""
        contexts = self.data.contexts_by_lineno(str(self.root / file))
        found = {test for line in range(first, last + 1) for test in contexts.get(line, ())}
        if "" in found:
            found = {test for line in contexts.values() for test in line}
        return sorted(found & self.seconds.keys(), key=lambda test: self.seconds[test])


if __name__ == "__main__":
    sys.exit(record(sys.argv[2:], Path(sys.argv[1])))
