"""What the README shows is what happens."""

import doctest
import re
from pathlib import Path

import numpy as np

from otkit.gaussian import w2_squared
from otkit_vae.penalties import _registry

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_examples_print_what_they_say(monkeypatch):
    monkeypatch.setattr(_registry, "_CLASSES", dict(_registry._CLASSES))
    text = re.sub("^```.*$", "", README, flags=re.MULTILINE)
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert len(example.examples) > 8
    assert doctest.DocTestRunner().run(example).failed == 0


def test_what_it_says_of_the_textbook_formula():
    loc, cov = np.zeros(2), np.array([[2.0, 1.0], [1.0, 2.0]])
    trace = w2_squared(loc, cov, loc, (1 + 1e-7) ** 2 * cov, method="trace")
    # All digits of it are rounding, so it may differ between machines, but not be right.
    assert abs(trace / 4e-14 - 1) > 0.01
