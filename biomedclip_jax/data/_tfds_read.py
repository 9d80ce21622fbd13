"""Pairs of a TFDS data set: our own builds, and any other with an image and a text. Read without TensorFlow.

Images stay as they are encoded. Only ArrayRecord files have random access; TFDS writes them with
`file_format="array_record"`.
"""

import contextlib
import difflib
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from biomedclip_jax.data.identity import Identity, digest, sampled_identity
from biomedclip_jax.data.names import names_of
from biomedclip_jax.data.pairs import Pair, Reject, Texts, file_fingerprint
from biomedclip_jax.data.tables import REFERENCES
from biomedclip_jax.errors import UserError, first_line

_DEFAULT_NAMES = ("image", "caption", "label")  # may stand for the only feature of its kind


class BuildPairs:
    """The records of a split as pairs. A worker process opens the files itself."""

    def __init__(self, folder: Path, split: str, image: str, caption: str | None, label: str | None):
        self.rejects: list[Reject] = []
        self._folder = folder
        self._split = split
        self._image, self._caption, self._label = image, caption, label
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_source", "_features", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @cached_property
    def _source(self) -> tuple[Any, Callable[[int], str | None]]:
        """The open files, which give images as they are encoded, and how a label becomes a text."""
        import tensorflow_datasets as tfds

        builder = _builder(self._folder)
        features = builder.info.features
        images = [name for name, feature in features.items() if _is_image(feature)]
        decoders = {name: tfds.decode.SkipDecoding() for name in images}
        source = builder.as_data_source(self._split, decoders=decoders)
        named = self._label is not None and _is_class(features[self._label])
        return source, features[self._label].int2str if named else _text

    def _record(self, index: int) -> dict[str, Any]:
        with self._lock:  # several threads must not open the files at once
            source, _ = self._source
        try:
            return source[index]
        except Exception as error:  # ArrayRecord and protobuf have errors of their own
            raise UserError(
                f"{self.name(index)}: cannot be read ({first_line(error)}); copy or build the shard again"
            ) from error

    def __len__(self) -> int:
        return len(self._source[0])

    def __getitem__(self, index: int) -> Pair:
        record = self._record(index)
        return Pair(image=record[self._image], name=self.name(index), **vars(self._texts(index, record)))

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        return self._texts(index, self._record(index))

    def _texts(self, index: int, record: dict[str, Any]) -> Texts:
        captions = () if self._caption is None else _texts(record[self._caption])
        if not captions and self._caption is not None:
            raise UserError(f"{self.name(index)}: caption is empty")
        label = None if self._label is None else self._source[1](record[self._label])
        references = _texts(record[REFERENCES]) if REFERENCES in record and self._caption != REFERENCES else ()
        return Texts(captions=captions, references=references, label=label)

    def fields(self, index: int) -> dict[str, Any]:
        """All that a record says besides its images; numbers of classes as their names."""
        texts = self._features
        return {name: texts[name](value) for name, value in self._record(index).items() if name in texts}

    @cached_property
    def _features(self) -> dict[str, Callable[[Any], Any]]:
        """For each feature that is no image what makes of its value one that can be read."""
        features = _builder(self._folder).info.features.items()
        return {
            name: feature.int2str if _is_class(feature) else lambda value: value
            for name, feature in features
            if not _is_image(feature)
        }

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the label's classes in their order, where it is a `ClassLabel`."""
        feature = _builder(self._folder).info.features[self._label]
        return tuple(feature.names) if _is_class(feature) else None

    @property
    def files(self) -> list[Path]:
        """The files of the shards of the split."""
        return [Path(path) for path in _builder(self._folder).info.splits[self._split.partition("[")[0]].filepaths]

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        return f"{self._folder}:{self._split}, record {index}"

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"BuildPairs {len(self)}"
        yield file_fingerprint(self.files)
        yield self.name(0)  # with the split, which may be a part of those files
        yield self._image

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie: the shards by name, size and records, and a sample of the records."""
        lengths = _builder(self._folder).info.splits[self._split.partition("[")[0]].shard_lengths
        shards = [f"{file.name} {file.stat().st_size} {length}" for file, length in zip(self.files, lengths, strict=True)]
        return (sampled_identity(self, digest(shard.encode() for shard in [*shards, self._split])),)


def build_splits(folder: Path) -> list[str]:
    """The names of the splits of a build that have records. UserError for one that cannot be read."""
    return [name for name, split in _builder(folder).info.splits.items() if split.num_examples]


def is_build(folder: Path) -> bool:
    """Whether a folder holds a TFDS data set as it is on disk: a build of ours, or one that TFDS has prepared."""
    return (folder / "features.json").is_file()


def open_build(folder: Path, split: str | None, image: str, caption: str | None, label: str | None) -> BuildPairs:
    """Open a split of the build in `folder`.

    image, caption, label: names of features; "image", "caption" and "label" may also stand for the only one of their
    kind (a label: of the classes). caption, label: None asks for none.
    Raises UserError for a folder without a build, an unknown split or feature (naming those that exist), and a shard
    that is missing or short (naming host and path).
    """
    if not is_build(folder):
        tars = " (to read its tars, write FOLDER/*.tar)" if any(folder.glob("*.tar")) else ""
        raise UserError(f"{folder}: no build in this folder, there is no features.json{tars}")
    return _opened(_builder(folder), folder, str(folder), split, image, caption, label)


def open_tfds(name: str, split: str | None, image: str, caption: str | None, label: str | None) -> BuildPairs:
    """A split of a data set that TFDS has prepared on this machine. UserError as of `open_build`."""
    tfds = _tfds(name)
    try:
        builder = tfds.builder(name)
    except Exception as error:  # what a name that is not known, or a version that does not exist, raises is anybody's guess
        raise UserError(f"tfds:{name}: TFDS does not know it ({first_line(error)}); see its catalog for the name") from error
    folder = Path(builder.data_dir)
    if not is_build(folder):
        raise UserError(f"tfds:{name}: not prepared in {folder}; run: tfds build {name} --file_format=array_record")
    return _opened(builder, folder, f"tfds:{name}", split, image, caption, label)


def _opened(
    builder: Any, folder: Path, source: str, split: str | None, image: str, caption: str | None, label: str | None
) -> BuildPairs:
    splits = ", ".join(f"{source}:{name}" for name in builder.info.splits) or "none"
    split = split and _known_split(split, builder.info.splits)
    if split is None or split.partition("[")[0] not in builder.info.splits:
        missing = "which split is missing" if split is None else f"no split {split!r}"
        raise UserError(f"{source}: {missing}; there are: {splits}")
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise UserError(
            f"{source}: written as {getattr(builder.info.file_format, 'value', 'an unknown format')}, which has no random "
            "access; prepare it with file_format=array_record"
        )
    _check_shards(builder.info.splits[split.partition("[")[0]])
    features = builder.info.features

    images = [name for name, feature in features.items() if _is_image(feature)]
    texts = [name for name, feature in features.items() if _is_text(feature)]
    image = _chosen(source, image, images, "an image", list(features))
    if caption is not None:
        caption = _chosen(source, caption, texts, "a text", list(features))
    classes = [name for name, feature in features.items() if _is_class(feature)]
    if label is not None and label not in features:
        if label not in _DEFAULT_NAMES or len(classes) != 1:
            raise UserError(f"{source}: no feature {label!r}; there are {', '.join(map(repr, features))}")
        label = classes[0]
    pairs = BuildPairs(folder, split, image, caption, label)
    try:
        count = len(pairs)
    except Exception as error:
        raise UserError(f"{source}:{split}: cannot be opened ({first_line(error)})") from error
    if count == 0:
        raise UserError(f"{source}:{split}: no record in this split")
    return pairs


def _chosen(source: str, name: str, fitting: list[str], kind: str, there: list[str]) -> str:
    if name in fitting:
        return name
    if name in _DEFAULT_NAMES and name not in there and len(fitting) == 1:
        return fitting[0]
    nearest = difflib.get_close_matches(name, fitting, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise UserError(
        f"{source}: {name!r} is not a feature that holds {kind}; those that do: {', '.join(map(repr, fitting)) or 'none'}{hint}"
    )


def _check_shards(split: Any) -> None:
    """UserError, with host and path, for a shard that is missing or does not hold as many records as it should."""
    from array_record.python.array_record_module import ArrayRecordReader

    for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
        where = f"{path} on host {socket.gethostname()}"
        if not Path(path).is_file():
            raise UserError(f"{where}: this shard is missing; copy it there, or build it again")
        try:
            with contextlib.closing(ArrayRecordReader(str(path))) as reader:
                found = reader.num_records()
        except Exception as error:  # RuntimeError, ValueError ...; of a damaged file also from `close`
            raise UserError(f"{where}: this shard cannot be read ({first_line(error)}); copy or build it again") from error
        if found != expected:
            raise UserError(f"{where}: this shard holds {found} records, expected {expected}; copy or build it again")


def _tfds(source: object) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"{source}: reading a build needs tensorflow-datasets: pip install 'biomedclip_jax[tfds]'") from error
    return tfds


def _builder(folder: Path) -> Any:
    tfds = _tfds(folder)
    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:
        raise UserError(f"{folder}: not a readable build ({first_line(error)})") from error


def _known_split(split: str, there: Collection[str]) -> str:
    """What the build calls the split: "val" where "validation" was meant. The same text if it has no such split."""
    name, bracket, part = split.partition("[")
    return next((known for known in names_of(name) if known in there), name) + bracket + part


def _is_class(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.ClassLabel)


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image)


def _is_text(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    return isinstance(inner, tfds.features.Text)


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    """A text, or a sequence of them, without the empty ones."""
    values = [value] if isinstance(value, bytes | str) else list(value)
    return tuple(text for text in ((_text(v) or "").strip() for v in values) if text)
