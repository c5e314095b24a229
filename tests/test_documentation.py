"""What the documentation says of measurements is what was recorded."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from otkit import distributions
from otkit_vae import penalties
from tests.benchmarks import recorded
from tests.benchmarks.__main__ import CLAIMS

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)
FILES = sorted(recorded.FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_record_is_of_a_claim_and_stands_on_a_page(file):
    assert file.stem in CLAIMS
    assert recorded.table(file.stem).count("\n|") >= 2
    sources = [*PAGES, ROOT / "README.md", *(ROOT / "docs" / "figures").glob("*.py")]
    assert any(file.stem in source.read_text() for source in sources)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_tables_have_no_numbers_but_those_of_a_command(page):
    """A table with a decimal stands between the marks of a record, or below the command that made it."""
    text = recorded.BLOCK.sub("", page.read_text())
    command = re.search(r"Made by `|^```sh\n(python -m|otkit)", text, re.MULTILINE)
    for row in re.finditer(r"^\|.*$", text, re.MULTILINE):
        assert not re.search(r"\d\.\d|\de-?\d", row[0]) or (command and command.start() < row.start()), row[0]


def test_tables_of_the_readme_are_those_of_the_record():
    text = recorded.README.read_text()
    assert recorded.BLOCK.findall(text)
    assert recorded.filled(text) == text, "run python -m tests.benchmarks.recorded"


def test_what_is_recorded_replaces_what_was_of_as_many_threads(tmp_path):
    def row(case, threads):
        return {"case": case, "threads": threads}

    file = tmp_path / "claim.jsonl"
    recorded.write(file, [row("old", 2), row("older", 2)])
    recorded.write(file, [row("other", 1)])
    recorded.write(file, [row("new", 2)])
    assert recorded.lines(file) == [row("other", 1), row("new", 2)]


def test_sizes_are_read_from_cases():
    case = "normal d 8, n 1000, reg 0.02, W2²/Tr 1e-8"
    assert [recorded.size(case, name) for name in ("d", "n", "reg", "W2²/Tr")] == [8, 1000, 0.02, 1e-8]
    with pytest.raises(ValueError, match="no number after 'm'"):
        recorded.size(case, "m")


def test_only_the_rows_that_are_asked_for():
    with pytest.raises(ValueError, match="no row whose case contains 'nothing'"):
        recorded.read(FILES[0].stem, "nothing")


FACES = ("otkit", "otkit.linalg", "otkit.gaussian", "otkit.empirical", "otkit.testing", "otkit_vae")


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_on_the_page_of_functions(face):
    assert_on_page(face, set(importlib.import_module(face).__all__))


def test_every_penalty_and_registry_is_on_the_page_of_functions():
    assert_on_page("otkit_vae.penalties", set(importlib.import_module("otkit_vae.penalties").__all__))
    named = set(penalties.names())
    assert named <= named_on("otkit_vae.penalties"), named - named_on("otkit_vae.penalties")
    functions = inspect.getmembers(distributions, inspect.isfunction)
    public = {n for n, f in functions if f.__module__ == distributions.__name__ and not n.startswith("_")}
    assert_on_page("otkit.distributions", public)


@pytest.mark.parametrize("face", [*FACES, "otkit.pairwise", "otkit_vae.penalties", "otkit_vae.evaluation"])
def test_every_public_function_and_class_is_on_a_page_of_the_api(face):
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = dict(re.findall(r"automodule:: ([\w.]+)\n   :members:(.*)", pages))
    whole = {module for module, names in shown.items() if not names.strip()}
    named = {name.strip() for names in shown.values() for name in names.split(",")}
    module = importlib.import_module(face)
    public = {name: getattr(module, name) for name in module.__all__}
    code = {name: part for name, part in public.items() if inspect.isclass(part) or inspect.isfunction(part)}
    missing = [name for name, part in code.items() if name not in named and part.__module__ not in whole]
    assert not missing, f"{missing} of {face} are not in docs/api"


def assert_on_page(face, public):
    modules = {name for name in public if inspect.ismodule(getattr(importlib.import_module(face), name))}
    missing = public - modules - {"__version__"} - named_on(face)
    assert not missing, f"{sorted(missing)} of {face} are not in docs/functions.md"


def named_on(face):
    """The names at the head of an entry in the section of that title."""
    text = (ROOT / "docs" / "functions.md").read_text()
    section = re.search(rf"^## {re.escape(face)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, face
    heads = re.findall(r"^(`.*)\n: ", section[1], re.MULTILINE) + re.findall(r"^: (`\w+`)\.", section[1], re.MULTILINE)
    return {name.rpartition(".")[2] for head in heads for name in re.findall(r"`([\w.]+)`", head)}
