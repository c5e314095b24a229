"""Run the benchmarks: ``python -m tests.benchmarks [NAME ...] [--threads 1 2] [--json docs/measurements]``.

Each file here whose name is a claim has a function ``rows()``; a row says what was asked and whether it was missed.
Every number of threads runs in a process of its own, with OpenBLAS, MKL and torch held to it.
What is recorded in docs/measurements is what the tables and plots of the documentation are made of.
"""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import recorded

HERE = Path(__file__).parent
CLAIMS = sorted(f.stem for f in HERE.glob("*.py") if f.stem not in {"__main__", "paired", "recorded"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which claims to measure: {', '.join(CLAIMS)}")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads, each measured")
    parser.add_argument(
        "--json", type=Path, help="a folder with one file of JSON lines a claim; what it has on a claim is replaced"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.names) - set(CLAIMS)
    if unknown:
        parser.error(f"no claim named {', '.join(unknown)}; expected some of {', '.join(CLAIMS)}")
    if options.child:
        measure(options.names or CLAIMS, options.threads[0], options.json)
        return
    for threads in options.threads:
        held = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
        command = [sys.executable, "-m", "tests.benchmarks", *options.names, "--child", "--threads", str(threads)]
        command += ["--json", str(options.json.absolute())] if options.json else []
        subprocess.run(command, env=os.environ | held, cwd=HERE.parent.parent, check=True)


def measure(names: list[str], threads: int, folder: Path | None) -> None:
    import torch

    from tests.benchmarks.paired import machine

    torch.set_num_threads(threads)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for name in names:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        print(f"\n{name.replace('_', ' ')}", flush=True)
        found = []
        for row in module.rows():
            if not found:
                print(getattr(row, "HEAD", ""))
            print(row, flush=True)
            found.append({**row.json(), **machine()})
            if folder is not None:
                recorded.write(folder / f"{name}.jsonl", found)


if __name__ == "__main__":
    main()
