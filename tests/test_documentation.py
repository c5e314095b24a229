"""What the documentation says of measurements is what was recorded."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import recorded
from tests.benchmarks.__main__ import CLAIMS

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)
FILES = sorted(recorded.FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_record_is_of_a_claim_and_stands_on_a_page(file):
    assert file.stem in CLAIMS
    assert recorded.table(file.stem).count("\n|") > 2
    sources = [*PAGES, ROOT / "README.md", *(ROOT / "docs" / "figures").glob("*.py")]
    assert any(file.stem in source.read_text() for source in sources)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_tables_have_no_numbers_but_those_of_a_command(page):
    """A table with a decimal stands between the marks of a record, or below the words "Made by `command`"."""
    text = recorded.BLOCK.sub("", page.read_text())
    made = text.find("Made by `")
    for row in re.finditer(r"^\|.*$", text, re.MULTILINE):
        assert not re.search(r"\d\.\d|\de-?\d", row[0]) or 0 <= made < row.start(), row[0]


def test_tables_of_the_readme_are_those_of_the_record():
    text = recorded.README.read_text()
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
