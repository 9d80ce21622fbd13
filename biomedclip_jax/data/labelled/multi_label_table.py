"""Reader of tables whose images may have several findings: their names in one column, or a 0/1 column for each.

One column: names joined by a sign (`Edema|Mass`), a list (JSON lines, Parquet), or its text (`['edema', 'mass']`).
A column for each: 1 present, 0 absent, -1 uncertain, nothing where nothing is said.
A name such as NIH's and CheXpert's "No Finding" is no finding of its own: it says that all findings are absent.
"""

import ast
import io
import os
import re
import tokenize
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from biomedclip_jax.data._table_rows import absent, image_file, is_table, not_there, table_rows, text_of
from biomedclip_jax.data.labelled.groups import each_of
from biomedclip_jax.data.labelled.multi_label import (
    ABSENT,
    NOT_COUNTED,
    NOTHING_SAID,
    PRESENT,
    UNCERTAIN,
    MultiLabelled,
    Policy,
)
from biomedclip_jax.data.names import (
    check_names,
    combination,
    in_order,
    matching_split,
    names_of,
    no_known_split,
    require_whole,
    split_of,
)
from biomedclip_jax.data.pairs import Reject, file_fingerprint, first_reject
from biomedclip_jax.data.tables import SPLIT_COLUMN
from biomedclip_jax.errors import UserError

SEPARATOR = "|"
NO_FINDING = "No Finding"
_CODES = {
    **dict.fromkeys(("1", "true"), PRESENT),
    **dict.fromkeys(("0", "-0", "false"), ABSENT),
    "-1": UNCERTAIN,
    "": NOTHING_SAID,
}
_LIST = re.compile(r"\[.*\]$|\[['\"]", re.DOTALL)  # a text that is a list, or begins as one
_BESIDE_NO_FINDING = "support devices"  # CheXpert's labeller says both of one image: a tube is no disease

# of one image: a label for each finding that its row says something of
Said = Mapping[str, int]


@dataclass(frozen=True)
class Declared:
    """How the user says that a table names findings.

    column: the one with names, joined by `separator`; columns: instead of it, one for each finding.
    no_finding: the name, or the column, that says that there is none; its case and _ for blanks do not matter.
    """

    column: str = "label"
    separator: str = SEPARATOR
    columns: tuple[str, ...] = ()
    policy: Policy = Policy()
    no_finding: str = NO_FINDING


@dataclass(frozen=True)
class FindingRow:
    """An image and what its row says of it.

    number: of the row. said: labels by finding; the others are `unsaid`, absent where a row names all that is present.
    group: what the image belongs to, where that is known.
    """

    number: str
    image: Path
    said: Said
    split: str = ""
    only_names: bool = False
    group: str | None = None

    @property
    def unsaid(self) -> int:
        """The label of a finding that the row does not have: absent where it names those that are present."""
        return ABSENT if self.only_names else NOTHING_SAID


def open_multi_label_table(
    source: str, split: str, image_column: str, declared: Declared, findings: Sequence[str] | None = None
) -> MultiLabelled:
    """The rows of a table (`FILE` or `FILE:split`) that belong to a split, in the table's order.

    Splits are those of `open_labelled_table`. findings: their names in order, where they must be those of another
    table; by default those of `columns`, or of all rows, sorted. Rows that do not say what they should, that contradict
    themselves or another row of the same image, and those without an image file are in `rejects`.
    Raises UserError for what is no such table, names that cannot be told apart, and a table of which nothing is left.
    """
    path, split = _table_of(source, split)
    rejects: list[Reject] = []
    rows = list(finding_rows(path, image_column, declared, rejects))
    splits = {row.split: None for row in rows if row.split}
    if splits:
        matching_split(path, split, splits)
        wanted = {name.lower() for name in names_of(split)}
        unknown = ((row, no_known_split(row.split, split)) for row in rows if row.split.lower() not in wanted)
        rejects += [Reject(row.number, str(row.image), reason) for row, reason in unknown if reason]
    else:
        require_whole(path, split, f"add a column {SPLIT_COLUMN!r} with train, validation or test")
        wanted = {""}
    names = findings_of(path, declared, rows, rejects, findings)
    own = [row for row in rows if row.split.lower() in wanted]
    return multi_labelled_files(str(path), names, own, rejects, policy=declared.policy)


