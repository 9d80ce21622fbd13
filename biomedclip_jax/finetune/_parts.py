"""The user's data, looked at and divided: what is learned from, what choices are made on, what the result is judged on.

Pictures that are nearly the same, and rows of one group (a patient, an article), are never in two of the parts. A
held-out set that the user gave is divided in two: on the one half the rate, the moment to stop and the mixture are
chosen, the other half sees the finished model only.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.near_duplicates import MOST, Groups, Look, look_at, near_pairs
from biomedclip_jax.data.own_rows import OwnData, Row, read_own
from biomedclip_jax.data.pairs import Reject, first_reject
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.finetune._checks import check_judged, check_labels, check_splits, tell_group_columns_apart
from biomedclip_jax.finetune.request import Request
from biomedclip_jax.prompts.templates import in_words

TEMPLATE = "a photo of {}"  # one of the two sentences that zero-shot classification asks by
TRAIN, VALIDATION, HELD_OUT = "train", "validation", "held_out"

_SHARE = 0.15  # of the data, for each of validation and held_out, where they are made of it
_MOST_HELD_OUT = 1_000  # pairs, in each of these
_FEWEST = {TRAIN: 8, VALIDATION: 4, HELD_OUT: 4}
_FEWEST_HALVED = 100  # held-out pairs; fewer are used whole for both
_CHAINED = 0.5  # share of the pictures in one group of near duplicates, from which on they are believed no more


@dataclass(frozen=True)
class Parts:
    """The divided data, and what was seen of them. labelled: learned from labels, whose words became captions.

    halved: False where validation and held_out are the same pairs, because there are so few.
    """

    train: list[Row]
    validation: list[Row]
    held_out: list[Row]
    labelled: bool
    classes: tuple[str, ...]
    rejects: list[Reject]
    halved: bool
    lines: list[str]

    def rows(self, part: str) -> list[Row]:
        """The rows of "train", "validation" or "held_out"."""
        return {TRAIN: self.train, VALIDATION: self.validation, HELD_OUT: self.held_out}[part]


def divided(request: Request, folder: Path) -> Parts:
    """Read the data of a request, look at every picture, and divide them. UserError where they are too few."""
    data = read_own(request.data, request.columns, folder / "images" / "train")
    own_lines: list[str] = []
    data, looks = _looked_at(data, own_lines)
    other: OwnData | None = None
    if request.held_out is not None:
        other, more = _looked_at(read_own(request.held_out, request.columns, folder / "images" / "held_out"), own_lines)
        looks = looks + more
    labelled = not data.captioned
    if other is not None and other.captioned == labelled:
        learned, judged = ("labels", "captions") if labelled else ("captions", "labels alone")
        raise UserError(f"{other.source}: has {judged}, but {data.source} has {learned}; expected both with the same")
    both = [data, *([other] if other else [])]
    check_labels(both, own_lines)
    tell_group_columns_apart(both, own_lines)
    rows = [row for each in both for row in each.rows]
    if len({row.captions or row.label for row in rows}) < 2:
        raise UserError(
            f"{request.data}: all rows say the same, {rows[0].label or rows[0].captions[0]!r}; expected two or more"
        )
    groups = _groups(rows, looks, own_lines)
    generator = np.random.default_rng(request.seed)
    if other is not None:
        check_splits(data, other)
        parts = _with_given(data.rows, other.rows, groups, generator, own_lines)
    elif any(row.split for row in rows):
        parts = _with_splits(data, groups, generator, own_lines)
    else:
        parts = _shared_out(list(range(len(rows))), rows, groups, {HELD_OUT: _SHARE, VALIDATION: _SHARE}, generator)
        by = f"by {data.group_column}" if data.group_column else "near duplicates together"
        own_lines.append(f"there is no split: divided here ({by}, seed {request.seed})")
        if data.group_column is None:
            own_lines.append("no column says which rows are of one patient: name it with --group-column, if some are")
    halved = parts[VALIDATION] != parts[HELD_OUT]
    found = {part: [rows[i] for i in positions] for part, positions in parts.items()}
    for part, fewest in _FEWEST.items():
        if len(found[part]) < fewest:
            raise UserError(
                f"{request.data}: {len(rows)} usable rows in {len({groups.of(i) for i in range(len(rows))})} groups give "
                f"{len(found[part])} for {part}; expected at least {fewest}: more groups, or --held-out with data of others"
            )
    for part in (VALIDATION, HELD_OUT):
        check_judged(request.held_out or request.data, part, found[TRAIN], found[part])
    classes = tuple(sorted({row.label for row in rows if row.label is not None}))
    rejects = data.rejects + (other.rejects if other else [])
    lines = [_summary(data, other, looks, found), *own_lines, *_label_lines(found, labelled)]
    return Parts(**found, labelled=labelled, classes=classes, rejects=rejects, halved=halved, lines=lines)


def caption_of(row: Row) -> str:
    """The first caption of a row, or its label in a sentence."""
    return row.captions[0] if row.captions else TEMPLATE.format(in_words(row.label or ""))


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines: image, caption (several as a list), label. Labels alone become captions by `TEMPLATE`."""
    lines = []
    for row in rows:
        caption = list(row.captions) if len(row.captions) > 1 else caption_of(row)
        record = {"image": row.image, "caption": caption} | ({} if row.label is None else {"label": row.label})
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


