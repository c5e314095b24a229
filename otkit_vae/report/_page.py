"""A page from its template and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from otkit import __version__
from otkit_vae._files import write_text
from otkit_vae.report._run import number

REPORT = "report.html"
"""The file of a report, in the folder of a run or a comparison."""


def write_page(folder: Path, template: str, **content: Any) -> Path:
    """Render a template into report.html of a folder, in one step."""
    environment = Environment(
        loader=PackageLoader("otkit_vae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    text = environment.get_template(template).render(version=__version__, **content)
    file = folder / REPORT
    write_text(file, text)
    return file