def multi_labelled_files(
    name: str,
    findings: Sequence[str],
    rows: Iterable[FindingRow],
    rejects: Sequence[Reject] = (),
    *,
    policy: Policy,
    caveats: Sequence[str] = (),
    grouped_by: str = "",
) -> MultiLabelled:
    """Image files with their findings; what cannot be used joins `rejects`. UserError if nothing is left.

    grouped_by: what the groups of the rows are; "" where they have none.
    """
    kept, left, together = one_row_an_image(rows)
    labels = np.array([[row.unsaid] * len(findings) for row in kept], np.int8).reshape(-1, len(findings))
    position = {finding: number for number, finding in enumerate(findings)}
    for line, row in zip(labels, kept, strict=True):
        for finding, label in row.said.items():
            line[position[finding]] = label
    counted = (policy.answers(labels) != NOT_COUNTED).any(axis=1)
    left += [Reject(row.number, str(row.image), "says nothing of any finding") for row in np.array(kept, object)[~counted]]
    left = [*rejects, *left]
    kept = [row for row, counts in zip(kept, counted, strict=True) if counts]
    if not kept:
        raise UserError(f"{name}: no usable image, {len(left)} left out{first_reject(left)}")
    paths = [row.image for row in kept]
    if together:
        caveats = [*caveats, f"{together:,} images have several rows, whose findings were taken together"]
    return MultiLabelled(
        name=name,
        findings=tuple(findings),
        images=paths,
        names=[str(path) for path in paths],
        labels=labels[counted],
        fingerprint=file_fingerprint(paths),
        policy=policy,
        rejects=tuple(left),
        caveats=tuple(caveats),
        groups=each_of([row.group for row in kept]) if grouped_by else None,
        grouped_by=grouped_by,
    )


def code(value: object) -> int | None:
    """The label that a cell of a 0/1 column holds; None for what is none of 1, 0, -1, true, false or nothing."""
    return _CODES.get(text_of(_number(value)).lower())


def names_joined(text: str, separator: str) -> list[str]:
    """The different names in a text, in its order, without blanks round them."""
    return list(dict.fromkeys(name.strip() for name in text.split(separator) if name.strip()))


def is_no_finding(name: str, known: str = NO_FINDING) -> bool:
    """Whether a name says that there is no finding."""
    return _plain(name) in (_plain(known), f"{_plain(known)}s")


def said_of_columns(cells: Mapping[str, object], no_finding: str) -> Said | str:
    """The labels of an image by finding, from its cells by column; or why they cannot be used.

    A column that `is_no_finding` makes absent, where it is 1, what nothing is said of.
    """
    codes = {column: code(cell) for column, cell in cells.items()}
    if (wrong := next((column for column, found in codes.items() if found is None), None)) is not None:
        return f"{wrong} holds {text_of(cells[wrong]) or str(cells[wrong])!r}; expected 1, 0, -1 or nothing"
    said = {column: found for column, found in codes.items() if found is not None and not is_no_finding(column, no_finding)}
    if any(found == PRESENT for column, found in codes.items() if is_no_finding(column, no_finding)):
        for column, found in said.items():
            if found in (PRESENT, UNCERTAIN) and _plain(column) != _BESIDE_NO_FINDING:
                return f"says both {no_finding!r} and {column!r}"
        return {column: ABSENT if found == NOTHING_SAID else found for column, found in said.items()}
    return {column: found for column, found in said.items() if found != NOTHING_SAID}


def finding_rows(path: Path, image_column: str, declared: Declared, rejects: list[Reject]) -> Iterator[FindingRow]:
    """The rows that say something that can be understood; of names in one column only those that are present."""
    columns = declared.columns or (declared.column,)
    for number, row in table_rows(path, [image_column, *columns], [SPLIT_COLUMN], rejects):
        image = image_file(path, row, image_column)
        said = said_of_row(row, declared)
        if isinstance(said, str):
            rejects.append(Reject(str(number), str(image), said))
        else:
            yield FindingRow(str(number), image, said, text_of(row.get(SPLIT_COLUMN)), not declared.columns)


def said_of_row(row: Mapping[str, object], declared: Declared) -> Said | str:
    """What a row says of its image, from its cells by column; or why that cannot be used."""
    if declared.columns:
        return said_of_columns({column: row[column] for column in declared.columns}, declared.no_finding)
    return _said_of_names(row[declared.column], declared)


