"""Questions in Parquet files that hold the pictures, too, as the Hugging Face hub has VQA-RAD, SLAKE and PathVQA."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from biomedclip_jax.data._picture_files import PictureFile, is_picture
from biomedclip_jax.data._picture_folders import WHOLE, picture_files
from biomedclip_jax.data._table_header import check_columns
from biomedclip_jax.data.images.load import ImageSource, LazyImage, load_image
from biomedclip_jax.data.names import SPLITS
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions._finish import OURS, finished
from biomedclip_jax.data.questions._gather import Gathered
from biomedclip_jax.data.questions.types import PARTS, Part, QuestionSet
from biomedclip_jax.errors import UserError

OPTIONAL = ("answer_type", "question_type", "content_type", "q_lang")


class RowImage(LazyImage):
    """The picture in a row of a file, read when it is asked for."""

    def __init__(self, file: PictureFile, column: str, group: int, row: int):
        self._file, self._column, self._group, self._row = file, column, group, row

    def load(self) -> Image.Image:
        """Read and decode the picture. UserError, which names its row, if that fails."""
        content = self._file.pictures(self._group, self._column)[self._row].as_py()
        return load_image(content, f"{self._file.path}, row {self._row + 1} of group {self._group + 1}")


def contents(images: Mapping[str, RowImage]) -> dict[str, bytes]:
    """The bytes of some pictures by name; each row group is read once. UserError if a file cannot be read."""
    groups: dict[tuple[int, str, int], list[str]] = {}
    for name, image in images.items():
        groups.setdefault((id(image._file), image._column, image._group), []).append(name)
    found: dict[str, bytes] = {}
    for names in groups.values():
        first = images[names[0]]
        pictures = first._file.pictures(first._group, first._column)
        found |= {name: pictures[images[name]._row].as_py() for name in names}
    return found


def read_parquet_folder(name: str, where: Path, split: str, language: str = "en", whole: Sequence[int] = ()) -> QuestionSet:
    """The questions of a folder whose files are divided into train, test and perhaps validation by their names.

    language: "en", "zh" or "both", of files with a column `q_lang`; without it all is English. whole: how many
    training, validation and test questions the whole data set has; a caveat says where there are others.
    """
    files = picture_files(where)
    by_part: dict[Part, list[Path]] = {}
    for part in PARTS:
        for own in (own for known, own in files.items() if known.lower() in SPLITS[part]):
            by_part.setdefault(part, []).extend(own)
    if not {"train", "test"} <= by_part.keys():
        there = ", ".join(key or "one without a split" for key in files) if files.keys() != {WHOLE} else "one file of no split"
        raise UserError(
            f"{where}: expected Parquet files of train and test, such as data/train-00000-of-00001.parquet; {there}"
        )
    every = [PictureFile(path) for own in by_part.values() for path in own]
    typed = ["answer_type" in file.schema.names for file in every]
    if language != "en" and not all("q_lang" in file.schema.names for file in every):
        raise UserError(f"{where}: no column 'q_lang', so all is English; --language {language} needs SLAKE's JSON files")
    gathered = Gathered(has_types=all(typed), types_in_part=any(typed))
    images: dict[str, ImageSource] = {}
    for part, paths in by_part.items():
        for row in picture_rows(paths, "image", ("question", "answer"), images):
            own = str(row.get("q_lang") or "en").strip().lower()
            if own not in ("en", "zh"):
                gathered.rejects[part].append(Reject(row["row"], row["image"], f"language {own!r} is neither en nor zh"))
            elif language in (own, "both"):
                add_row(gathered, part, row, own)
    counts = [len(gathered.questions[part]) + len(gathered.rejects[part]) for part in PARTS]
    caveats = []
    if whole and split != OURS and counts != list(whole):
        own, expected = (", ".join(f"{n:,}" for n in numbers) for numbers in (counts, whole))
        caveats.append(f"{own} questions in train, validation and test; the whole data set has {expected}: not its numbers")
    return finished(name, str(where), split, gathered, images, language=language, caveats=caveats)


def add_row(gathered: Gathered, part: Part, row: dict[str, Any], language: str = "en") -> None:
    """Take a row of `picture_rows`."""
    types = [str(row[key]) for key in ("question_type", "content_type") if row.get(key)]
    gathered.add(part, row["row"], row["image"], row, types[:1], language)


def picture_rows(
    paths: Sequence[Path], image: str, columns: Sequence[str], images: dict[str, ImageSource]
) -> Iterator[dict[str, Any]]:
    """The rows of some files, with `image`, a name for the picture's bytes, and `row`, the file and a number from 1.

    A picture in several rows has one name; `images` gets each when its first row comes. UserError for a missing column,
    and for one that holds no pictures.
    """
    for path in paths:
        file, number = PictureFile(path), 0
        names = file.schema.names
        check_columns(path, [image, *columns], names)
        if not is_picture(file.schema.field(image).type):
            raise UserError(f"{path}: column {image!r} holds no pictures but {file.schema.field(image).type}")
        asked = [name for name in (*columns, *OPTIONAL, "split") if name in names]
        for group in range(len(file.group_sizes)):
            pictures = file.pictures(group, image)
            for row, cells in enumerate(file.rows(group, asked)):
                number += 1
                content = pictures[row].as_py()
                called = "" if content is None else hashlib.sha256(content).hexdigest()[:16]
                if called:
                    images.setdefault(called, RowImage(file, image, group, row))
                yield cells | {"image": called, "row": f"{path.name}, row {number}"}
