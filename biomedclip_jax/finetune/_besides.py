"""Data besides the user's own: the forgetting check, pairs that are replayed; and where everything may lie."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.demo.sources import PREFIX, demo_path, make_demo_of
from biomedclip_jax.data.names import split_of
from biomedclip_jax.data.own_rows import Columns, Row, read_own
from biomedclip_jax.data.pairs import first_reject
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune._judge import JudgedData, judged_data
from biomedclip_jax.finetune._parts import Parts, write_rows
from biomedclip_jax.finetune.request import Request

_FEWEST_HALVED = 1_000  # rows of the check; on 80 of them, a half of the demo's, chance alone moves a score by five points


@dataclass(frozen=True)
class Keep:
    """What a model must not become worse on.

    choice: rows that the mixture is chosen by. judged: rows that the result is judged on; the same where there are few.
    """

    name: str
    choice: JudgedData
    judged: JudgedData


def kept(request: Request, parts: Parts, out: Path) -> Keep | None:
    """The forgetting check, without pictures that are trained on.

    Many rows are by turns for the choice and for the result. Fewer are used whole for both: whether they allow a mixture
    is a bound and no contest, and half of them would forbid good ones by chance.
    """
    if request.keep is None:
        return None
    rows = _other_rows(request.keep, out)
    if rows is None:
        return None
    rows = _without(f"--keep {request.keep}", rows, parts.train, "training data")
    captions = all(row.captions for row in rows)
    by_label = sorted(range(len(rows)), key=lambda i: (rows[i].label or "", i))
    turns = 2 if len(rows) >= _FEWEST_HALVED else 1
    parts_of = [[rows[i] for i in sorted(by_label[first::turns])] for first in range(turns)]
    write_rows(parts_of[-1], out / "data" / "keep.jsonl")
    choice, judged = (judged_data(parts_of[i], captions) for i in (0, -1))
    if any(not each.captions and not each.classes for each in (choice, judged)):
        raise UserError(f"--keep {request.keep}: {len(rows)} rows of one class and without captions tell nothing")
    if turns == 1:
        print(f"forgetting check: its {len(rows)} rows are too few to halve: they limit the mixture and judge the result")
    return Keep(request.keep, choice, judged)


def replay(request: Request, parts: Parts, keep: Keep | None, out: Path) -> int:
    """The number of pairs that are replayed, without pictures that something is judged by; their table is written."""
    if request.replay is None:
        return 0
    rows = _other_rows(request.replay, out)
    if rows is None:
        return 0
    judged = [*parts.validation, *parts.held_out, *(keep.choice.rows if keep else ()), *(keep.judged.rows if keep else ())]
    rows = _without(f"--replay {request.replay}", rows, judged, "held-out data or the forgetting check")
    write_rows(rows, out / "data" / "replay.jsonl")
    print(f"replayed: {len(rows)} pairs of {request.replay}, {request.replay_share:.0%} of what is trained on")
    return len(rows)


def _without(source: str, rows: Sequence[Row], others: Iterable[Row], where: str) -> list[Row]:
    """The rows without those of a picture that others have, too, which is said. UserError if none is left."""
    files = {_digest(row.image) for row in others}
    left = [row for row in rows if _digest(row.image) not in files]
    if not left:
        raise UserError(f"{source}: each of its pictures is in the {where}, too; expected other pictures")
    if len(left) < len(rows):
        print(f"{source}: {len(rows) - len(left)} of its {len(rows)} pictures are in the {where}, too: left out")
    return left


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _other_rows(source: str, out: Path) -> list[Row] | None:
    """The rows of data besides the user's own; None, with a line, where these are the demo's and can't be made."""
    where = source
    if source.startswith(PREFIX):
        try:
            make_demo_of(source, out / "demo")
        except UserError as error:
            if source not in (Request.keep, Request.replay):
                raise
            what, flag = ("replay", "--replay") if source == Request.replay else ("forgetting check", "--keep")
            print(f"no {what}: {error}; or name data of your own with {flag}")
            return None
        where = demo_path(source, out / "demo")
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]  # the pictures of two tars have the same names
    found = read_own(where, Columns(), out / "images" / digest)
    if found.rejects:
        print(f"{source}: {len(found.rejects)} rows were left out{first_reject(found.rejects)}")
    return found.rows


def check_place(request: Request, out: Path) -> None:
    """UserError where the folder of the result holds what is read, or lies in a folder whose pictures are read."""
    place = out.resolve()
    for name in ("model", "data", "held_out", "keep", "replay"):
        value = getattr(request, name)
        if value is None:
            continue
        path = Path(value if os.path.exists(value) else split_of(value)[0]).resolve()
        if path.exists() and place in (path, *path.parents):
            raise UserError(f"--out {out}: holds {value}, which is read; choose a folder of its own")
        if name != "model" and path.is_dir() and path in place.parents:
            raise UserError(f"--out {out}: lies in {value}, whose pictures are read; choose a folder outside it")