# --- looking --------------------------------------------------------------------------------------------------------


def _looked_at(data: OwnData, lines: list[str]) -> tuple[OwnData, list[Look]]:
    """The data without pictures that cannot be read, and what is seen of the others, in the order of their rows."""
    images = list(dict.fromkeys(row.image for row in data.rows))
    seen = dict(zip(images, look_at(images), strict=True))
    rejects = list(data.rejects)
    rows, looks = [], []
    labels: dict[bytes, set[str | None]] = {}
    for row in data.rows:
        if isinstance(look := seen[row.image], Look):
            labels.setdefault(look.digest, set()).add(row.label)
    for row in data.rows:
        look = seen[row.image]
        if isinstance(look, UserError):
            rejects.append(Reject(row.number, row.image, str(look)))
        elif not row.captions and len(labels[look.digest]) > 1:
            rejects.append(Reject(row.number, row.image, "a copy of the image has another label"))
        else:
            rows.append(row)
            looks.append(look)
    if not rows:
        raise UserError(f"{data.source}: none of the {len(images)} pictures can be used; the last: {rejects[-1].reason}")
    return dataclasses.replace(data, rows=rows, rejects=rejects), looks


def _groups(rows: Sequence[Row], looks: Sequence[Look], lines: list[str]) -> Groups:
    """What may not be divided: rows of one group, of one picture, of pictures that are nearly the same."""
    groups = Groups(len(rows))
    groups.join_equal(row.group for row in rows)
    groups.join_equal(row.image for row in rows)
    if len(looks) > MOST:
        groups.join_equal(look.digest for look in looks)
        lines.append(f"more than {MOST:,} pictures: only copies of one file were looked for, not near duplicates")
        return groups
    pairs = near_pairs(looks)
    near = Groups(len(rows))
    for i, j in pairs:
        near.join(i, j)
    sizes = Counter(near.of(i) for i in range(len(rows)))
    if max(sizes.values()) > max(_CHAINED * len(rows), 8):
        lines.append("most pictures look nearly the same: only copies of one file were kept together, not near duplicates")
        groups.join_equal(look.digest for look in looks)
        return groups
    for i, j in pairs:
        groups.join(i, j)
    if several := sum(count > 1 for count in sizes.values()):
        number = sum(count for count in sizes.values() if count > 1)
        lines.append(f"{number} pictures are copies or near duplicates of one another ({several} groups): kept together")
    return groups


def _summary(data: OwnData, other: OwnData | None, looks: Sequence[Look], found: dict[str, list[Row]]) -> str:
    sizes = np.array([look.size for look in looks])
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    size = f"{low[0]} x {low[1]}" if (low == high).all() else f"{low[0]} x {low[1]} to {high[0]} x {high[1]}"
    left_out = len(data.rejects) + (len(other.rejects) if other else 0)
    parts = ", ".join(f"{len(rows):,} {name.replace('_', ' ')}" for name, rows in found.items())
    return f"data: {parts} pairs; {left_out} rows left out; pictures of {size} pixels"


def _label_lines(found: dict[str, list[Row]], labelled: bool) -> list[str]:
    if not labelled:
        return []
    counts = {part: Counter(row.label for row in rows) for part, rows in found.items()}
    classes = sorted({label or "" for each in counts.values() for label in each})
    shown = ", ".join(f"{name} {counts[TRAIN][name]}" for name in classes[:12])
    lines = [f"labels become captions ({TEMPLATE.format('LABEL')!r}); training images: {shown}"]
    if missing := [name for name in classes if not counts[TRAIN][name]]:
        lines.append(f"no training image of: {', '.join(missing)}")
    if missing := [name for name in classes if not counts[HELD_OUT][name]]:
        lines.append(f"no held-out image of: {', '.join(missing)}: nothing is measured of these")
    return lines


# --- dividing -------------------------------------------------------------------------------------------------------


