"""The directive ``measured``: a table of what the benchmarks have recorded, made when the site is built.

```{measured} gaussian_w2_is_faster_than_pot
:cases: ^value and gradients
:threads: 1
```
"""

import sys
from pathlib import Path

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.benchmarks import recorded


class Measured(SphinxDirective):
    """Its argument is the name of a claim; its options choose among the rows."""

    required_arguments = 1
    option_spec = {"cases": directives.unchanged, "threads": directives.positive_int}  # noqa: RUF012

    def run(self):
        """Make the nodes of the table."""
        claim = self.arguments[0]
        try:
            text = recorded.table(claim, **self.options)
        except (OSError, ValueError) as error:
            raise self.error(
                f"{error}; record it by python -m tests.benchmarks {claim} --json docs/measurements"
            ) from error
        self.env.note_dependency(str(recorded.FOLDER / f"{claim}.jsonl"))
        return self.parse_text_to_nodes(text)


def setup(app):
    """Register it, and have the plots of records made anew that are older than these."""
    newest = max(file.stat().st_mtime for file in recorded.FOLDER.glob("*.jsonl"))
    for figure in Path(__file__).parent.glob("figures/*.py"):
        if "recorded" in figure.read_text() and figure.stat().st_mtime < newest:
            figure.touch()
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True}
