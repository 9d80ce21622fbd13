"""Articles straight from PMC's cloud service, or from a bucket arranged like it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from biomedclip_jax.data.pmc.jats.article import ArticleFiles, Metadata
from biomedclip_jax.data.pmc.sources._cloud_layout import best_version, metadata_key, picture_files, read_metadata, xml_file
from biomedclip_jax.data.pmc.sources._inventory import Index, list_bucket, list_versions, read_inventory
from biomedclip_jax.data.pmc.sources._s3 import Bucket
from biomedclip_jax.data.pmc.sources.selection import check_license
from biomedclip_jax.errors import UserError


class NoSuchArticle(UserError):
    """The bucket holds neither this id nor, if a version is given, this version."""


@dataclass(frozen=True)
class FoundVersion:
    """A version of an article in the cloud. article: "PMC123.2". data: the metadata as they came, byte for byte."""

    article: str
    data: bytes
    metadata: Metadata


@dataclass(frozen=True)
class CloudSource:
    """Keys are PMC ids; ids with a version ("PMC123.1") mean just that one. Pickled, it leaves the index behind."""

    bucket: Bucket
    ids: tuple[str, ...] | None = None  # None: all articles
    inventory: str | None = None  # see `read_inventory`; None: the bucket is listed
    licenses: frozenset[str] | None = None  # None: any

    def keys(self) -> Iterator[str]:
        """The keys of the articles, sorted; see `Source.keys`."""
        if self.ids is None:
            return self._index.keys()
        self.bucket.check()  # or a bucket that cannot be reached would make every id a reject
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids) if self.ids is not None else len(self._index)

    def version(self, key: str) -> str:
        """Changes when any object of any version of the article does, as the ETags of the metadata do."""
        versions = self._versions(key)
        return hashlib.md5(repr(sorted(versions.items())).encode(), usedforsecurity=False).hexdigest()

    def find(self, key: str) -> FoundVersion:
        """The version that a key means and its metadata.

        Raises UserError where there is none, NotWanted where its licence is not among `licenses`.
        """
        pmcid = key.partition(".")[0]
        known: dict[int, FoundVersion] = {}

        def metadata(version: int) -> Metadata:
            if version not in known:
                article = f"{pmcid}.{version}"
                data = self.bucket.get(metadata_key(article))
                known[version] = FoundVersion(article, data, read_metadata(data, self.bucket.address(metadata_key(article))))
            return known[version].metadata

        version = best_version(self._versions(key), metadata)
        self.check_license(metadata(version), f"{pmcid}.{version}")
        return known[version]

    def check_license(self, metadata: Metadata, article: str) -> None:
        """Check the licence in the metadata of an article: NotWanted if it is not among `licenses`."""
        check_license(metadata.license_code, self.licenses, article)

    def open(self, key: str) -> ArticleFiles:
        """Open the best version of an article; see `Source.open`."""
        found = self.find(key)
        article, metadata = found.article, found.metadata
        xml = xml_file(metadata, article)
        md5s = {file.name: file.md5 for file in picture_files(metadata, article)}
        location = f"{article}/{xml.name}"
        data = self.bucket.get(location, xml.md5)
        return ArticleFiles(article, location, data, metadata, tuple(md5s), _Reader(self.bucket, article, md5s))

    @cached_property
    def _index(self) -> Index:
        self.bucket.check()
        if self.inventory is None:
            return list_bucket(self.bucket)
        ids = None if self.ids is None else frozenset(key.partition(".")[0] for key in self.ids)
        return read_inventory(self.inventory, self.bucket, ids)

    def _versions(self, key: str) -> dict[int, int]:
        pmcid, _, version = key.partition(".")
        known = "_index" in vars(self) or (self.inventory is not None and self.ids is not None)
        versions = self._index.versions(pmcid) if known else list_versions(self.bucket, pmcid)
        if version:
            versions = {number: digest for number, digest in versions.items() if number == int(version)}
        if not versions:
            raise NoSuchArticle(f"{key}: no such article in {self.bucket.address('')}")
        return versions

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_index"}


@dataclass(frozen=True)
class _Reader:
    """Gives a picture's bytes by its name."""

    bucket: Bucket
    article: str
    md5s: dict[str, str | None]

    def __call__(self, name: str) -> bytes:
        if name not in self.md5s:
            raise UserError(f"{self.article}/{name}: not among the media that its metadata list")
        return self.bucket.get(f"{self.article}/{name}", self.md5s[name])
