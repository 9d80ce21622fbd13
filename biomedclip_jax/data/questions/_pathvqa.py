"""PathVQA (He and others 2020): the files of its authors, or the Parquet copy of the Hugging Face hub."""

import io
import pickle
from pathlib import Path
from typing import Any

from biomedclip_jax.data._picture_folders import is_picture_folder
from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.questions._finish import OURS, finished
from biomedclip_jax.data.questions._gather import Gathered
from biomedclip_jax.data.questions._parquet import read_parquet_folder
from biomedclip_jax.data.questions.types import Part, QuestionSet
from biomedclip_jax.errors import UserError

SPLITS = ("official", OURS)
_PARTS: dict[str, Part] = {"train": "train", "val": "validation", "test": "test"}
_HOMES = ("", "qas", "split/qas", "pvqa/qas")


def read_pathvqa(where: Path, split: str = "official") -> QuestionSet:
    """Read PathVQA from a folder.

    Of its authors: qas/train/train_qa.pkl, val and test likewise, lists of {image, question, answer}, with the pictures
    as images/train/NAME.jpg. Closed questions are those answered by yes or no, as in the paper. UserError for what is no
    PathVQA, and for a pickle that holds more than lists and texts, which is not run.
    """
    if split not in SPLITS:
        raise UserError(f"pathvqa: no split {split!r}; expected one of {', '.join(SPLITS)}")
    files = {name: _file(where, name) for name in _PARTS}
    if files["train"] is None or files["test"] is None:
        if is_picture_folder(where):
            return read_parquet_folder("pathvqa", where, split)
        raise UserError(
            f"{where}: no PathVQA here; expected qas/train/train_qa.pkl and qas/test/test_qa.pkl, or Parquet files of the hub"
        )
    gathered = Gathered(has_types=False)
    images: dict[str, ImageSource] = {}
    absent: set[str] = set()
    for name, path in files.items():
        for number, row in enumerate(_rows(path) if path is not None else [], 1):
            image = str(row["image"] or "")
            picture = _picture(where, name, image)
            if picture is not None:
                images.setdefault(image, picture)
            elif image:
                absent.add(image)
            gathered.add(_PARTS[name], f"{name} {number}", image, row)
    if absent:
        gathered.note(f"{len(absent):,} of {len(absent) + len(images):,} image files are not there, such as {min(absent)}.jpg")
    return finished("pathvqa", str(where), split, gathered, images)


def _file(where: Path, name: str) -> Path | None:
    places = (where / home / inner for home in _HOMES for inner in (name, ""))
    return next((place / f"{name}_qa.pkl" for place in places if (place / f"{name}_qa.pkl").is_file()), None)


def _picture(where: Path, name: str, image: str) -> Path | None:
    places = (
        where / home / inner / f"{image}.jpg" for home in ("images", "split/images", "pvqa/images") for inner in (name, "")
    )
    return next((place for place in places if place.is_file()), None)


class _Plain(pickle.Unpickler):
    """Reads lists, objects of texts and numbers; a pickle that names anything else is not run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which data need not")


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = _Plain(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{path}: not readable as a list of questions ({error}); copy it again") from error
    wanted = {"image", "question", "answer"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and wanted <= row.keys() for row in rows):
        raise UserError(f"{path}: expected a list of objects with image, question and answer")
    return rows
