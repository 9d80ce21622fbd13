"""The folder of an evaluation: the rows of earlier ones in it, and all that is written there after each task."""

import sys
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.evaluation.benchmarks import published
from biomedclip_jax.evaluation.report.clip_benchmark import write_clip_benchmark
from biomedclip_jax.evaluation.report.differences import paired, write_differences
from biomedclip_jax.evaluation.report.page import write_results_page
from biomedclip_jax.evaluation.report.results import RESULTS, Result, read_results, write_results
from biomedclip_jax.evaluation.report.tables import markdown, tables
from biomedclip_jax.files import write_text


def results_of_before(out: Path) -> list[Result]:
    """The rows of earlier evaluations. UserError, before hours of work, where no table could be made of them."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file; expected a folder, new or with earlier results")
    found = read_results(out)
    try:
        markdown(tables(found, published))
    except Exception as error:  # what somebody has changed by hand
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{out / RESULTS}: no tables can be made of it ({reason}); give another folder, or remove it"
        ) from error
    if old := sum(row.measured is None for row in found):
        print(
            f"{out / RESULTS}: {old} of {len(found)} rows are of an earlier version, which did not record weights and data: "
            "they are kept, in tables of their own",
            file=sys.stderr,
        )
    return found


def write_evaluation(out: Path, results: Sequence[Result], changed: Sequence[Result], resamples: int, seed: int) -> None:
    """Write all results, as tables and a page, too; pairs with a row of `changed` are compared anew.

    resamples, seed: of the bootstrap behind the differences.
    """
    write_results(out, results)
    differences = paired(out, results, changed, resamples, seed)
    write_differences(out, differences, results)
    shown = tables(results, published, differences)
    write_text(out / "results.md", markdown(shown))
    write_clip_benchmark(out / "clip_benchmark", results)
    write_results_page(out, results, shown)
