"""How the PMC cloud service arranges an article: `PMC<id>.<version>/` with its files,
`metadata/PMC<id>.<version>.json`.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from biomedclip_jax.data.pmc.jats.article import Metadata
from biomedclip_jax.errors import UserError

ARTICLE = re.compile(r"PMC(\d{1,12})\.(\d{1,4})", re.ASCII)  # "PMC99000004.2"
PMCID = re.compile(r"PMC\d{1,12}", re.ASCII)
METADATA_KEY = re.compile(r"metadata/PMC(\d{1,12})\.(\d{1,4})\.json", re.ASCII)
_URL = re.compile(r"s3://[^/]+/(?P<key>.+?)(?:\?md5=(?P<md5>[0-9a-fA-F]{32}))?", re.DOTALL)

_LONGEST_NAME = 240  # bytes; file systems allow 255, and ".partial" comes behind it for a while

# What media_urls lists besides pictures: supplements, which no figure shows. Names without a known ending may be
# pictures.
_NO_PICTURE = re.compile(
    r".*\.(pdf|docx?|rtf|odt|txt|tex|n?xml|html?|json|[ct]sv|xls[xm]?|ods|pptx?|zip|gz|tgz|tar|bz2|xz|7z|rar|mp4|m4v|mov|avi|mpe?g"
    r"|wmv|flv|webm|mkv|dcr|swf|mp3|wav|m4a|py|r|m|sas|do|dta|sav|fa|fasta|fastq|vcf|bed|pdb|cif|mol|sbml|nex|nwk|mat|rds|rdata"
    r"|h5|hdf5|npy|db|exe)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class CloudFile:
    """A file of an article, as the metadata list it."""

    name: str  # without folder
    md5: str | None  # lower-case hex


def metadata_key(article: str) -> str:
    """The name of an article's metadata in the cloud. article: id and version, "PMC99000004.2"."""
    return f"metadata/{article}.json"


def is_own_file(name: str, article: str) -> bool:
    """Whether it is the article's text in one of its forms, not one of its media."""
    return name in {f"{article}.{ending}" for ending in ("xml", "json", "txt", "pdf")}


def may_be_picture(name: str) -> bool:
    """False for documents, tables, archives, films and sound, by the end of the name."""
    return not _NO_PICTURE.fullmatch(name)


def read_metadata(data: bytes, name: str) -> Metadata:
    """The metadata of a version, from its JSON. Raises UserError, naming `name`, for anything but a JSON object."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({error}); expected the metadata of an article") from error
    if not isinstance(facts, dict):
        raise UserError(f"{name}: expected the metadata of an article, one JSON object, found {type(facts).__name__}")
    return Metadata.of(facts)


def best_version(versions: Iterable[int], metadata: Callable[[int], Metadata | None]) -> int:
    """The highest version that is open access and no author's manuscript; just the highest where there is none.

    metadata: gives those of a version, or None; not called where there is one version only.
    """
    ordered = sorted(versions, reverse=True)
    for version in ordered if len(ordered) > 1 else []:
        facts = metadata(version)
        if facts is not None and facts.is_open_access and not facts.is_manuscript:
            return version
    return ordered[0]


def xml_file(metadata: Metadata, article: str) -> CloudFile:
    """The XML of an article. Raises UserError where the metadata name none, or one with another name than it should
    have.
    """
    file = _file(metadata.xml_url, article)
    if file.name != f"{article}.xml":
        raise UserError(f"{article}: its metadata name {file.name!r} as its XML; expected {article}.xml")
    return file


def picture_files(metadata: Metadata, article: str) -> list[CloudFile]:
    """The media that may be pictures, in the metadata's order. Raises UserError for what cannot be a file of the
    article.
    """
    urls = metadata.media_urls or []
    if not isinstance(urls, list):
        raise UserError(f"{article}: media_urls of its metadata is {urls!r:.80}; expected a list of s3:// addresses")
    files = {file.name: file for file in (_file(url, article) for url in urls)}
    return [file for file in files.values() if may_be_picture(file.name) and not is_own_file(file.name, article)]


def _file(url: object, article: str) -> CloudFile:
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    folder, _, name = match["key"].rpartition("/") if match else ("", "", "")
    # the name becomes a file of ours: it must not lead out of the article's folder, nor be longer than a file's may be
    leads_out = folder.rpartition("/")[2] != article or name in ("", ".", "..") or "\0" in name or "\\" in name
    if not match or leads_out or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise UserError(f"{article}: {url!r:.200} in its metadata; expected s3://BUCKET/{article}/NAME?md5=...")
    return CloudFile(name, match["md5"].lower() if match["md5"] else None)
