"""One HTML page that holds every table and picture of an evaluation, and what was measured, row by row."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.evaluation.report._table import Table
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.files import write_file
from biomedclip_jax.support import html as html_page

_LIBRARIES = ("biomedclip_jax", "jax", "flax", "numpy", "scikit-learn", "pillow")
_OF_ANSWERS = ("parts", "notes", "per_question_type", "answered")
# the details that a reader wants to see beside the tables
_SHOWN = ("no_interval", "caveats", "left_out", "cut_off", "per_class", "per_finding", "recall_against_exact", *_OF_ANSWERS)


def write_results_page(folder: Path, results: Sequence[Result], tables: Sequence[Table]) -> None:
    """Write `report.html` into `folder`, with the pictures that the results name, which are files in this folder."""
    parts = [html_page.paragraph(f"Made with {_versions()}.")]
    for table in tables:
        parts += [html_page.heading(table.title), html_page.table(table.head, table.rows)]
        if table.note:
            parts.append(html_page.paragraph(table.note))
    pictures = {file: title for result in results for file, title in result.pictures.items()}
    parts += [html_page.picture(title, folder / file) for file, title in pictures.items() if (folder / file).is_file()]
    parts.append(html_page.heading("Settings and details"))
    for result in results:
        known = {} if result.measured is None else {"measured": dataclasses.asdict(result.measured)}
        known |= {"settings": result.settings} | {name: result.details[name] for name in _SHOWN if name in result.details}
        about = f"{result.task}, {result.dataset}, {result.n:,}, {result.who} (row {result.id})"
        parts.append(html_page.folded(about, json.dumps(known, indent=1)))
    write_file(folder / "report.html", lambda partial: html_page.write_page(partial, "Evaluation", parts))


def _versions() -> str:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])
