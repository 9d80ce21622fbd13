"""Images of known classes in WebDataset tars and TFDS builds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from biomedclip_jax.data.fingerprint import file_fingerprint, fingerprint
from biomedclip_jax.data.labelled.classes import classes_of
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import ImageOf, Pairs, reject
from biomedclip_jax.data.tfds_read import BuildPairs
from biomedclip_jax.data.webdataset import FROM_CLS, have_classes, open_shards
from biomedclip_jax.errors import UserError

CLASS_NAMES = "classnames.txt"  # of CLIP_benchmark: a class a line, in order
_DEFAULT_LABEL = "label"


def open_labelled_shards(name: str, tars: Sequence[str], label_field: str, classes: Sequence[str] | None) -> Labelled:
    """The samples of some tars whose class is known.

    label_field: "label", the default, means the .cls where there is one; "cls" always does; else a field of the .json. The
    numbers in .cls are positions in `classnames.txt`, beside the tars or a folder up, where CLIP_benchmark writes it.
    UserError as of `open_shards`, and for a number that is no position in `classnames.txt`.
    """
    from_cls = label_field == FROM_CLS or (label_field == _DEFAULT_LABEL and have_classes(tars[0]))
    pairs = open_shards(tars, None, FROM_CLS if from_cls else label_field)
    mark = fingerprint(pairs.versions)
    names = _class_names(Path(tars[0])) if from_cls else None
    if names is None:
        return labelled_pairs(name, pairs, mark, classes)
    if classes is not None and tuple(classes) != names:
        raise UserError(f"{name}: {CLASS_NAMES} says {', '.join(names)}; expected {', '.join(classes)}")
    numbers = [str(number) for number in range(len(names))]
    return replace(labelled_pairs(name, pairs, mark, numbers), classes=names)


def labelled_build(name: str, pairs: BuildPairs, classes: Sequence[str] | None = None) -> Labelled:
    """The records of a build that was opened with a label: classes in the order of its `ClassLabel`, if it is one."""
    own = pairs.classes
    if own is not None and classes is not None and tuple(classes) != own:
        raise UserError(f"{name}: its classes are {', '.join(own)}; expected {', '.join(classes)}")
    parts = [file_fingerprint(pairs.files), *(pairs.name(index) for index in (0, len(pairs) - 1)), str(len(pairs))]
    return labelled_pairs(name, pairs, fingerprint(parts), own or classes)


def labelled_pairs(name: str, pairs: Pairs, mark: str, classes: Sequence[str] | None = None) -> Labelled:
    """All whose label can be read; the others are in `rejects`. mark: the fingerprint. classes: by default the labels."""
    kept: list[int] = []
    labels: list[str] = []
    rejects = list(pairs.rejects)
    for index in range(len(pairs)):
        try:
            label = pairs.texts(index).label
        except UserError as error:
            rejects.append(reject(pairs, index, error))
            continue
        kept.append(index)
        labels.append(label or "")
    if not kept:
        first = f"; the first: {rejects[0].reason}" if rejects else ""
        raise UserError(f"{name}: no sample with a label, {len(rejects)} left out{first}")
    names = classes_of(name, labels, classes)
    position = {label: number for number, label in enumerate(names)}
    return Labelled(
        name=name,
        classes=names,
        images=[ImageOf(pairs, index) for index in kept],
        names=[pairs.name(index) for index in kept],
        labels=np.array([position[label] for label in labels], np.int64),
        fingerprint=mark,
        rejects=tuple(rejects),
    )


def _class_names(tar: Path) -> tuple[str, ...] | None:
    for folder in (tar.parent, tar.parent.parent):
        if (folder / CLASS_NAMES).is_file():
            lines = (folder / CLASS_NAMES).read_text(encoding="utf-8-sig").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return None
