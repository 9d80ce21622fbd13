"""figures.jsonl: an article a line, as `description` has it, and beside it the articles that were left out."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

from biomedclip_jax.data.pmc._description import ArticleDescription, describe
from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.data.pmc.sources.selection import ArticleReject, check_license, reject_of
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file
from biomedclip_jax.support.parallel import in_order
from biomedclip_jax.support.terminal import progress_bar

_BATCH = 16  # articles that a worker takes at once
_OPEN_AT_ONCE = 4  # of these; for sources far away, where opening is waiting


def rejects_name(out: Path) -> Path:
    """The file beside `out` for articles that were left out: figures.jsonl -> figures.rejects.jsonl."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.rejects.jsonl")


def write_figures(source: Source, out: Path, *, licenses: frozenset[str] | None = None, workers: int = 1) -> Counter[str]:
    """Write a line for each article into `out`, in the order of the source's keys, whatever the number of processes.

    What is left out, and why, goes to `rejects_name(out)`, a line for each `ArticleReject`.
    licenses: codes that are wanted, of metadata or XML; None: any. Returns counts: articles, figures, "figures with a
    picture", "articles without figures", "images outside figures" if there are any, and one for each reason.
    Raises UserError for a source without articles, and where the files cannot be written; nothing is left
    half-written.
    """
    keys = list(source.keys())
    if not keys:
        raise UserError("no article in this source")
    counts: Counter[str] = Counter({"articles": 0, "figures": 0, "figures with a picture": 0, "articles without figures": 0})

    def write(partial_out: Path) -> None:
        def write_rejects(partial_rejects: Path) -> None:
            with (
                partial_out.open("wb") as lines,
                partial_rejects.open("wb") as rejects,
                progress_bar(len(keys), "article") as bar,
            ):
                for line in _lines(source, keys, licenses, workers):
                    _count(counts, line)
                    _write_line(rejects if isinstance(line, ArticleReject) else lines, line)
                    bar.update()

        write_file(rejects_name(out), write_rejects)

    write_file(out, write)
    return counts


def _count(counts: Counter[str], line: ArticleDescription | ArticleReject) -> None:
    if isinstance(line, ArticleReject):
        counts[line.reason] += 1
        return
    counts["articles"] += 1
    counts["figures"] += len(line.figures)
    counts["figures with a picture"] += sum(figure.graphic_ref is not None for figure in line.figures)
    counts["articles without figures"] += not line.figures
    if line.loose_images:
        counts["images outside figures"] += len(line.loose_images)


def _write_line(file: BinaryIO, line: ArticleDescription | ArticleReject) -> None:
    # a name of a file that is no UTF-8 has surrogates: written as escapes, which JSON knows
    file.write(json.dumps(vars(line), ensure_ascii=False, default=vars).encode("utf-8", "backslashreplace") + b"\n")


def _lines(
    source: Source, keys: Sequence[str], licenses: frozenset[str] | None, workers: int
) -> Iterator[ArticleDescription | ArticleReject]:
    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    work = partial(_batch, source, licenses)
    if min(workers, len(batches)) <= 1:
        for batch in batches:
            yield from work(batch)
        return
    with ExitStack() as stack:
        pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=get_context("spawn"))
        stack.callback(pool.shutdown, cancel_futures=True)
        try:
            for done in in_order(pool, work, batches, 4 * workers):
                yield from done
        except BrokenProcessPool as error:
            raise UserError("a worker process died, for want of memory perhaps; try again with fewer --workers") from error


def _batch(source: Source, licenses: frozenset[str] | None, keys: Sequence[str]) -> list[ArticleDescription | ArticleReject]:
    with ThreadPoolExecutor(_OPEN_AT_ONCE) as threads:
        opened = threads.map(partial(_open, source), keys)
        return [_line(key, files, licenses) for key, files in zip(keys, opened, strict=True)]


def _open(source: Source, key: str) -> ArticleFiles | Exception:
    try:
        return source.open(key)
    except Exception as error:  # one article must not stop all others, nor one reason to reject it hide as another
        return error


def _line(key: str, files: ArticleFiles | Exception, licenses: frozenset[str] | None) -> ArticleDescription | ArticleReject:
    try:
        if isinstance(files, Exception):
            raise files
        line = describe(files)
        check_license(line.license or line.license_url, licenses, files.key)
        return line
    except Exception as error:
        return reject_of(key, error)