def _shared_out(
    positions: Sequence[int], rows: Sequence[Row], groups: Groups, shares: dict[str, float], generator: np.random.Generator
) -> dict[str, list[int]]:
    """Divide rows into parts, whole groups to one of them, so that each label is in each part by its share.

    The rest is "train". A part takes `_MOST_HELD_OUT` rows at most.
    """
    members: dict[int, list[int]] = {}
    for i in positions:
        members.setdefault(groups.of(i), []).append(i)
    by_label: dict[str, list[list[int]]] = {}
    for own in members.values():
        label = Counter(rows[i].label or "" for i in own).most_common(1)[0][0]
        by_label.setdefault(label, []).append(own)
    found: dict[str, list[int]] = {TRAIN: [], **{part: [] for part in shares}}
    for label in sorted(by_label):
        own_groups = [by_label[label][i] for i in generator.permutation(len(by_label[label]))]
        total = sum(map(len, own_groups))
        taken = dict.fromkeys(shares, 0)
        most = _MOST_HELD_OUT * total / len(positions)
        for own in own_groups:
            lacks = {part: min(share * total, most) - taken[part] for part, share in shares.items()}
            part = max(lacks, key=lambda each: lacks[each])
            if lacks[part] < len(own) / 2 or len(own_groups) == 1:
                part = TRAIN
            else:
                taken[part] += len(own)
            found[part] += own
    return {part: sorted(found[part]) for part in (TRAIN, VALIDATION, HELD_OUT) if part in found}


def _halved(
    positions: Sequence[int], rows: Sequence[Row], groups: Groups, generator: np.random.Generator
) -> dict[str, list[int]]:
    """Held-out rows in two halves, or whole twice where there are few."""
    if len(positions) < _FEWEST_HALVED:
        return {VALIDATION: list(positions), HELD_OUT: list(positions)}
    both = _shared_out(positions, rows, groups, {VALIDATION: 0.5}, generator)
    return {VALIDATION: both[VALIDATION], HELD_OUT: both[TRAIN]}


def _with_given(
    own: Sequence[Row], held_out: Sequence[Row], groups: Groups, generator: np.random.Generator, lines: list[str]
) -> dict[str, list[int]]:
    """Parts where the user gave a held-out set: training rows that it has, too, are left out."""
    rows = [*own, *held_out]
    judged = list(range(len(own), len(rows)))
    taken = {groups.of(i) for i in judged}
    train = [i for i in range(len(own)) if groups.of(i) not in taken]
    if (both := len(own) - len(train)) > len(own) / 2:
        raise UserError(
            f"{both} of the {len(own)} training rows have a picture, a near duplicate or a group that is held out, too; "
            "what is learned from these is no measure: give other held-out data, or none"
        )
    if both:
        lines.append(f"{both} training rows have a picture, a near duplicate or a group that is held out, too: left out")
    halves = _halved(judged, rows, groups, generator)
    _say_halves(halves, lines)
    return {TRAIN: train, **halves}


def _with_splits(data: OwnData, groups: Groups, generator: np.random.Generator, lines: list[str]) -> dict[str, list[int]]:
    """Parts where the data say which rows are which."""
    rows = data.rows
    of = {split: [i for i, row in enumerate(rows) if row.split == split] for split in ("train", "validation", "test")}
    given = {split: positions for split, positions in of.items() if positions}
    if "train" not in given or len(given) < 2:
        raise UserError(
            f"{data.source}: its usable rows are of the split {' and '.join(given)} alone; expected train, and validation or "
            f"test{first_reject(data.rejects)}"
        )
    later = {groups.of(i) for i in of["validation"] + of["test"]}
    train = [i for i in of["train"] if groups.of(i) not in later]
    if both := len(of["train"]) - len(train):
        if both > len(of["train"]) / 2:
            raise UserError(
                f"{data.source}: {both} of {len(of['train'])} training rows have a picture, a near duplicate or a group that "
                "is in another split, too; divide it by these, or leave its splits out and it is divided here"
            )
        lines.append(f"{both} training rows have a picture, a near duplicate or a group of another split: left out")
    if len(given) == 3:
        tested = {groups.of(i) for i in of["test"]}
        chosen_by = [i for i in of["validation"] if groups.of(i) not in tested]
        if both := len(of["validation"]) - len(chosen_by):
            lines.append(f"{both} validation rows have a picture, a near duplicate or a group of the test split: left out")
        return {TRAIN: train, VALIDATION: chosen_by, HELD_OUT: of["test"]}
    halves = _halved(of["validation"] or of["test"], rows, groups, generator)
    _say_halves(halves, lines)
    return {TRAIN: train, **halves}


def _say_halves(halves: dict[str, list[int]], lines: list[str]) -> None:
    if halves[VALIDATION] == halves[HELD_OUT]:
        lines.append(
            f"only {len(halves[HELD_OUT])} held-out rows: choices are made on the rows that the result is judged on, which "
            "flatters it somewhat"
        )
    else:
        lines.append(
            f"held-out rows: {len(halves[VALIDATION])} for choices (rate, when to stop, mixture), the other "
            f"{len(halves[HELD_OUT])} for the result"
        )