def _said_of_names(cell: object, declared: Declared) -> Said | str:
    names = _names(cell, declared.separator)
    if isinstance(names, str):
        return names
    if not names and cell not in ("[]", []) and declared.policy.empty == "ignore":
        return absent("label", cell)
    found = [name for name in names if not is_no_finding(name, declared.no_finding)]
    if found and len(found) < len(names):
        return f"says both {declared.no_finding!r} and {found[0]!r}"
    return dict.fromkeys(found, PRESENT)


def _names(cell: object, separator: str) -> list[str] | str:
    """The names in a cell; or why there are none to be had."""
    if isinstance(cell, str) and _LIST.match(cell.strip()):
        listed = _list_of_text(cell.strip())
        if listed is None:
            return f"label is no list of names ({cell.strip()!r})"
        cell = listed
    if not isinstance(cell, list | tuple):
        if isinstance(cell, dict):
            return absent("label", cell)
        return names_joined(text_of(cell), separator)
    if any(isinstance(each, list | tuple | dict) for each in cell):
        return "label holds a list in which not all are names"
    return list(dict.fromkeys(filter(None, map(text_of, cell))))


def _list_of_text(text: str) -> list[object] | None:
    """The list that a text is as Python or JSON write it. "['a' 'b']", as NumPy prints it, would become one name: None."""
    try:
        found = ast.literal_eval(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        return None
    texts = sum(token.type == tokenize.STRING for token in tokens)
    return found if isinstance(found, list) and texts == sum(isinstance(each, str) for each in found) else None


def one_row_an_image(rows: Iterable[FindingRow]) -> tuple[list[FindingRow], list[Reject], int]:
    """A row for each image; what cannot be used; and of how many images the names of several rows were taken together."""
    by_image: dict[Path, list[FindingRow]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    kept: list[FindingRow] = []
    left: list[Reject] = []
    together = 0
    for image, own in by_image.items():
        if not os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
            left += [Reject(row.number, str(image), not_there(image)) for row in own]
        elif len(own) > 1 and all(row.only_names and bool(row.said) == bool(own[0].said) for row in own):
            said = {finding: label for row in own for finding, label in row.said.items()}
            kept.append(replace(own[0], said=said))
            together += 1
        elif all(row.said == own[0].said for row in own):
            kept.append(own[0])
            left += [Reject(row.number, str(image), "the same row once more") for row in own[1:]]
        else:
            left += [Reject(row.number, str(image), "the image has other labels in another row") for row in own]
    return kept, left, together


def findings_of(
    path: Path, declared: Declared, rows: Sequence[FindingRow], rejects: Sequence[Reject], known: Sequence[str] | None
) -> tuple[str, ...]:
    """The names of all findings in order: `known`, those of the columns, or those in the rows, sorted.

    UserError for none, for names that cannot be told apart, and for one that is not `known`.
    """
    if declared.columns:
        names = tuple(column for column in declared.columns if not is_no_finding(column, declared.no_finding))
    else:
        names = in_order(name for row in rows for name in row.said)
        signs = "|;,/".replace(declared.separator, "")
        if (several := combination(names, signs, ())) is not None:
            raise UserError(
                f"{path}: label {several!r} seems to be several names, joined by another sign than {declared.separator!r}; say "
                "which with --separator"
            )
    check_names(path, names)
    if (twice := next((name for name in names if list(map(_plain, names)).count(_plain(name)) > 1), None)) is not None:
        alike = [name for name in names if _plain(name) == _plain(twice)]
        raise UserError(f"{path}: {' and '.join(map(repr, alike))} differ in case or _ alone; write each finding in one way")
    if known is not None:
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{path}: unknown finding {unknown[0]!r}; expected some of {', '.join(known)}")
        names = tuple(known)
    if not names:
        left = f", {len(rejects)} left out{first_reject(rejects)}" if rejects else ""
        raise UserError(f"{path}: no finding in {len(rows)} rows{left}; is {declared.column!r} the column with their names?")
    return names


def _table_of(source: str, split: str) -> tuple[Path, str]:
    """The table that a source names, and the split that is wanted of it. UserError for what is no table."""
    for name, own in ((source, None), split_of(source)):
        if is_table(name) and "://" not in name:
            return Path(name), own or split
    raise UserError(
        f"{source}: several labels an image are read from tables (.csv, .tsv, .jsonl, .parquet), Parquet and Arrow files "
        "with pictures and their folders, and of the benchmarks that have them; write a table with a row for each image"
    )


def _number(value: object) -> object:
    """1 for the text "1.0": in tables with empty cells codes are written so."""
    try:
        return float(value) if isinstance(value, str) and value.strip() else value
    except ValueError:
        return value


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split()).casefold()
