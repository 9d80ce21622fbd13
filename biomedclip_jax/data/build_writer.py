"""A TFDS build of any pairs, without Beam and without TensorFlow: ArrayRecord shards and their metadata."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from biomedclip_jax.data.array_record import Encoder, file_name, write_metadata, write_records
from biomedclip_jax.data.pairs import Pair
from biomedclip_jax.data.tables import REFERENCES
from biomedclip_jax.errors import UserError

_DATASET, _SPLIT, _VERSION = "pairs", "train", "1.0.0"


class BuildWriter:
    """Features: image (encoded bytes), caption (a text; with `several` a sequence), and where asked for label, references."""

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
        """One shard of `shards`, the next."""
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
        """`dataset_info.json` and `features.json`."""
        lengths, sizes = {_SPLIT: self._lengths}, {_SPLIT: self._bytes}
        write_metadata(self._folder, _DATASET, _VERSION, self._features, lengths, sizes)
