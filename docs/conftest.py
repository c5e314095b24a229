"""The Python blocks of every page run as tests; the figures run when the site is built."""

from doctest import ELLIPSIS
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from otkit_vae.penalties import _registry

KNOWN = dict(_registry._CLASSES)


def forget(namespace: dict[str, Any]) -> None:
    """Leave no page's penalty to the tests that follow."""
    for name in set(_registry._CLASSES) - set(KNOWN):
        del _registry._CLASSES[name]


collect_ignore_glob = ["conf.py", "measured.py", "figures/*"]
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()], patterns=["*.md"], teardown=forget
).pytest()
