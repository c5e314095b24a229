"""Which laws peers break, and by how much: ``python -m tests.comparison [--write docs/which-laws-peers-break.md]``.

Every function of `distances.py` is held to every law that applies to it. With --fast 40 examples are tried, else 300.
"""

import argparse
import importlib.metadata
import warnings
from pathlib import Path

from hypothesis import Phase, settings

from otkit.testing import LAWS, LawViolation, applicable_laws, find_violation
from tests.comparison.distances import Entry, entries

settings.register_profile("comparison", derandomize=True, deadline=None, phases=[Phase.generate])
settings.load_profile("comparison")

HEAD = """# Which laws peers break

Each function is held to each law that applies to it by `otkit.testing.check_laws`, on {examples} examples that
Hypothesis draws (few points, coordinates up to 10, condition numbers up to 1e4). A number says by how much
the first counterexample found is off; where that is less than a million times what rounding explains, both are shown:
*off / explained by rounding*. "holds" is no proof: no counterexample was found. "–": the law does not apply, or was
not tested; sliced distances are held only to the laws that they share with W.
Sinkhorn is not an exact distance and is not meant to be; it is here to show what its bias costs. A library that is not
installed is left out. What the laws say is in {{doc}}`verify-your-own-distance`.

Made by `python -m tests.comparison --fast --write docs/which-laws-peers-break.md`, with {versions}.
"""

TITLES = {"line": "the line"}


def verdict(entry: Entry, law: str, examples: int) -> str:
    options = {name: value for name, value in entry.options.items() if name != "differentiable"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            violation = find_violation(entry.distance, law, on=entry.on, max_examples=examples, shrink=False, **options)
    except Exception as error:
        return f"error: {type(error).__name__}"
    return "holds" if violation is None else _size(violation)


def _size(violation: LawViolation) -> str:
    if violation.excess == float("inf"):
        return "**NaN or inf**"
    if violation.excess > 1e6 * violation.tolerance:
        return f"**{violation.excess:.1g}**"
    return f"**{violation.excess:.1g}** / {violation.tolerance:.0e}"


def table(examples: int) -> str:
    found: dict[str, list[tuple[Entry, dict[str, str]]]] = {}
    for entry in entries():
        has = {"differentiable": entry.options.get("differentiable", False), "p": entry.options.get("p", 2)}
        laws = [law for law in applicable_laws(entry.distance, on=entry.on, **has) if law not in entry.left_out]
        row = {law: verdict(entry, law, examples) for law in laws}
        found.setdefault(entry.on, []).append((entry, row))
        print(f"{entry.library} {entry.name} on {entry.on}: {row}", flush=True)
    parts = []
    for on, rows in found.items():
        laws = [law for law in LAWS if any(law in row for _, row in rows)]
        title = f"\n## On {TITLES.get(on, on)}\n"
        lines = [title, "| law | " + " | ".join(f"{e.library}<br>`{e.name}`" for e, _ in rows) + " |"]
        lines.append("|" + "---|" * (len(rows) + 1))
        lines += [f"| {law} | " + " | ".join(row.get(law, "–") for _, row in rows) + " |" for law in laws]
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def versions() -> str:
    names = {
        "POT": "POT",
        "scipy": "SciPy",
        "geomloss": "GeomLoss",
        "ott-jax": "OTT-JAX",
        "torchmetrics": "torchmetrics",
    }
    found = []
    for name, shown in names.items():
        try:
            found.append(f"{shown} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{shown} not installed")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--fast", action="store_true", help="40 examples a law")
    options = parser.parse_args()
    examples = 40 if options.fast else 300
    text = HEAD.format(examples=examples, versions=versions()) + table(examples)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
