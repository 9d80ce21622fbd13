"""Reader of Parquet and Arrow files with pictures that may have several findings, as the Hugging Face hub has them.

What a row says of its picture is read as from any table: a column for each finding, or one with lists of names, or of
class numbers that the schema names.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from biomedclip_jax.data._picture_pairs import PicturePairs
from biomedclip_jax.data._picture_sources import pictures_of_split
from biomedclip_jax.data.labelled.multi_label import NOT_COUNTED, MultiLabelled
from biomedclip_jax.data.labelled.multi_label_table import (
    Declared,
    FindingRow,
    Said,
    findings_of,
    is_no_finding,
    open_multi_label_table,
    said_of_row,
)
from biomedclip_jax.data.names import SPLITS, in_order, split_of
from biomedclip_jax.data.pairs import ImageOf, Reject, fingerprint, first_reject
from biomedclip_jax.errors import UserError


def open_multi_label(
    source: str, split: str, image_column: str, declared: Declared, findings: Sequence[str] | None = None
) -> MultiLabelled:
    """A split of images with several findings: of files with pictures and their folders, else see `open_multi_label_table`.

    Raises the same errors.
    """
    pairs = pictures_of_split(source, split, image_column)
    if pairs is None:
        return open_multi_label_table(source, split, image_column, declared, findings)
    if findings is None and not declared.columns:  # in the schema's order, where it names them; else of all splits
        named = pairs.names_of(declared.column)
        findings = [name for name in named if not is_no_finding(name, declared.no_finding)] or _of_all(
            source, image_column, declared
        )
    return _of_pictures(source, pairs, declared, findings)


def _of_pictures(source: str, pairs: PicturePairs, declared: Declared, findings: Sequence[str] | None) -> MultiLabelled:
    rejects = list(pairs.rejects)
    rows: list[FindingRow] = []
    kept: list[int] = []
    for index, said in enumerate(_said(pairs, declared)):
        if isinstance(said, str):
            rejects.append(Reject(str(index + 1), pairs.name(index), said))
        else:
            rows.append(FindingRow(str(index + 1), Path(pairs.name(index)), said, only_names=not declared.columns))
            kept.append(index)
    names = findings_of(Path(source), declared, rows, rejects, findings)
    labels = np.array([[row.said.get(name, row.unsaid) for name in names] for row in rows], np.int8)
    labels = labels.reshape(-1, len(names))
    counted = (declared.policy.answers(labels) != NOT_COUNTED).any(axis=1)
    silent = [index for index, counts in zip(kept, counted, strict=True) if not counts]
    rejects += [Reject(str(index + 1), pairs.name(index), "says nothing of any finding") for index in silent]
    kept = [index for index, counts in zip(kept, counted, strict=True) if counts]
    if not kept:
        raise UserError(f"{source}: no usable image, {len(rejects)} left out{first_reject(rejects)}")
    return MultiLabelled(
        name=source,
        findings=names,
        images=[ImageOf(pairs, index) for index in kept],
        names=[pairs.name(index) for index in kept],
        labels=labels[counted],
        fingerprint=fingerprint([*pairs.image_versions(), *map(str, kept)]),
        policy=declared.policy,
        rejects=tuple(rejects),
    )


def _said(pairs: PicturePairs, declared: Declared) -> Iterator[Said | str]:
    """What the row of each pair says; or why that cannot be used."""
    columns = declared.columns or (declared.column,)
    cells = [pairs.cells(column) for column in columns]
    return (said_of_row(dict(zip(columns, own, strict=True)), declared) for own in zip(*cells, strict=True))


def _of_all(source: str, image_column: str, declared: Declared) -> tuple[str, ...] | None:
    """The findings that the rows of all splits name, sorted, so that test and training data have the same; None for none."""
    base = source if Path(source).exists() else split_of(source)[0]
    names: set[str] = set()
    for split in SPLITS:
        try:
            pairs = pictures_of_split(base, split, image_column)
        except UserError:  # no such split
            continue
        names.update(*(said for said in _said(pairs, declared) if not isinstance(said, str)) if pairs is not None else ())
    return in_order(names) or None
