"""Sphinx: ``python -m sphinx -W -b html docs build/html``, with the ``docs`` extra."""

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "otkit"
author = "The otkit developers"
version = release = installed("otkit")

extensions = [
    "measured",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
    "matplotlib.sphinxext.plot_directive",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and symbols
napoleon_use_ivar = True
napoleon_use_rtype = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

plot_basedir = "."
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("svg", 100)]
plot_rcparams = {
    "figure.figsize": (6.4, 3.4),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "otkit",
}
plot_apply_rcparams = True

html_theme = "furo"
html_title = f"otkit {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app):
    """Shapes like (N, *event) are shapes, not emphasis."""
    app.connect(
        "autodoc-process-docstring", lambda *a: a[-1].__setitem__(slice(None), [_shapes(line) for line in a[-1]])
    )


def _shapes(line):
    return re.sub(r"([(, ])\*event", r"\1\\*event", line)
