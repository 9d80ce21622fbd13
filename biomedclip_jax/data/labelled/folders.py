"""A folder of class folders: `FOLDER/[train|validation|test/]CLASS/**/image`."""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES, images_below
from biomedclip_jax.data.labelled.classes import classes_of
from biomedclip_jax.data.labelled.types import Labelled, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.split_names import SPLITS, names_of, require_whole, split_there
from biomedclip_jax.errors import UserError

_NO_CLASS = "lies outside the class folders"


def open_class_folders(folder: Path, split: str = "test", classes: Sequence[str] | None = None) -> Labelled:
    """The images below each class folder, class by class, sorted by path.

    With folders train, validation (or valid, val, dev) and test in it, those of `split`; the classes are then those of all
    splits. Without, everything is "test". classes: their names in order; by default those of the folders, sorted.
    Images outside class folders are in `rejects`. Raises UserError for a folder without images or with fewer than two classes,
    for a split that is not there, and for a class that is not in `classes`.
    """
    known = {name for split_name in SPLITS for name in names_of(split_name)}
    splits = [path for path in _folders(folder) if path.name.lower() in known and _folders(path)]
    if splits:
        root = folder / split_there(folder, split, [path.name for path in splits])
    else:
        require_whole(folder, split, f"put the class folders into {folder / 'train'} and {folder / 'test'}")
        root = folder
    roots = splits or [folder]
    names = classes_of(folder, (path.name for each in roots for path in _folders(each)), classes)
    found: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for number, path in enumerate(images_below(root), 1):
        inside = path.relative_to(root).parts
        if len(inside) > 1:
            found.append((path, names.index(inside[0])))
        else:
            rejects.append({"row": str(number), "image": str(path), "reason": _NO_CLASS})
    if not found and not rejects:
        raise UserError(f"{root}: no image in its class folders; looked for {' '.join(IMAGE_SUFFIXES)}")
    found.sort(key=lambda each: (each[1], each[0]))
    return labelled_files(str(folder), names, found, rejects)


def has_class_folders(folder: Path) -> bool:
    """Whether a folder has folders in it, which may be classes."""
    return bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
