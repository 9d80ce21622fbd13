"""Lists of a split as CoOp's code writes them, and BiomedCoOp publishes for its public data sets: `split_NAME.json`.

An object {"train": [[path, label, class], ...], "val": [...], "test": [...]}: label is the class's number from 0 on,
and paths begin in the folder of images, which lies beside the list or is the folder that it is in.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.names import check_names, matching_split
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

_SHAPE = '{"train": [[path, label, class], ...], "val": [...], "test": [...]}'
_TRIED = 200  # paths that are looked for to find the folder of images


def open_split_list(path: Path, split: str, classes: Sequence[str] | None = None) -> Labelled:
    """The images of a split ("train", "validation", "test", whatever the list calls it), in the list's order.

    classes: expected names, in their order; by default those of the list, in the order of their numbers over all splits.
    Images that are missing, or listed twice with different classes, are in `rejects`. UserError for a file of another
    shape, a class with two numbers or a number with two classes, and a split that is not there.
    """
    splits = _read(path)
    own = splits[matching_split(path, split, splits)]
    names = _classes(path, splits)
    if classes is not None and tuple(classes) != names:
        raise UserError(f"{path}: its classes are {', '.join(names)}; expected {', '.join(classes)}")
    root = _image_folder(path, own)
    labels: dict[str, set[int]] = {}
    for image, label, _ in own:
        labels.setdefault(image, set()).add(label)
    rows: list[tuple[str, Path, int]] = []
    rejects: list[Reject] = []
    for number, image in enumerate(dict.fromkeys(image for image, *_ in own), 1):
        if len(labels[image]) > 1:
            rejects.append(Reject(str(number), str(root / image), "the image has another class in another row"))
        else:
            rows.append((str(number), root / image, min(labels[image])))
    if twice := len(own) - len(labels):
        rejects.append(Reject("", str(path), f"{twice:,} rows list an image once more"))
    found, missing = existing_files(rows)
    return labelled_files(str(path), names, found, [*rejects, *missing])


def _read(path: Path) -> dict[str, list[tuple[str, int, str]]]:
    """The rows of each split; paths with slashes."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected {_SHAPE}") from error
    if not isinstance(content, dict) or not content or not all(isinstance(rows, list) for rows in content.values()):
        raise UserError(f"{path}: expected {_SHAPE}")
    found: dict[str, list[tuple[str, int, str]]] = {}
    for split, rows in content.items():
        for number, row in enumerate(rows, 1):
            if not (isinstance(row, list) and len(row) == 3 and _fits(*row)):
                raise UserError(f"{path}: {split}, row {number}: {str(row)[:80]}; expected [path, label, class]")
        found[split] = [(row[0].replace("\\", "/"), row[1], row[2]) for row in rows]
    return found


def _fits(image: object, label: object, name: object) -> bool:
    whole = isinstance(label, int) and not isinstance(label, bool) and label >= 0
    return isinstance(image, str) and image != "" and whole and isinstance(name, str) and name.strip() != ""


def _classes(path: Path, splits: dict[str, list[tuple[str, int, str]]]) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for split, rows in splits.items():
        for number, (_, label, name) in enumerate(rows, 1):
            if names.setdefault(label, name) != name:
                raise UserError(
                    f"{path}: {split}, row {number}: label {label} is {name!r}, and {names[label]!r} in another row"
                )
    ordered = tuple(names[label] for label in sorted(names))
    if len(set(ordered)) < len(ordered):
        name = next(name for name in ordered if ordered.count(name) > 1)
        raise UserError(f"{path}: class {name!r} has two labels; expected one number for each class")
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise UserError(f"{path}: labels {sorted(names)[:20]}; expected 0, 1, 2 ... of at least two classes")
    check_names(path, ordered)
    return ordered


def _image_folder(path: Path, rows: Sequence[tuple[str, int, str]]) -> Path:
    """Where the paths begin: the list's own folder, the one with its name, or the only other one that has its images."""
    tried = [PurePosixPath(image) for image, *_ in rows[:_TRIED]]
    usual = [path.parent, path.parent / path.stem.removeprefix("split_")]
    others = sorted(each for each in path.parent.iterdir() if each.is_dir() and each not in usual)
    with_images = [folder for folder in (*usual, *others) if any((folder / image).is_file() for image in tried)]
    first = next((folder for folder in with_images if folder in usual), None)
    if first is not None or len(with_images) == 1:
        return first or with_images[0]
    if with_images:
        named = ", ".join(folder.name for folder in with_images)
        raise UserError(f"{path}: {named} have images of these names; move the list into the folder that is meant")
    raise UserError(
        f"{path}: none of its first {len(tried):,} images is there; expected {usual[0] / tried[0]} or {usual[1] / tried[0]}"
        if tried
        else f"{path}: lists no image"
    )
