"""Which file beside an article's XML an href means, and which of a figure's files are its picture."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote

from biomedclip_jax.data.pmc.jats.article import Graphic

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif")  # in the order in which they are tried
_UNREADABLE = (".eps", ".epsf", ".epsi", ".svg", ".svgz", ".pdf", ".ai", ".ps", ".emf", ".wmf")  # to us
_OTHER_IMAGES = (*_UNREADABLE, ".bmp")  # that an XML may name where the folder holds another form
_SMALL_SIDE = 400  # pixels; a content-type like "scielo-267x140" states the size of a copy
_STATED_SIZE = re.compile(r"(\d{2,4})x(\d{1,4})$")
_THUMBNAIL = re.compile(r"thumb|(?:^|[-_. ])(?:small|icon|preview)(?:$|[-_. ])", re.IGNORECASE)


def resolve(href: str, names: Collection[str]) -> str | None:
    """The one of `names` (files without folders) that `href` means, or None.

    First as PubMed Central names its files: the exact name, else the name with .jpg, .jpeg, .png, .webp, .tif,
    .tiff or .gif added, in this order. Many names have dots, so nothing is ever cut off there. Only where that
    finds nothing:

    1. the same for the last part of a path or address, without its query and with %20 and the like decoded
       ("figures/f1.jpg", "f1.jpg?md5=...", "info:doi/10.1371/journal.pone.0038869.g001", also without PLOS's "journal.");
    2. both without regard to how letters with marks are composed (macOS takes them apart), then to case, if just one
       file fits;
    3. the ending of an image format exchanged ("f1.tif" in the XML, f1.jpg in the folder), in the order above.
    """
    if not href.strip():
        return None
    names = names if isinstance(names, set | frozenset | dict) else frozenset(names)
    if found := _as_written(href, names):
        return found
    parts = list(dict.fromkeys(_last_parts(href)))
    for part in parts:
        if found := _as_written(part, names):
            return found
    for fold in (_composed, _folded):
        by_name: dict[str, list[str]] = {}
        for name in names:
            by_name.setdefault(fold(name), []).append(name)
        wanted = [fold(part) for part in (href, *parts)]
        for part in wanted:
            for candidate in (part, *(part + suffix for suffix in SUFFIXES)):
                if len(found := by_name.get(candidate, ())) == 1:
                    return found[0]
    for part in wanted:
        stem = _stem(part)
        if stem != part:
            for suffix in SUFFIXES:
                if len(found := by_name.get(stem + suffix, ())) == 1:
                    return found[0]
    return None


def keys_of(href: str) -> frozenset[str]:
    """`key_of` of all files that `resolve` may give for an href, and `picture` in its place."""
    return frozenset(key_of(part) for part in (href, *_last_parts(href)))


def key_of(name: str) -> str:
    """What a file's name has in common with an href that may mean it."""
    shorter, name = _motif(name), ""
    while shorter != name:
        shorter, name = _motif(shorter), shorter
    return name


def picture(graphics: Iterable[Graphic], names: Collection[str]) -> tuple[str, ...]:
    """The files that are a figure's picture: one as a rule, several where it has several graphics, () where there is none.

    The members of one <alternatives>, and files that differ in their ending only (or by Springer's _Print and
    _HTML), are forms of one picture. The best stays: jpg before png, webp, tif and gif, and what we cannot read (EPS,
    SVG, PDF ...) last; a thumbnail (by name, use or stated size) only where there is nothing else. A TIFF or GIF also
    gives way to a better form of the same name that the XML does not mention (old packages hold such pairs), and what
    we cannot read to any form that we can.
    """
    names = names if isinstance(names, set | frozenset | dict) else frozenset(names)
    pictures: dict[object, list[tuple[bool, int, str]]] = {}  # (thumbnail, rank of the format, name)
    for graphic in graphics:
        file = resolve(graphic.href, names)
        if file is not None:
            forms = [(_is_thumbnail(graphic, file), _rank(file), file)]
            if _rank(file) == len(SUFFIXES):
                readable = [name for name in names if _motif(name) == _motif(file) and _rank(name) < len(SUFFIXES)]
                forms += [(_THUMBNAIL.search(name) is not None, _rank(name), name) for name in readable]
            elif _rank(file) >= SUFFIXES.index(".tif"):
                stem = file[: -len(PurePosixPath(file).suffix)]
                forms += [(False, _rank(stem + s), stem + s) for s in SUFFIXES if stem + s in names and stem + s != file]
            group: object = graphic.alternatives if graphic.alternatives is not None else _motif(file)
            pictures.setdefault(group, []).extend(forms)
    best: dict[str, str] = {}
    for forms in pictures.values():
        file = min(forms)[2]
        best.setdefault(_motif(file), file)
    return tuple(best.values())


def _as_written(href: str, names: Collection[str]) -> str | None:
    return next((name for name in (href, *(href + suffix for suffix in SUFFIXES)) if name in names), None)


def _last_parts(href: str) -> Iterator[str]:
    bare = re.split(r"[?#]", href.strip(), maxsplit=1)[0]
    for text in (href.strip(), bare, unquote(bare)):
        last = re.split(r"[/\\]", text)[-1]
        if last:
            yield last
            yield last.removeprefix("journal.")


def _stem(name: str) -> str:
    """Without the ending of an image format; other dots stay. For names in lower case."""
    return next((name[: -len(s)] for s in (*SUFFIXES, *_OTHER_IMAGES) if name.endswith(s) and name != s), name)


def _motif(name: str) -> str:
    """What the names of all forms of one picture have in common."""
    return _stem(_folded(name)).removesuffix("_html").removesuffix("_print")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).lower())


def _rank(name: str) -> int:
    """How far down in SUFFIXES; files without such an ending (bioRxiv's JPEGs) count as JPEG, unreadable ones are last."""
    if name.lower().endswith(_UNREADABLE):
        return len(SUFFIXES)
    return next((i for i, suffix in enumerate(SUFFIXES) if name.lower().endswith(suffix)), 0)


def _is_thumbnail(graphic: Graphic, file: str) -> bool:
    size = _STATED_SIZE.search(graphic.content_type or "")
    small = size is not None and max(int(size[1]), int(size[2])) <= _SMALL_SIDE
    return small or any(_THUMBNAIL.search(text) for text in (file, graphic.specific_use or "", graphic.content_type or ""))
