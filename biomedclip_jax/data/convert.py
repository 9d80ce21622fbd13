"""From one way of keeping pairs to another: tables with a folder of images, WebDataset tars, Parquet with pictures, a
TFDS build.

Images are decoded once, to know that they are whole, and their bytes are kept as they are; only what the destination
cannot hold becomes PNG. What cannot be read is left out and listed in `rejects.jsonl`.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.pairs import Pair, Pairs, Reject, reject
from biomedclip_jax.data.tables import REFERENCES
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder

Kind = Literal["webdataset", "csv", "jsonl", "parquet", "huggingface", "tfds"]

REJECTS = "rejects.jsonl"
PER_SHARD = 10_000  # samples, as webdataset recommends: about 1 GB
_AT_ONCE = 64  # images that are decoded side by side
_PER_GROUP = 32  # rows; a picture out of order is read with its group
_HELD: dict[Kind, tuple[str, ...]] = {  # what readers of the destination understand; of tables: every file we read
    "webdataset": (".jpg", ".png", ".webp"),
    "tfds": (".jpg", ".png"),
    "huggingface": (".jpg", ".png", ".webp", ".tif", ".gif", ".bmp"),  # what Pillow reads
}
_MAGIC = (  # suffix, where in the file, what stands there
    (".jpg", 0, b"\xff\xd8\xff"),
    (".png", 0, b"\x89PNG\r\n"),
    (".webp", 8, b"WEBP"),
    (".tif", 0, b"II*\x00"),
    (".tif", 0, b"MM\x00*"),
    (".gif", 0, b"GIF8"),
    (".bmp", 0, b"BM"),
    (".dcm", 128, b"DICM"),
)


@dataclass(frozen=True)
class _Item:
    """A pair on its way. number: its position in the source."""

    number: int
    content: bytes
    suffix: str
    pair: Pair


@dataclass(frozen=True)
class _Shape:
    """What the pairs have besides one caption each."""

    several: bool
    references: bool
    labels: bool


def convert(pairs: Pairs, destination: Path, kind: Kind, progress: Callable[[int], object] | None = None) -> tuple[int, int]:
    """Write the pairs into the new folder `destination`; returns how many were written, and how many left out.

    csv, jsonl, parquet: `pairs.csv` (...) and `images/`. huggingface: `data/train-00000-of-00003.parquet`, ... with the
    pictures in it, as `datasets` has them. webdataset: `00000.tar`, ... of PER_SHARD samples. tfds: a
    build with the split "train". CSV holds neither lists nor references: several captions become several rows.
    progress: called with a number of pairs that are done. Raises UserError if the folder exists and is not empty, if
    it cannot be written (nothing is left then), and if no pair can be read.
    """
    if kind not in get_args(Kind):
        raise UserError(f"--to {kind}: expected one of {', '.join(get_args(Kind))}")
    rejects: list[Reject] = list(pairs.rejects)
    before = len(rejects)

    def fill(folder: Path) -> None:
        items = _items(pairs, kind, rejects, progress or (lambda count: None))
        _WRITERS[kind](folder, items, pairs)
        lines = [json.dumps(vars(each), ensure_ascii=False) + "\n" for each in rejects]
        if lines:
            # a name of a file that is no UTF-8 has surrogates: written as escapes, which JSON knows
            (folder / REJECTS).write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
        if len(rejects) - before == len(pairs):
            raise UserError(f"none of the {len(pairs)} pairs can be read; the first: {rejects[before].reason}")

    write_folder(destination, fill)
    return len(pairs) - len(rejects) + before, len(rejects)


def _items(pairs: Pairs, kind: Kind, rejects: list[Reject], progress: Callable[[int], object]) -> Iterator[_Item]:
    """All that can be read, in order."""

    def read(number: int) -> _Item | UserError:
        try:
            pair = _whole_characters(pairs[number])
            content = pair.image if isinstance(pair.image, bytes) else pair.image.read_bytes()
            image = load_image(content, pair.name)
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"{pairs.name(number)}: cannot be read ({error.strerror or error})")
        suffix = next((suffix for suffix, at, mark in _MAGIC if content[at : at + len(mark)] == mark), "")
        if suffix and suffix in _HELD.get(kind, suffix):
            return _Item(number, content, suffix, pair)
        out = io.BytesIO()
        image.info.clear()  # colour profile, transparency ...: the pixels are what counts
        (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(out, "PNG")
        return _Item(number, out.getvalue(), ".png", pair)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(pairs), _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, len(pairs)))
            for number, item in zip(numbers, pool.map(read, numbers), strict=True):
                if isinstance(item, UserError):
                    rejects.append(reject(pairs, number, item))
                else:
                    yield item
                progress(1)


def _whole_characters(pair: Pair) -> Pair:
    """The pair with ? for halves of characters, which JSON can hold, but no file in UTF-8."""

    def whole(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    return replace(
        pair,
        captions=tuple(map(whole, pair.captions)),
        references=tuple(map(whole, pair.references)),
        label=None if pair.label is None else whole(pair.label),
    )


def _shape(pairs: Pairs) -> _Shape:
    several = references = labels = False
    for number in range(len(pairs)):
        try:
            texts = pairs.texts(number)
        except UserError:
            continue
        several |= len(texts.captions) > 1
        references |= bool(texts.references)
        labels |= texts.label is not None
    return _Shape(several, references, labels)


# --- tables ---------------------------------------------------------------------------------------------------------


def _rows(folder: Path, items: Iterator[_Item]) -> Iterator[tuple[str, Pair]]:
    """Writes the images; yields the path of each beside its pair."""
    (folder / "images").mkdir()
    for item in items:
        name = f"images/{item.number:08d}{item.suffix}"
        (folder / name).write_bytes(item.content)
        yield name, item.pair


def _write_csv(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    columns = ["image", "caption", *(["label"] if _shape(pairs).labels else [])]
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for name, pair in _rows(folder, items):
            table.writerows([name, caption, pair.label][: len(columns)] for caption in pair.captions)


def _write_jsonl(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for name, pair in _rows(folder, items):
            one = len(pair.captions) == 1
            row: dict[str, Any] = {"image": name, "caption": pair.captions[0] if one else pair.captions}
            row |= {} if pair.label is None else {"label": pair.label}
            row |= {REFERENCES: pair.references} if pair.references else {}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    schema, ParquetWriter = _schema(pairs, "parquet")
    rows: list[dict[str, Any]] = []
    several = _are_lists(schema)
    with ParquetWriter(folder / "pairs.parquet", schema) as writer:
        for name, pair in _rows(folder, items):
            rows.append({"image": name} | _cells(pair, several))
            if len(rows) == PER_SHARD:
                writer.write_table(_table(rows, schema))
                rows.clear()
        writer.write_table(_table(rows, schema))


def _schema(pairs: Pairs, kind: Kind) -> tuple[Any, Any]:
    """The columns of a Parquet file, and what writes one."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise UserError(f"--to {kind}: needs pyarrow: pip install 'biomedclip_jax[tfds]'") from None
    shape = _shape(pairs)
    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    inside = kind == "huggingface"
    columns = [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)]) if inside else text)]
    columns += [("caption", texts if shape.several else text)]
    columns += [("label", text)] if shape.labels else []
    columns += [(REFERENCES, texts)] if shape.references else []
    schema = pyarrow.schema(columns)
    if inside:  # by this `datasets` and the hub know a picture
        value = {"dtype": "string", "_type": "Value"}
        features = {name: {"feature": value, "_type": "List"} if kind == texts else value for name, kind in columns[1:]}
        schema = schema.with_metadata(
            {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}} | features}})}
        )
    return schema, ParquetWriter


