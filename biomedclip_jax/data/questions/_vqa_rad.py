"""VQA-RAD (Lau and others 2018), from any of its three forms, with training parts that leak nothing, less, or as usual.

- MEVF's two files, trainset.json and testset.json, which nearly all published numbers are on;
- the official file, "VQA_RAD Dataset Public.json";
- the Parquet copy of the Hugging Face hub, which has no answer types and no second wordings.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.data._picture_folders import is_picture_folder
from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.data.questions._finish import OURS, finished
from biomedclip_jax.data.questions._gather import Gathered, image_files
from biomedclip_jax.data.questions._json import below, json_rows, text_in
from biomedclip_jax.data.questions._parquet import read_parquet_folder
from biomedclip_jax.data.questions._vqa_rad_links import FRAME, Frames, is_test, linked, number_of, wording
from biomedclip_jax.data.questions.types import QuestionSet
from biomedclip_jax.errors import UserError

SPLITS = ("official", "clean", "mevf", OURS)
TYPES = ("MODALITY", "PLANE", "ORGAN", "ABN", "PRES", "ATTRIB", "SIZE", "COLOR", "POS", "COUNT", "OTHER")
_ROWS = {"official": 1_797, "clean": 2_773, "mevf": 3_064}  # of the training part
_TESTED = 451
_HUB = (1_793, 0, 451)  # rows of the copy there: four training questions less
_OFFICIAL = "VQA_RAD Dataset Public.json"
_MEVF = ("trainset.json", "testset.json")
_KEYS = ("qid", "image_name", "question", "answer", "answer_type", "question_type", "phrase_type")
_IMAGES = ("images", "VQA_RAD Image Folder", "imgs", "")
_OTHER_NAME = re.compile(r"vqa\W*_?rad\W*_?dataset\W*_?public\W*_?\d*\W*\.json", re.IGNORECASE)
Rows = list[dict[str, Any]]


def read_vqa_rad(where: Path, split: str = "official") -> QuestionSet:
    """Read VQA-RAD from a folder, or from its official file.

    split: "official" has the official training questions; "mevf" also the second wordings of all questions, of test
    questions, too; "clean" those without the ones that are of test questions; the test part is the same. "ours" divides
    the official questions anew, by image. UserError for what is none of the three forms, and for a split that it cannot
    give.
    """
    if split not in SPLITS:
        raise UserError(f"vqa-rad: no split {split!r}; expected one of {', '.join(SPLITS)}")
    folder = where if where.is_dir() else where.parent
    pair = [folder / name for name in _MEVF]
    public = where if where.is_file() and where.name not in _MEVF else _official_in(folder)
    if where.is_dir() or where.name in _MEVF:
        there = [path.is_file() for path in pair]
        if all(there):
            return _of_two_files(folder, pair, public, split)
        if any(there) and not public.is_file():
            raise UserError(f"{pair[there.index(False)]}: not there; expected it beside {pair[there.index(True)].name}")
    if public.is_file():
        return _of_official_file(folder, public, split)
    if is_picture_folder(where):
        if split not in ("official", OURS):
            raise UserError(
                f"{where}: no split {split!r}: the Parquet copy has no second wordings; expected official or ours, or "
                f"{' and '.join(_MEVF)} here"
            )
        data = read_parquet_folder("vqa-rad", where, split, whole=_HUB)
        return dataclasses.replace(data, caveats=(*data.caveats, "closed questions are those answered by yes or no"))
    raise UserError(
        f"{where}: no VQA-RAD here; expected {' and '.join(_MEVF)}, {_OFFICIAL!r}, or Parquet files of the hub"
        f"{below(where, (*_MEVF, _OFFICIAL))}"
    )


def _official_in(folder: Path) -> Path:
    """The official file in a folder, also where a copy has other signs or case in its name, or a number at its end."""
    if (folder / _OFFICIAL).is_file():
        return folder / _OFFICIAL
    there = [path for path in sorted(folder.glob("*")) if _OTHER_NAME.fullmatch(path.name) and path.is_file()]
    if len(there) > 1 and len({path.read_bytes() for path in there}) > 1:
        raise UserError(f"{there[0]} and {there[1].name} differ; give the one that is the official file as vqa-rad=FILE")
    return there[0] if there else folder / _OFFICIAL


def _of_two_files(folder: Path, pair: list[Path], public: Path, split: str) -> QuestionSet:
    train, test = (json_rows(path, _KEYS) for path in pair)
    official = json_rows(public, ("image_name", "question")) if public.is_file() else []
    links = linked(train, test, official)
    kept = _kept(links, len(train), split)
    tested = [i for i, row in enumerate(test) if split != OURS or text_in(row, "phrase_type") != FRAME]
    gathered = Gathered(has_types=True)
    for row in (train[i] for i in kept):
        _add(gathered, "train", row)
    flags = [links.tested[i] for i in tested if _add(gathered, "test", test[i])]
    if split != OURS and links.unknown:
        done = "kept" if split == "mevf" else "left out"
        gathered.note(f"{len(links.unknown):,} second wordings of a question that is not here, which may be any: {done}")
    return _done(folder, split, gathered, [*train, *test], flags)


def _kept(links: Frames, count: int, split: str) -> list[int]:
    left_out = {"mevf": frozenset(), "clean": links.leaking | links.unknown}.get(split, links.frames)
    return [i for i in range(count) if i not in left_out]


def _of_official_file(folder: Path, path: Path, split: str) -> QuestionSet:
    rows = json_rows(path, _KEYS)
    rows.sort(key=lambda row: number if (number := number_of(row)) is not None else len(rows) * 10)
    tested = [is_test(row) for row in rows]
    if not any(tested) and split != OURS:
        raise UserError(
            f"{path}: no row has phrase_type test_freeform or test_para, which mark the test questions; expected the whole "
            f"file, or {' and '.join(_MEVF)} beside it"
        )
    from_tests = {wording(row, "question_frame") for row, own in zip(rows, tested, strict=True) if own and _has_frame(row)}
    gathered, flags = Gathered(has_types=True), []
    for row, own in zip(rows, tested, strict=True):
        taken = _add(gathered, "test" if own else "train", row)
        if own and taken:
            flags.append(split == "mevf" and _has_frame(row))
        if split in ("mevf", "clean") and _has_frame(row) and (split == "mevf" or _not_of(row, own, from_tests)):
            frame = {"question": row["question_frame"], "qid": f"{row['qid']} frame", "phrase_type": FRAME}
            _add(gathered, "train", row | frame)
    return _done(folder, split, gathered, rows, flags)


def _has_frame(row: Mapping[str, Any]) -> bool:
    return text_in(row, "question_frame") != ""


def _not_of(row: Mapping[str, Any], of_test: bool, from_tests: set[tuple[str, str]]) -> bool:
    """Whether the row's second wording is of no test question."""
    return not of_test and wording(row, "question_frame") not in from_tests


