"""SLAKE (Liu and others 2021): train.json, validate.json and test.json, pictures in imgs/, in English and Chinese."""

from pathlib import Path
from typing import Any, Literal

from biomedclip_jax.data._picture_folders import is_picture_folder
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions._finish import OURS, finished
from biomedclip_jax.data.questions._gather import Gathered, image_files
from biomedclip_jax.data.questions._json import below, json_rows, text_in
from biomedclip_jax.data.questions._parquet import read_parquet_folder
from biomedclip_jax.data.questions.types import Part, QuestionSet
from biomedclip_jax.errors import UserError

SPLITS = ("official", OURS)
Language = Literal["en", "zh", "both"]
_ROWS = {"en": (4_919, 1_053, 1_061), "zh": (4_916, 1_046, 1_033)}
_VALIDATION = ("validate.json", "validation.json")  # as released, and as copies on the hub call it
_KEYS = ("img_name", "question", "answer", "answer_type", "q_lang", "qid")


def read_slake(where: Path, split: str = "official", language: Language = "en") -> QuestionSet:
    """Read SLAKE from a folder with its JSON files, or with Parquet files of the hub.

    The languages are divided differently: 72 of the 96 images of the English test part are in the Chinese training
    part. So "both" is for the split "ours", which divides all questions by image. Without test.json, which some copies
    lack, the validation part is tested. UserError for what is not SLAKE.
    """
    if split not in SPLITS:
        raise UserError(f"slake: no split {split!r}; expected one of {', '.join(SPLITS)}")
    if language == "both" and split != OURS:
        raise UserError(
            "slake: its two languages are divided differently, 72 of 96 English test images are in the Chinese training part: "
            f"with both languages say --split {OURS}"
        )
    if not (where / "train.json").is_file():
        if is_picture_folder(where):
            return read_parquet_folder("slake", where, split, language, _ROWS.get(language, ()))
        raise UserError(
            f"{where}: no SLAKE here; expected train.json, {_VALIDATION[0]} and test.json{below(where, ['train.json'])}"
        )
    files: dict[Part, Path] = {"train": where / "train.json"}
    if (validation := _validation(where)) is not None:
        files["validation"] = validation
    if (where / "test.json").is_file():
        files["test"] = where / "test.json"
    elif validation is None:
        raise UserError(f"{where / 'test.json'}: not there, nor is {_VALIDATION[0]}; expected one of them to test on")
    gathered = Gathered(has_types=True)
    names: dict[str, None] = {}
    counts: dict[Part, int] = {}
    for part, path in files.items():
        rows = json_rows(path, _KEYS)
        as_part: Part = "test" if part == "validation" and "test" not in files and split != OURS else part
        counts[part] = sum(_add(gathered, as_part, row, language) for row in rows)
        names |= dict.fromkeys(text_in(row, "img_name") for row in rows)
    places = [place for place in (where / "imgs", where) if place.is_dir()]
    images = max((image_files(place, filter(None, names)) for place in places), key=len)
    if len(images) < len(names):
        gathered.note(f"{len(names) - len(images):,} of {len(names):,} image files are not in {places[0]}")
    caveats = []
    if split != OURS and "test" not in files:
        caveats.append(f"there is no test.json: measured on {files['validation'].name}")
    if split != OURS and tuple(counts.values()) != _ROWS[language]:
        whole = ", ".join(f"{n:,}" for n in _ROWS[language])
        own = ", ".join(f"{part} {n:,}" for part, n in counts.items())
        caveats.append(f"questions: {own}; the whole data set ({language}) has {whole} in train, validation and test")
    return finished("slake", str(where), split, gathered, images, language=language, caveats=caveats)


def _validation(where: Path) -> Path | None:
    there = [where / name for name in _VALIDATION if (where / name).is_file()]
    if len(there) == 2 and there[0].read_bytes() != there[1].read_bytes():
        raise UserError(f"{where}: {' and '.join(_VALIDATION)} differ; remove the one that is not SLAKE's")
    return there[0] if there else None


def _add(gathered: Gathered, part: Part, row: dict[str, Any], language: Language) -> bool:
    """Whether the row is in the language that is asked for; then it is taken, or listed as of no use."""
    own = text_in(row, "q_lang").lower()
    if own not in ("en", "zh"):
        reason = f"language {row['q_lang']!r} is neither en nor zh"
        gathered.rejects[part].append(Reject(str(row["qid"]), text_in(row, "img_name"), reason))
        return False
    if language not in (own, "both"):
        return False
    types = tuple(filter(None, [text_in(row, "content_type")]))
    gathered.add(part, row["qid"], text_in(row, "img_name"), row, types, own)
    return True