def _are_lists(schema: Any) -> bool:
    return schema.field("caption").type.num_fields > 0


def _cells(pair: Pair, several: bool) -> dict[str, Any]:
    captions = list(pair.captions) if several else pair.captions[0]
    return {"caption": captions, "label": pair.label, REFERENCES: list(pair.references)}


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist(rows, schema)


# --- shards ---------------------------------------------------------------------------------------------------------


def _shards(items: Iterator[_Item], pairs: Pairs) -> Iterator[tuple[int, Iterator[_Item]]]:
    """(shard, its items); what a shard holds depends on the position in the source alone."""
    waiting: list[_Item] = []

    def inside(shard: int) -> Iterator[_Item]:
        while True:
            item = waiting.pop() if waiting else next(items, None)
            if item is None:
                return
            if item.number // PER_SHARD != shard:
                waiting.append(item)
                return
            yield item

    for shard in range(-(-len(pairs) // PER_SHARD)):
        yield shard, inside(shard)


def _write_tars(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    for shard, inside in _shards(items, pairs):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for item in inside:
                pair = item.pair
                fields: dict[str, Any] = {} if pair.label is None else {"label": pair.label}
                fields |= {REFERENCES: pair.references} if pair.references else {}
                first, *more = pair.captions
                fields |= {"captions": pair.captions} if more else {}
                members = {item.suffix: item.content, ".txt": first.encode()}
                members |= {".json": json.dumps(fields, ensure_ascii=True).encode()} if fields else {}
                for suffix, content in members.items():
                    about = tarfile.TarInfo(f"{item.number:09d}{suffix}")  # no date, no owner: the same bytes every time
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))


def _write_pictures(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    schema, ParquetWriter = _schema(pairs, "huggingface")
    several, count = _are_lists(schema), -(-len(pairs) // PER_SHARD)
    (folder / "data").mkdir()
    for shard, inside in _shards(items, pairs):
        rows: list[dict[str, Any]] = []
        # pictures are compressed already
        options: Any = {"compression": "none", "use_dictionary": False}
        with ParquetWriter(folder / "data" / f"train-{shard:05d}-of-{count:05d}.parquet", schema, **options) as writer:
            for item in inside:
                picture = {"bytes": item.content, "path": f"{item.number:08d}{item.suffix}"}
                rows.append({"image": picture} | _cells(item.pair, several))
                if len(rows) == _PER_GROUP:
                    writer.write_table(_table(rows, schema))
                    rows.clear()
            writer.write_table(_table(rows, schema))


def _write_build(folder: Path, items: Iterator[_Item], pairs: Pairs) -> None:
    from biomedclip_jax.data._tfds_write import BuildWriter

    shape = _shape(pairs)
    writer = BuildWriter(folder, several=shape.several, references=shape.references, labels=shape.labels)
    count = -(-len(pairs) // PER_SHARD)
    for shard, inside in _shards(items, pairs):
        writer.write(shard, count, ((item.content, item.pair) for item in inside))
    writer.finish()


_WRITERS: dict[str, Callable[[Path, Iterator[_Item], Pairs], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "webdataset": _write_tars,
    "huggingface": _write_pictures,
    "tfds": _write_build,
}