def _add(gathered: Gathered, part: Any, row: Mapping[str, Any]) -> bool:
    types, corrected = question_types(text_in(row, "question_type"))
    for written, meant in corrected:
        gathered.correct("question type", written, meant)
    return gathered.add(part, row["qid"], text_in(row, "image_name"), row, types) is not None


def question_types(text: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """The types in a comma list, and those that are written otherwise than the paper has them, with what is meant."""
    found, corrected = [], []
    for written in filter(None, (part.strip() for part in re.split(r"[,;/]", text))):
        near = difflib.get_close_matches(written.upper(), TYPES, n=1, cutoff=0.75)
        meant = near[0] if near else written.upper()
        if meant != written:
            corrected.append((written, meant))
        found.append(meant)
    return tuple(dict.fromkeys(found)), corrected


def _done(folder: Path, split: str, gathered: Gathered, rows: Iterable[Mapping[str, Any]], flags: list[bool]) -> QuestionSet:
    names = [text_in(row, "image_name") for row in rows]
    places = [folder / name for name in _IMAGES if (folder / name).is_dir()]
    home = max(places, key=lambda place: len(image_files(place, names)), default=folder)
    images = image_files(home, names)
    used = set(images.values())
    unused = sorted(path.name for path in home.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path not in used)
    if images and unused:
        gathered.note(f"{len(unused):,} images that no question is about: {', '.join(unused[:3])}{', ...' * (len(unused) > 3)}")
    if others := sum(path.name != name for name, path in images.items()):
        gathered.note(f"{others:,} images are files whose name has another case or ending than the questions say")
    count = len(set(names) - {""})
    if missing := count - len(images):
        gathered.note(f"{missing:,} of {count:,} image files are not in {home}")
    data = finished("vqa-rad", str(folder), split, gathered, images, caveats=_not_whole(split, gathered))
    if split != "mevf":
        return data
    if not any(flags):
        return dataclasses.replace(data, notes=(*data.notes, "no test question has a paraphrase in the training part"))
    said = (
        f"{sum(flags):,} of {len(flags):,} test questions have a paraphrase of their own, about the same image, in the "
        "training part: this split leaks"
    )
    return dataclasses.replace(data, leaked=tuple(flags), caveats=(*data.caveats, said))


def _not_whole(split: str, gathered: Gathered) -> list[str]:
    """What to say where the parts have other numbers of questions than the data set."""
    if split == OURS:
        return []
    own = {part: len(gathered.questions[part]) + len(gathered.rejects[part]) for part in ("train", "test")}
    if own == {"train": _ROWS[split], "test": _TESTED}:
        return []
    return [
        f"{own['train']:,} training and {own['test']:,} test questions where VQA-RAD {split} has {_ROWS[split]:,} and "
        f"{_TESTED}: not its numbers"
    ]
