"""Which versions of which articles are in the cloud: from the bucket's daily inventory, or by listing it."""

import csv
import functools
import gzip
import hashlib
import io
import json
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote_plus

import numpy as np

from biomedclip_jax.data.pmc.sources._cloud_layout import METADATA_KEY
from biomedclip_jax.data.pmc.sources._s3 import Bucket, NotThere
from biomedclip_jax.errors import UserError, first_line

INVENTORIES = "inventory-reports/pmc-oa-opendata/metadata/"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ")
_ROW = np.dtype([("number", "S12"), ("version", np.uint16), ("digest", np.uint64)])  # 22 bytes; 8 million are 180 MB
Row = tuple[str, str]  # key "metadata/PMC123.1.json", ETag


def etag_digest(etag: str) -> int:
    """64 bits of a hash of an ETag."""
    return int.from_bytes(hashlib.md5(etag.encode(), usedforsecurity=False).digest()[:8], "little")


class Index:
    """All versions of many articles, each with the digest of its ETag."""

    def __init__(self, rows: Iterable[Row], ids: frozenset[str] | None = None):
        """ids: PMC ids to keep; None keeps all. Keys other than those of metadata are passed over."""

        def parsed() -> Iterator[tuple[str, str, int]]:
            for key, etag in rows:
                match = METADATA_KEY.fullmatch(key)
                if match and (ids is None or f"PMC{match[1]}" in ids):
                    yield match[1], match[2], etag_digest(etag)

        found = np.fromiter(parsed(), _ROW)
        order = np.lexsort((found["digest"], found["version"], found["number"]))  # as strings: "PMC10" < "PMC9"
        self._rows = found[order]

    def __len__(self) -> int:
        """The number of articles, however many versions each of them has."""
        return int(self._firsts().sum())

    def _firsts(self) -> np.ndarray:
        numbers = self._rows["number"]
        return np.concatenate([np.ones(min(len(numbers), 1), bool), numbers[1:] != numbers[:-1]])

    def keys(self) -> Iterator[str]:
        """The PMC ids of all articles, sorted."""
        for number in self._rows["number"][self._firsts()]:
            yield f"PMC{number.decode()}"

    def versions(self, pmcid: str) -> dict[int, int]:
        """The versions of an article, each with the digest of its ETag; empty for an article that is unknown."""
        number = np.bytes_(pmcid.removeprefix("PMC"))
        first, last = (int(np.searchsorted(self._rows["number"], number, side)) for side in ("left", "right"))
        return {int(row["version"]): int(row["digest"]) for row in self._rows[first:last]}


def list_versions(bucket: Bucket, pmcid: str) -> dict[int, int]:
    """The versions of one article from the bucket itself, as `Index.versions` gives them; one request."""
    found = ((METADATA_KEY.fullmatch(key), etag) for key, etag in bucket.objects(f"metadata/{pmcid}."))
    return {int(match[2]): etag_digest(etag) for match, etag in found if match}


def list_bucket(bucket: Bucket) -> Index:
    """Index the bucket by listing all metadata: a request for each thousand versions. UserError for a bucket without
    any.
    """
    index = Index(bucket.objects("metadata/PMC"))
    if not len(index):
        raise UserError(f"{bucket.address('')}: no metadata/PMC<id>.<version>.json in it; expected PMC's cloud layout")
    return index


def read_inventory(inventory: str, bucket: Bucket, ids: frozenset[str] | None) -> Index:
    """Index the bucket from an inventory, without listing it.

    inventory: "latest", the address of a manifest in a bucket, or the path of one that was downloaded. A manifest's
    files are looked for beside it (in `data/` of the folder above, as in the bucket, or in its own), else fetched.
    Raises UserError for a manifest or a file of it that is missing, damaged, or has another checksum than it should.
    """
    if inventory == "latest":
        name, manifest = _latest(bucket)
    elif inventory.startswith("s3://"):
        name, (other, _, key) = inventory, inventory.removeprefix("s3://").partition("/")
        manifest = Bucket(other, connections=bucket.connections).get(key)
    else:
        name = inventory
        try:
            manifest = Path(inventory).read_bytes()
        except OSError as error:
            raise UserError(f"{inventory}: {error.strerror}; expected `latest` or the manifest.json of an inventory") from error
    try:
        described = json.loads(manifest)
        files = [(str(file["key"]), file.get("MD5checksum")) for file in described["files"]]
        columns = [column.strip() for column in described.get("fileSchema", "Bucket, Key, LastModifiedDate, ETag").split(",")]
        key_column, etag_column = columns.index("Key"), columns.index("ETag")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: not the manifest of an S3 inventory with keys and ETags ({first_line(error)})") from error

    def rows() -> Iterator[Row]:
        for key, md5 in files:
            yield from _rows(key, md5, Path(name), bucket, key_column, etag_column)

    index = Index(rows(), ids)
    if ids is None and not len(index):
        raise UserError(f"{name}: no metadata/PMC<id>.<version>.json in this inventory")
    return index


def _latest(bucket: Bucket) -> tuple[str, bytes]:
    dates = sorted(filter(_DATE.fullmatch, bucket.folders(INVENTORIES)), reverse=True)
    for date in dates[:3]:  # the newest may still be in the making
        key = f"{INVENTORIES}{date}/manifest.json"
        try:
            try:
                md5 = bucket.get(f"{INVENTORIES}{date}/manifest.checksum").decode("ascii", "replace").strip()
            except NotThere:
                md5 = None
            return bucket.address(key), bucket.get(key, md5)
        except NotThere:
            continue
    raise UserError(f"{bucket.address(INVENTORIES)}: no inventory there; leave --inventory out to list the bucket itself")


def _rows(key: str, md5: str | None, manifest: Path, bucket: Bucket, key_column: int, etag_column: int) -> Iterator[Row]:
    name = key.rpartition("/")[2]
    beside = [manifest.parent.parent / "data" / name, manifest.parent / name]
    local = next((path for path in beside if path.is_file()), None)
    with tempfile.TemporaryFile() if local is None else local.open("rb") as file:
        if local is None:
            bucket.copy(key, file, md5)
        elif md5 and (found := _md5(file)) != md5:
            raise UserError(f"{local}: its MD5 is {found}, expected {md5}, as {manifest} says; fetch it again")
        file.seek(0)
        try:
            with gzip.open(file) as unpacked, io.TextIOWrapper(unpacked, encoding="utf-8", newline="") as text:
                for row in csv.reader(text):
                    yield unquote_plus(row[key_column]), row[etag_column]
        except (OSError, EOFError, zlib.error, ValueError, IndexError, csv.Error) as error:
            raise UserError(f"{local or bucket.address(key)}: not a CSV of an inventory, or damaged ({error})") from error


def _md5(file: io.BufferedIOBase) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in iter(functools.partial(file.read, 2**20), b""):
        digest.update(chunk)
    return digest.hexdigest()
