"""What a user may write as the source of pairs or of labelled images, and who reads it.

`KINDS` is the one table. To add a kind of source, write a function that recognises its name (`find`), one that gives
its pairs or its labelled images or both, and add an entry: `open_pairs`, `open_labelled` and their messages follow
from the table.
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.config import Mix
from biomedclip_jax.data._picture_folders import is_picture_folder
from biomedclip_jax.data._picture_sources import (
    PICTURE_FILES,
    PICTURE_FOLDERS,
    is_picture_table,
    picture_labelled,
    picture_pairs,
)
from biomedclip_jax.data._source_kinds import Found, Kind, Wanted, find_folder
from biomedclip_jax.data._table_rows import is_table
from biomedclip_jax.data._tfds_read import is_build, open_build, open_tfds
from biomedclip_jax.data._webdataset import find_shards, open_shards
from biomedclip_jax.data.labelled.readers import (
    has_class_folders,
    labelled_classes,
    open_class_folders,
    open_labelled_shards,
    open_labelled_table,
)
from biomedclip_jax.data.labelled.split_lists import open_split_list
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import matching_split, require_whole, split_of
from biomedclip_jax.data.pairs import Mixture, Pairs
from biomedclip_jax.data.tables import read_table
from biomedclip_jax.errors import UserError

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # the last are told to be unpacked
_HINT = "give the folder above train/ and test/"


def open_pairs(
    source: str | Mix, image_column: str = "image", caption_column: str = "caption", label_column: str | None = None
) -> Pairs:
    """The pairs of a source, or of several with weights; `config.DataConfig` describes what a source may be.

    Whatever is missing or cut short is found here: UserError, one line, which names host and file where it concerns
    shards. Records that are no pairs are left out and listed in `rejects`.
    """
    if not isinstance(source, str):
        opened = [open_pairs(part, image_column, caption_column, label_column) for part, _ in source]
        return opened[0] if len(opened) == 1 else Mixture(opened, [weight for _, weight in source])
    for kind in KINDS:
        if kind.pairs is not None and (found := kind.find(source)) is not None:
            return kind.pairs(found, Wanted(image_column, caption_column, label_column))
    _refuse_remote(source)
    raise UserError(f"{source}: no such file or folder, or not a source of pairs; expected {_PAIRS_FORMS}")


def open_labelled(
    source: str,
    split: str = "test",
    image_column: str = "image",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
) -> Labelled:
    """A split of labelled images, decoded only when asked for.

    split: "train", "validation" or "test", whatever the source calls them (valid, val, dev); a source without splits
        is "test" as a whole. A split that is part of `source` (FOLDER:train) is read instead.
    image_column, label_column: of tables and builds; of tars, "label" means the .cls, if there is one, or that field
        of the .json.
    classes: their names in order, where they must be those of another split or source; by default those found.
    What cannot be used is in `rejects`. Raises UserError, one line, for a source, split or column that does not exist,
    and for labels that are no classes.
    """
    wanted = Wanted(image_column, label=label_column, split=split, classes=classes)
    for kind in KINDS:
        if kind.labelled is not None and (found := kind.find(source)) is not None:
            return kind.labelled(found, wanted)
    _refuse_remote(source)
    raise UserError(f"{source}: no such file or folder, or no source of labels; expected {_LABELLED_FORMS}")


def is_folder_of_pairs(folder: Path) -> bool:
    """Whether a folder holds a build or files with pictures, which may have captions, and not images alone."""
    return folder.is_dir() and (is_build(folder) or is_picture_folder(folder))


def _refuse_remote(source: str) -> None:
    if "://" in source:
        raise UserError(f"{source}: only tars are read over the network; copy it here, or mount it (gcsfuse, mountpoint-s3)")


# --- tables ---------------------------------------------------------------------------------------------------------


def _find_table(source: str) -> Found | None:
    for name, split in ((source, None), split_of(source)):
        if is_table(name) and "://" not in name and not Path(name).is_dir():
            return Found(source, name, split)
    return None


def _table_pairs(found: Found, wanted: Wanted) -> Pairs:
    if is_picture_table(found, wanted):
        return picture_pairs(found, [found.path], wanted)
    columns = (wanted.image, wanted.caption, wanted.label)
    return read_table(found.path, *columns) if found.split is None else read_table(found.path, *columns, found.split)


def _table_labelled(found: Found, wanted: Wanted) -> Labelled:
    assert wanted.label is not None
    if is_picture_table(found, wanted):
        return picture_labelled(found, [found.path], wanted)
    return open_labelled_table(found.path, found.split or wanted.split, wanted.image, wanted.label, wanted.classes)


# --- tars -----------------------------------------------------------------------------------------------------------


def _find_tars(source: str) -> Found | None:
    return Found(source, source) if source.lower().endswith(_TAR_ENDINGS) else None


def _tar_pairs(found: Found, wanted: Wanted) -> Pairs:
    return open_shards(find_shards(found.name), wanted.caption, wanted.label)


def _tar_labelled(found: Found, wanted: Wanted) -> Labelled:
    assert wanted.label is not None
    require_whole(found.name, wanted.split, _HINT)
    return open_labelled_shards(found.name, find_shards(found.name), wanted.label, wanted.classes)


def _find_tar_folder(source: str) -> Found | None:
    found = find_folder(source)
    return found if found is not None and not is_build(found.path) and _tars_by_split(found.path) else None


def _tar_folder_labelled(found: Found, wanted: Wanted) -> Labelled:
    assert wanted.label is not None
    tars, split = _tars_by_split(found.path), found.split or wanted.split
    if "" in tars:
        require_whole(found.path, split, _HINT)
    own = tars["" if "" in tars else matching_split(found.path, split, tars)]
    return open_labelled_shards(found.source, own, wanted.label, wanted.classes)


def _tars_by_split(folder: Path) -> dict[str, list[str]]:
    """The tars of each folder in `folder`, by its name; those of `folder` itself, if it has any, under the empty name."""
    if own := _sorted_tars(folder):
        return {"": own}
    return {path.name: tars for path in sorted(folder.iterdir()) if path.is_dir() and (tars := _sorted_tars(path))}


def _sorted_tars(folder: Path) -> list[str]:
    """Tars in the order of their numbers, if they have numbers: CLIP_benchmark writes 0.tar, 1.tar ... 10.tar."""
    tars = folder.glob("*.tar")
    return [str(path) for path in sorted(tars, key=lambda path: (len(path.stem) if path.stem.isdecimal() else 0, path.name))]


# --- TFDS data sets and builds --------------------------------------------------------------------------------------


def _find_tfds(source: str) -> Found | None:
    return Found(source, *split_of(source.removeprefix("tfds:"))) if source.startswith("tfds:") else None


def _tfds_pairs(found: Found, wanted: Wanted) -> Pairs:
    return open_tfds(found.name, found.split, wanted.image, wanted.caption, wanted.label)


def _tfds_labelled(found: Found, wanted: Wanted) -> Labelled:
    pairs = open_tfds(found.name, found.split or wanted.split, wanted.image, None, wanted.label)
    return labelled_classes(found.source, pairs, wanted.classes)


def _build_pairs(found: Found, wanted: Wanted) -> Pairs:
    return open_build(found.path, found.split, wanted.image, wanted.caption, wanted.label)


def _build_labelled(found: Found, wanted: Wanted) -> Labelled:
    if not is_build(found.path):
        raise UserError(f"{found.path}: neither class folders, tars nor a build in it; expected {_LABELLED_FORMS}")
    pairs = open_build(found.path, found.split or wanted.split, wanted.image, None, wanted.label)
    return labelled_classes(found.source, pairs, wanted.classes)


# --- class folders --------------------------------------------------------------------------------------------------


def _find_class_folders(source: str) -> Found | None:
    found = find_folder(source)
    return found if found is not None and not is_build(found.path) and has_class_folders(found.path) else None


def _class_folders_labelled(found: Found, wanted: Wanted) -> Labelled:
    return open_class_folders(found.path, found.split or wanted.split, wanted.classes)


# --- lists of a split -----------------------------------------------------------------------------------------------


def _find_split_list(source: str) -> Found | None:
    for name, split in ((source, None), split_of(source)):
        if name.lower().endswith(".json") and Path(name).is_file():
            return Found(source, name, split)
    return None


def _split_list_labelled(found: Found, wanted: Wanted) -> Labelled:
    return open_split_list(found.path, found.split or wanted.split, wanted.classes)


# Tried in this order; a folder that is nothing else is taken for a build, whose reader says what is missing in it.
KINDS = (
    PICTURE_FILES,
    Kind(
        _find_table,
        _table_pairs,
        _table_labelled,
        "a table (.csv, .tsv, .jsonl, .parquet; pairs.csv:train for those rows whose column 'split' says so)",
        "a table (.csv, .tsv, .jsonl, .parquet; a split of it: pairs.csv:test) with an image and a label column",
    ),
    Kind(_find_tars, _tar_pairs, _tar_labelled, "tars (shards/{00000..00009}.tar or shards/*.tar)", "tars (shards/*.tar)"),
    Kind(
        _find_tfds,
        _tfds_pairs,
        _tfds_labelled,
        "a TFDS data set (tfds:NAME:train)",
        "a TFDS data set (tfds:NAME or tfds:NAME:test)",
    ),
    Kind(
        _find_split_list,
        labelled=_split_list_labelled,
        labelled_form="a list of a split (split_NAME.json, as CoOp's code writes)",
    ),
    PICTURE_FOLDERS,
    Kind(
        _find_tar_folder,
        labelled=_tar_folder_labelled,
        labelled_form="a folder of tars (or the folder above their splits, as CLIP_benchmark writes it)",
    ),
    Kind(
        _find_class_folders,
        labelled=_class_folders_labelled,
        labelled_form="a folder of class folders (perhaps below train/, validation/ and test/)",
    ),
    Kind(find_folder, _build_pairs, _build_labelled, "a build (FOLDER:train)", "a build (FOLDER or FOLDER:test)"),
)
_PAIRS_FORMS = ", ".join(kind.pairs_form for kind in KINDS if kind.pairs_form)
_LABELLED_FORMS = ", ".join(kind.labelled_form for kind in KINDS if kind.labelled_form)
