"""Where articles come from, whatever form they have there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.sources._packages import Packages, is_package, packages_among
from biomedclip_jax.data.pmc.sources.folders import (
    XML_SUFFIXES,
    CloudFolder,
    PlainFolder,
    articles_among,
    id_in_path,
    is_cloud_folder,
    walk,
)
from biomedclip_jax.errors import UserError

EXPECTED = (
    "expected s3://BUCKET[/FOLDER] or a folder in PMC's cloud layout (PMC<id>.<version>/), a folder of PMC*.tar.gz or one of"
    " them, or a folder of .nxml/.xml with images beside them or one of them"
)


class Source(Protocol):
    """Articles, to be opened one by one by their keys. It can be pickled, and so can the ArticleFiles that it gives."""

    def keys(self) -> Iterator[str]:
        """What the articles are called here, sorted as strings; no article is opened.

        An article has one key, however many versions of it there are: its PMC id, or the path of its file. Ids that
        were asked for and do not exist are among them: opening one of these is an error.
        """
        ...

    def open(self, key: str) -> ArticleFiles:
        """The best version of the article: the highest that is open access and no author's manuscript, if there are
        several.

        Raises UserError where it cannot be had, and its subclass `selection.NotWanted`, before any picture is read,
        where metadata say that its licence is not among those asked for.
        """
        ...

    def version(self, key: str) -> str:
        """Another one whenever the article's files, or which version is the best, may have changed."""
        ...


def identity(source: Source, key: str) -> str:
    """What an article is called whatever version or form of it a source has: its PMC id, else (its path names none) where
    it is.
    """
    if found := id_in_path(key):
        return found.partition(".")[0]
    return str(Path(getattr(source, "root", "")).resolve() / key)


def open_source(
    source: str,
    *,
    ids: tuple[str, ...] | None = None,
    inventory: str | None = None,
    licenses: frozenset[str] | None = None,
    connections: int | None = None,
) -> Source:
    """The source that an address or path means, recognised by its form and by what a folder holds.

    ids: as `selection.read_ids` gives them; only these articles. licenses: codes that are wanted; articles whose
    metadata state another raise NotWanted when opened (packages and plain folders have none: there only the XML
    tells).
    inventory ("latest", or a manifest, see `inventory.read_inventory`) and connections (requests at once): of s3://
    only.
    Raises UserError for anything else than what `EXPECTED` says.
    """
    if source.startswith("s3://"):
        return _cloud(source, ids, inventory, licenses, connections)
    if inventory is not None:
        raise UserError(f"--inventory belongs to s3:// sources; {source} is none")
    if "://" in source:
        raise UserError(f"{source}: {EXPECTED}")
    path = Path(source)
    if path.is_file():
        if is_package(path.name):
            return Packages(path.parent, ids, only=path.name)
        if path.name.lower().endswith(XML_SUFFIXES):
            return PlainFolder(path.parent, ids, only=path.name)
        raise UserError(f"{path}: {EXPECTED}")
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; {EXPECTED}")
    return _folder(path, ids, licenses)


def _folder(path: Path, ids: tuple[str, ...] | None, licenses: frozenset[str] | None) -> Source:
    if is_cloud_folder(path):
        return CloudFolder(path, ids, licenses)
    package = xml = None
    for folder, files in walk(path):
        package = package or next((f"{folder}{name}" for name in packages_among(files)), None)
        xml = xml or next((f"{folder}{name}" for name in articles_among(files)), None)
        if package and xml:
            raise UserError(
                f"{path}: holds both packages ({package}) and articles ({xml}); name the folder of the ones or the others"
            )
    if package:
        return Packages(path, ids)
    if xml:
        return PlainFolder(path, ids)
    raise UserError(f"{path}: no article in this folder or below it; {EXPECTED}")


def _cloud(
    source: str,
    ids: tuple[str, ...] | None,
    inventory: str | None,
    licenses: frozenset[str] | None,
    connections: int | None,
) -> Source:
    try:
        from biomedclip_jax.data.pmc.sources._cloud import CloudSource
        from biomedclip_jax.data.pmc.sources._s3 import CONNECTIONS, Bucket
    except ModuleNotFoundError as error:
        raise UserError(f"{source}: reading it needs more ({error}): pip install 'biomedclip_jax[pmc]'") from error
    name, _, folder = source.removeprefix("s3://").partition("/")
    folder = folder.strip("/")
    if not name:
        raise UserError(f"{source}: no bucket named; {EXPECTED}")
    return CloudSource(Bucket(name, f"{folder}/" if folder else "", connections or CONNECTIONS), ids, inventory, licenses)
