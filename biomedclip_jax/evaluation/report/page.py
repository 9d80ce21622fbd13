"""The report of an evaluation: one HTML page with every table and picture, which needs nothing else."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.evaluation.report.tables import Table
from biomedclip_jax.files import write_file
from biomedclip_jax.support import html as html_page

_LIBRARIES = ("biomedclip_jax", "jax", "flax", "numpy", "scikit-learn", "pillow")
_SHOWN = ("left_out", "differences", "per_class", "approximate")  # of the details, what a reader wants to see beside the tables


def write_results_page(folder: Path, results: Sequence[Result], tables: Sequence[Table]) -> None:
    """`report.html` in `folder`, with the pictures that the results name, which lie there too."""
    parts = [html_page.paragraph(f"Made with {_versions()}.")]
    for table in tables:
        parts += [html_page.heading(table.title), html_page.table(table.head, table.rows)]
        if table.note:
            parts.append(html_page.paragraph(table.note))
    pictures = {file: title for result in results for file, title in result.pictures.items()}
    parts += [html_page.picture(title, folder / file) for file, title in pictures.items() if (folder / file).is_file()]
    parts.append(html_page.heading("Settings and details"))
    for result in results:
        known = {"settings": result.settings} | {name: result.details[name] for name in _SHOWN if name in result.details}
        parts.append(html_page.folded(f"{result.task}, {result.dataset}, {result.who}", json.dumps(known, indent=1)))
    write_file(folder / "report.html", lambda partial: html_page.write_page(partial, "Evaluation", parts))


def _versions() -> str:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])
