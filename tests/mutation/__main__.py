"""How many small changes of the source the tests notice.

    python -m tests.mutation --count 300 --seed 0 [--data FILE]

Mutants of otkit/linalg, otkit/gaussian and otkit/empirical are drawn at random. Each is put into a copy of the source
and held against the tests that run its lines, the fastest first, up to some seconds of them: a mutant that would fall
to a later test counts as a survivor, so the score is a lower bound. One that ends or spends five times the time of its
tests is killed. What each line is run by is recorded at first, and every verdict is kept beside it: a run that stops is
taken up where it was, with ``--data``. Delete these files when the source or the tests have changed; ``--survivors``
runs those that survived once more, against tests recorded anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from tests.mutation.covering import Covering
from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
BROKEN = 99
PARTS = ("linalg", "gaussian", "empirical")


class Only:
    """A plugin of pytest: of the tests collected those that are listed, in that order."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda item: self.place[item.nodeid])


def killed(mutant: Mutant, covering: Covering, copy: Path, most: float) -> bool:
    """Whether a test notices, in a process of its own."""
    tests, seconds = [], 0.0
    for test in covering.tests(mutant.file, *mutant.lines):
        seconds += covering.seconds[test]
        if tests and seconds > most:
            break
        tests.append(test)
    if not tests:
        return False
    source = (ROOT / mutant.file).read_bytes()
    (copy / mutant.file).write_bytes(mutant.applied(source))
    child = os.fork()
    if not child:
        limit = 20 + int(5 * seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        signal.alarm(10 * limit)
        try:
            code = _outcome(tests, copy)
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    (copy / mutant.file).write_bytes(source)
    code = os.waitstatus_to_exitcode(status)
    if code == BROKEN or code == pytest.ExitCode.USAGE_ERROR or code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise RuntimeError(f"pytest did not run {len(tests)} tests of {mutant.file}: {code}")
    return code != 0


def _text(mutant: Mutant) -> str:
    return (ROOT / mutant.file).read_bytes()[mutant.start : mutant.stop].decode()


def _outcome(tests: list[str], copy: Path) -> int:
    """The exit code of pytest on the copy."""
    os.chdir(copy)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(ROOT), "."))]
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = True
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    files = sorted({test.split("::")[0] for test in tests})
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], plugins=[Only(tests)]))


def main() -> int:
    """Draw, try, report; the exit code is the number of survivors."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=12.0, help="of tests a mutant, as they take without it")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "mutation")
    parser.add_argument("--survivors", action="store_true")
    options = parser.parse_args()
    os.environ["OTKIT_PROFILE"] = "mutation"
    options.data.parent.mkdir(parents=True, exist_ok=True)
    if not options.data.exists():
        tests = [f"tests/otkit/{part}" for part in PARTS]
        record = [sys.executable, "-m", "tests.mutation.covering", str(options.data), *tests]
        subprocess.run(record, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    covering = Covering(options.data, ROOT)
    every = [m for part in PARTS for file in sorted((ROOT / "otkit" / part).rglob("*.py")) for m in mutants(ROOT, file)]
    drawn = random.Random(options.seed).sample(every, min(options.count, len(every)))
    verdicts = options.data.with_suffix(".verdicts")
    known = dict(map(json.loads, verdicts.read_text().splitlines())) if verdicts.exists() else {}

    import ot  # noqa: F401 (once, for all that are forked)
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, verdicts.open("a") as log:
        copy = Path(folder)
        for part in ("otkit", "otkit_vae", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / part, copy / part)
        score = 0
        for mutant in drawn:
            if known.get("", True):
                known[""] = killed(mutant._replace(new=_text(mutant)), covering, copy, options.seconds)
                print(json.dumps(["", known[""]]), file=log, flush=True)
                if known[""]:
                    raise RuntimeError("the tests fail on the source as it is")
            name = f"{mutant.file}:{mutant.lines[0]}: {mutant.old}  ->  {mutant.new}"
            if name not in known or (options.survivors and not known[name]):
                known[name] = killed(mutant, covering, copy, options.seconds)
                print(json.dumps([name, known[name]]), file=log, flush=True)
            if not known[name]:
                print(f"survived  {name}", flush=True)
            score += known[name]
    print(f"{score} of {len(drawn)} killed, {score / len(drawn):.1%}, of {len(every)} mutants in all")
    return len(drawn) - score


if __name__ == "__main__":
    sys.exit(min(main(), 100))
