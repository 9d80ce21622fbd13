"""TFDS data sets as ArrayRecord files, written shard by shard without TensorFlow: records, files, and the metadata by
which `tfds.builder_from_directory` reads them.

A TFDS build of any pairs, without Beam and without TensorFlow: ArrayRecord shards and their metadata.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pairs import Pair
from biomedclip_jax.data.tables import REFERENCES
from biomedclip_jax.errors import UserError

_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def file_name(dataset: str, split: str, shard: int, shards: int) -> str:
    """The name of the file of a shard, by TFDS's convention."""
    return f"{dataset}-{split}.array_record-{shard:05d}-of-{shards:05d}"


class Encoder:
    """Example dictionaries -> serialised records. The same example gives the same bytes, in any process.

    features: a `tfds.features.FeaturesDict`.
    """

    def __init__(self, features: Any):
        from tensorflow_datasets.core import example_serializer

        self._features = features
        self._serializer: Any = example_serializer.ExampleSerializer(features.get_serialized_info())

    def __call__(self, example: Mapping[str, Any]) -> bytes:
        """A `tf.train.Example`, its features in a fixed order (protobuf's own differs from process to process)."""
        message = self._serializer.get_tf_example(self._features.encode_example(example))
        return message.SerializeToString(deterministic=True)


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Write an ArrayRecord file for random access; returns how many records it holds. UserError where the disk is full."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")  # each record compressed alone, or reading one means reading many
    count = 0
    try:
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            writer.close()
    except RuntimeError as error:  # of C++, not an OSError
        if reason := re.search(r"\w+\(\) failed: ([^;]+)", str(error)):
            raise UserError(
                f"{path}: cannot be written ({reason[1]}); free space, or choose a folder that you may write to"
            ) from error
        raise
    return count


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of an ArrayRecord file, in order."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        for _ in range(reader.num_records()):
            yield reader.read()
    finally:
        reader.close()


def write_metadata(
    folder: Path,
    dataset: str,
    version: str,
    features: Any,
    lengths: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
) -> None:
    """Write `dataset_info.json` and `features.json`, by which TFDS knows a data set.

    lengths: records of each shard of a split. sizes: bytes of a split.
    TFDS takes names from the shards that it finds in `folder`: empty files of their names will do.
    """
    import tensorflow_datasets as tfds
    from etils import epath

    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shards),
            num_bytes=sizes[split],
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=epath.Path(folder),
                template=_FILES,
                dataset_name=dataset,
                split=split,
                filetype_suffix="array_record",
            ),
        )
        for split, shards in lengths.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        version=version,
        split_infos=infos,
        filename_template=_FILES,
        check_data=False,
    )


_DATASET, _SPLIT, _VERSION = "pairs", "train", "1.0.0"


class BuildWriter:
    """Features: image (encoded bytes), caption (a text; with `several` a sequence), and where asked for label,
    references.
    """

    def __init__(self, folder: Path, *, several: bool, references: bool, labels: bool):
        try:
            import array_record  # noqa: F401 - asked for before the work is done
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise UserError("--to tfds: needs tensorflow-datasets: pip install 'biomedclip_jax[tfds]'") from error
        text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
        kinds: dict[str, Any] = {"image": tfds.features.Image(shape=(None, None, 3)), "caption": texts if several else text}
        kinds |= {REFERENCES: texts} if references else {}
        kinds |= {"label": text} if labels else {}
        self._folder, self._several = folder, several
        self._features = tfds.features.FeaturesDict(kinds)
        self._encode = Encoder(self._features)
        self._lengths: list[int] = []
        self._bytes = 0

    def write(self, shard: int, shards: int, items: Iterable[tuple[bytes, Pair]]) -> None:
        """Write the next shard, number `shard` of `shards`, from encoded images and their pairs."""
        records = self._counted(self._records(items))
        self._lengths.append(write_records(self._folder / file_name(_DATASET, _SPLIT, shard, shards), records))

    def _counted(self, records: Iterable[bytes]) -> Iterator[bytes]:
        for record in records:
            self._bytes += len(record)
            yield record

    def _records(self, items: Iterable[tuple[bytes, Pair]]) -> Iterator[bytes]:
        for content, pair in items:
            example: dict[str, Any] = {
                "image": content,
                "caption": list(pair.captions) if self._several else pair.captions[0],
                REFERENCES: list(pair.references),
                "label": pair.label or "",
            }
            example = {name: example[name] for name in self._features}
            yield self._encode(example)

    def finish(self) -> None:
        """Write `dataset_info.json` and `features.json`."""
        lengths, sizes = {_SPLIT: self._lengths}, {_SPLIT: self._bytes}
        write_metadata(self._folder, _DATASET, _VERSION, self._features, lengths, sizes)
