"""How many small changes of the source the tests notice, by mutmut.

    python -m tests.mutation [--count 320] [--seed 0] [--survivors]

The mutants are those of mutmut for otkit/linalg, otkit/gaussian and otkit/empirical, by its section of pyproject.toml,
which says what is left out; a random sample of them is tried, each against all tests that call its function. Verdicts
are kept in ``mutants/``: a run that stops is taken up where it was, and what has changed is tried again; with
``--survivors`` those that survived are too, against tests written since.
"""

import argparse
import contextlib
import os
import random
import sys
from collections import Counter

# The tests of a mutant are run with few examples of each property.
os.environ.setdefault("OTKIT_PROFILE", "mutation")

from mutmut import __main__ as mutmut
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code


def sample(count: int, seed: int) -> list[str]:
    """Names of mutants, drawn by a lot of each, so that a change of one function leaves the others as they were."""
    with contextlib.redirect_stdout(sys.stderr):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.create_mutants(1)
    names = {name for _, name, _ in mutmut.collect_source_file_mutation_data(mutant_names=())[0]}
    return sorted(names, key=lambda name: random.Random(f"{seed} {name}").random())[:count]


def verdicts(names: list[str]) -> dict[str, str]:
    """What mutmut says of each."""
    found = mutmut.collect_source_file_mutation_data(mutant_names=names)[0]
    return {name: status_by_exit_code[code] for _, name, code in found}


def main() -> int:
    """Draw, try, report; the exit code is one if there are survivors."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true", help="try those that survived again")
    options = parser.parse_args()
    names = sample(options.count, options.seed)
    again = ("not checked", *(("survived", "no tests", "timeout") if options.survivors else ()))
    if left := [name for name, verdict in verdicts(names).items() if verdict in again]:
        mutmut._run(left, 1)
    found = verdicts(names)
    survivors = sorted(name for name, verdict in found.items() if verdict in ("survived", "no tests"))
    for name in survivors:
        print(f"\n{name}: {found[name]}\n{get_diff_for_mutant(name)}")
    print(
        f"\n{len(names) - len(survivors)} of {len(names)} killed, {1 - len(survivors) / len(names):.1%}",
        Counter(found.values()),
    )
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
