"""Sources whose files hold the pictures themselves: Parquet and Arrow files, and the folders of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data._picture_files import holds_pictures
from biomedclip_jax.data._picture_folders import (
    WHOLE,
    check_whole,
    hub_folder,
    is_hub_address,
    is_picture_folder,
    of_split,
    picture_files,
)
from biomedclip_jax.data._picture_pairs import PictureColumns, PicturePairs, open_pictures, splits_of
from biomedclip_jax.data._source_kinds import Found, Kind, Wanted, find_folder
from biomedclip_jax.data._tfds_read import is_build
from biomedclip_jax.data._webdataset import find_shards
from biomedclip_jax.data.labelled.readers import labelled_classes
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import matching_split, require_whole, split_of
from biomedclip_jax.data.pairs import Pairs


def is_picture_table(found: Found, wanted: Wanted) -> bool:
    """Whether a table holds its images itself, in the column that is asked for."""
    return found.path.suffix.lower() == ".parquet" and holds_pictures(found.path, wanted.image)


def picture_pairs(found: Found, files: Sequence[Path], wanted: Wanted) -> PicturePairs:
    """The rows of files as pairs, of a split if one is written."""
    return open_pictures(found.source, files, PictureColumns(wanted.image, wanted.caption, wanted.label), found.split)


def picture_labelled(found: Found, files: Sequence[Path], wanted: Wanted) -> Labelled:
    """The rows of files that may have a column of splits."""
    split = _split_in_rows(found, files, found.split or wanted.split, wanted.image)
    columns = PictureColumns(wanted.image, None, wanted.label)
    return labelled_classes(found.source, open_pictures(found.source, files, columns, split), wanted.classes)


def pictures_of_split(source: str, split: str, image: str) -> PicturePairs | None:
    """The rows of a split that hold a picture, without texts; None for a source of another kind.

    split: unless one is written in the source; a source without splits is "test" as a whole.
    """
    found = next(filter(None, (find(source) for find in (_find_picture_files, _find_picture_folder))), None)
    if found is None:
        for name, own in ((source, None), split_of(source)):
            if name.lower().endswith(".parquet") and Path(name).is_file() and holds_pictures(Path(name), image):
                return _rows_of_split(Found(source, name, own), [Path(name)], split, image)
        return None
    if not found.path.is_dir():
        return _rows_of_split(found, _picture_paths(found), split, image)
    files = picture_files(found.path)
    if WHOLE in files and len(files) == 1:
        return _rows_of_split(found, files[WHOLE], split, image)
    return open_pictures(source, of_split(source, files, found.split or split), PictureColumns(image))


def _rows_of_split(found: Found, files: Sequence[Path], split: str, image: str) -> PicturePairs:
    own = _split_in_rows(found, files, found.split or split, image)
    return open_pictures(found.source, files, PictureColumns(image), own)


def _split_in_rows(found: Found, files: Sequence[Path], split: str, image: str) -> str | None:
    """The split if rows say of which they are; None where all rows are meant. UserError for one that is not there."""
    splits = splits_of(files, image)
    if splits is None:
        require_whole(found.source, split, "add a column 'split' with train, validation or test, or give files of each split")
        return None
    matching_split(found.source, split, splits)
    return split if splits else None


def _find_picture_files(source: str) -> Found | None:
    for name, split in ((source, None), split_of(source)):
        pattern = not Path(name).exists() and bool(set("*?[{") & set(name))
        if "://" not in name and (name.endswith(".arrow") or (pattern and name.endswith(".parquet"))):
            return Found(source, name, split)
    return None


def _picture_paths(found: Found) -> list[Path]:
    paths = [Path(path) for path in find_shards(found.name, "file")]
    if "{" not in found.name:  # who counts them out means these
        check_whole(paths)
    return paths


def _find_picture_folder(source: str) -> Found | None:
    if is_hub_address(source):
        name, split = split_of(source)
        return Found(source, str(hub_folder(name)), split)
    found = find_folder(source)
    return found if found is not None and not is_build(found.path) and is_picture_folder(found.path) else None


def _picture_folder_pairs(found: Found, wanted: Wanted) -> Pairs:
    files = of_split(found.source, picture_files(found.path), found.split)
    return picture_pairs(Found(found.source, found.name), files, wanted)


def _picture_folder_labelled(found: Found, wanted: Wanted) -> Labelled:
    files, split = picture_files(found.path), found.split or wanted.split
    if WHOLE in files and len(files) == 1:
        return picture_labelled(found, files[WHOLE], wanted)
    columns = PictureColumns(wanted.image, None, wanted.label)
    pairs = open_pictures(found.source, of_split(found.source, files, split), columns)
    return labelled_classes(found.source, pairs, wanted.classes)


PICTURE_FILES = Kind(
    _find_picture_files,
    lambda found, wanted: picture_pairs(found, _picture_paths(found), wanted),
    lambda found, wanted: picture_labelled(found, _picture_paths(found), wanted),
)
PICTURE_FOLDERS = Kind(
    _find_picture_folder,
    _picture_folder_pairs,
    _picture_folder_labelled,
    "Parquet with pictures (FILE.parquet, 'data/train-*.parquet', FOLDER:train, hf://datasets/ORG/NAME:train)",
    "Parquet with pictures (FILE.parquet, FOLDER or FOLDER:test, hf://datasets/ORG/NAME)",
)
