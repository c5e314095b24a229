"""The Python blocks of every page run as tests; the figures run when the site is built."""

from doctest import ELLIPSIS

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

collect_ignore_glob = ["conf.py", "measured.py", "figures/*"]
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()], patterns=["*.md"]
).pytest()
