"""From what a user writes as the source of labelled images to the images: `open_labelled` decides by the name who reads it."""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.labelled.folders import has_class_folders, open_class_folders
from biomedclip_jax.data.labelled.pairs import labelled_build, open_labelled_shards
from biomedclip_jax.data.labelled.tables import open_labelled_table
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.open_pairs import split_of
from biomedclip_jax.data.split_names import require_whole, split_there
from biomedclip_jax.data.tables import TABLE_SUFFIXES
from biomedclip_jax.data.tfds_read import open_build, open_tfds
from biomedclip_jax.data.webdataset import find_shards
from biomedclip_jax.errors import UserError

LABELLED_SOURCES = (
    "a folder of class folders (perhaps below train/, validation/ and test/), a table (.csv, .tsv, .jsonl, .parquet; a split "
    "of it: pairs.csv:test) with an image and a label column, tars (shards/*.tar, or the folder above their splits, as "
    "CLIP_benchmark writes it), a build (FOLDER or FOLDER:test) or a TFDS data set (tfds:NAME or tfds:NAME:test)"
)

_HINT = "give the folder above train/ and test/"


def open_labelled(
    source: str,
    split: str = "test",
    image_column: str = "image",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
) -> Labelled:
    """A split of labelled images, decoded only when asked for.

    source: one of `LABELLED_SOURCES`. split: "train", "validation" or "test", whatever the source calls them (valid, val, dev);
        a source without splits is "test" as a whole. A split that is part of `source` (FOLDER:train) is read instead.
    image_column, label_column: of tables and builds; of tars, "label" means the .cls, where there is one, or that field of the
        .json. classes: their names in order, where they must be those of another split or source; by default what is found.
    What cannot be used is in `rejects`. Raises UserError, one line, for a source, split or column that is not there, and for
    labels that are no classes.
    """
    if source.startswith("tfds:"):
        name, own = split_of(source.removeprefix("tfds:"))
        return labelled_build(source, open_tfds(name, own or split, image_column, None, label_column), classes)
    if source.endswith(".tar"):
        require_whole(source, split, _HINT)
        return open_labelled_shards(source, find_shards(source), label_column, classes)
    if "://" in source:
        raise UserError(f"{source}: only tars are read over the network; copy it here, or mount it (gcsfuse, mountpoint-s3)")
    path = Path(source)
    if path.suffix in TABLE_SUFFIXES and not path.is_dir():
        return open_labelled_table(path, split, image_column, label_column, classes)
    if not path.is_dir():
        folder, own = split_of(source)
        if own and Path(folder).suffix in TABLE_SUFFIXES:
            return open_labelled_table(Path(folder), own, image_column, label_column, classes)
        if own is None or not Path(folder).is_dir():
            raise UserError(f"{source}: no such file or folder, or no source of labels; expected {LABELLED_SOURCES}")
        path, split = Path(folder), own
    if (path / "features.json").is_file():
        return labelled_build(source, open_build(path, split, image_column, None, label_column), classes)
    if tars := _tars(path):
        if "" in tars:
            require_whole(path, split, _HINT)
        return open_labelled_shards(source, tars["" if "" in tars else split_there(path, split, tars)], label_column, classes)
    if not has_class_folders(path):
        raise UserError(f"{path}: neither class folders, tars nor a build in it; expected {LABELLED_SOURCES}")
    return open_class_folders(path, split, classes)


def _tars(folder: Path) -> dict[str, list[str]]:
    """The tars of each folder in `folder`, by its name; those of `folder` itself, if it has any, under the empty name."""
    if own := _sorted_tars(folder):
        return {"": own}
    return {path.name: tars for path in sorted(folder.iterdir()) if path.is_dir() and (tars := _sorted_tars(path))}


def _sorted_tars(folder: Path) -> list[str]:
    """By number, where they have one: CLIP_benchmark writes 0.tar, 1.tar ... 10.tar."""
    tars = folder.glob("*.tar")
    return [str(path) for path in sorted(tars, key=lambda path: (len(path.stem) if path.stem.isdecimal() else 0, path.name))]
