"""From what a user writes as the source of pairs to the pairs: `open_pairs` decides by the name alone who reads it."""

import re
from pathlib import Path

from biomedclip_jax.config import Mix
from biomedclip_jax.data.pairs import Mixture, Pairs
from biomedclip_jax.data.tables import TABLE_SUFFIXES, read_table
from biomedclip_jax.data.tfds_read import open_build, open_tfds
from biomedclip_jax.data.webdataset import find_shards, open_shards
from biomedclip_jax.errors import UserError

SOURCES = (
    "a table (.csv, .tsv, .jsonl, .parquet; pairs.csv:train for those rows whose column 'split' says so), tars "
    "(shards/{00000..00009}.tar or shards/*.tar), the split of a build (FOLDER:train) or of a TFDS data set (tfds:NAME:train)"
)
_SPLIT = re.compile(r"(?P<place>.+?):(?P<split>[A-Za-z_]\w*(\[[^\]]*\])?)")  # of 10 %: train[:10%]


def open_pairs(
    source: str | Mix, image_column: str = "image", caption_column: str = "caption", label_column: str | None = None
) -> Pairs:
    """The pairs of a source, or of several with weights; `config.DataConfig` describes what a source may be.

    Whatever is missing or cut short is found here: UserError, one line, that names the host and the file where it is about
    shards. Records that are no pairs are left out and listed in `rejects`.
    """
    columns = (image_column, caption_column, label_column)
    if not isinstance(source, str):
        opened = [open_pairs(part, *columns) for part, _ in source]
        return opened[0] if len(opened) == 1 else Mixture(opened, [weight for _, weight in source])
    if source.startswith("tfds:"):
        name, split = split_of(source.removeprefix("tfds:"))
        return open_tfds(name, split, *columns)
    if source.endswith(".tar"):
        return open_shards(find_shards(source), caption_column, label_column)
    if Path(source).suffix in TABLE_SUFFIXES and "://" not in source:
        return read_table(Path(source), *columns)
    folder, split = split_of(source)
    if split and Path(folder).suffix in TABLE_SUFFIXES and "://" not in source:
        return read_table(Path(folder), *columns, split)
    if "://" not in source and Path(folder).is_dir():
        return open_build(Path(folder), split, *columns)
    if "://" in source:
        raise UserError(f"{source}: only tars are read over the network; copy it here, or mount it (gcsfuse, mountpoint-s3)")
    raise UserError(f"{source}: no such file or folder, or not a source of pairs; expected {SOURCES}")


def split_of(text: str) -> tuple[str, str | None]:
    """`PLACE:train` in two; None where no split is given."""
    found = _SPLIT.fullmatch(text)
    return (found["place"], found["split"]) if found else (text, None)
