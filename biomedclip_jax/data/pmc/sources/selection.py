"""Which articles are asked for, by id and by licence, and why an article is left out."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.pmc.jats.licences import license_code
from biomedclip_jax.errors import UserError, first_line

COMMERCIAL = ("CC0", "CC BY", "CC BY-SA", "CC BY-ND")  # PMC's own group "commercial use allowed"
# reasons why an article is left out; counted, so they are few
NOT_WANTED = "licence not wanted"
UNREADABLE = "cannot be read"
OLDER = "older version"
NO_MEMORY = "too large for the memory"
OUR_FAULT = "error of the reader"
_ID = re.compile(r"(?:PMC)?(\d{1,12})(\.\d{1,4})?", re.ASCII | re.IGNORECASE)


class NotWanted(UserError):
    """Nothing is wrong with the article; its licence is not among those asked for."""


class OlderVersion(UserError):
    """The source also holds a newer version of the article, which is taken."""


@dataclass(frozen=True)
class ArticleReject:
    """An article that was left out: its key, a reason that is one of a few, and the details in a line."""

    article: str
    reason: str
    detail: str


def reject_of(key: str, error: Exception) -> ArticleReject:
    """The reject for an article that could not be opened or described, whatever the error: millions of others wait."""
    if isinstance(error, NotWanted):
        return ArticleReject(key, NOT_WANTED, str(error))
    if isinstance(error, OlderVersion):
        return ArticleReject(key, OLDER, str(error))
    if isinstance(error, UserError):
        return ArticleReject(key, UNREADABLE, str(error))
    if isinstance(error, MemoryError):
        return ArticleReject(key, NO_MEMORY, f"{first_line(error)}; fewer --workers leave each more")
    return ArticleReject(key, OUR_FAULT, f"{type(error).__name__}: {first_line(error)}")  # ours to mend


def read_ids(given: Iterable[str]) -> tuple[str, ...]:
    """Ids as "PMC123" (whichever version is best) or "PMC123.2" (just this one), each once, sorted.

    given: ids ("PMC" may be missing), or files of them, one or more a line; "#" begins a comment.
    Raises UserError for a missing file and, with file and line, for what is no id.
    """
    ids: set[str] = set()
    for item in given:
        if match := _ID.fullmatch(item):
            ids.add(f"PMC{match[1]}{match[2] or ''}")
        else:
            ids.update(_ids_of_file(Path(item)))
    return tuple(sorted(ids))


def _ids_of_file(path: Path) -> Iterable[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: neither an id (PMC123 or PMC123.2) nor a file of ids") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of ids ({error})") from error
    found = False
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            match = _ID.fullmatch(word)
            if not match:
                raise UserError(f"{path}, line {number}: {word!r:.80}; expected an id such as PMC123 or PMC123.2")
            found = True
            yield f"PMC{match[1]}{match[2] or ''}"
    if not found:
        raise UserError(f"{path}: no ids in it; expected one a line, such as PMC123 or PMC123.2")


def read_licenses(given: Sequence[str]) -> frozenset[str] | None:
    """Codes ("CC BY", "CC0" ...) from what a user wrote ("cc-by"); None, which allows all, from "any" alone.

    Raises UserError for an unknown name.
    """
    if [name.lower() for name in given] == ["any"]:
        return None
    codes = set()
    for name in given:
        code = license_code(name)
        if code is None:
            raise UserError(
                f"--licenses {name}: no licence known by this name; expected such as 'CC BY' CC0 'CC BY-NC', or any"
            )
        codes.add(code)
    return frozenset(codes)


def check_license(stated: object, licenses: Collection[str] | None, article: str) -> None:
    """Check the licence that is stated for an article: NotWanted if it is none of `licenses`; None allows all."""
    if licenses is None:
        return
    code = license_code(stated) if isinstance(stated, str) else None
    if code not in licenses:
        raise NotWanted(
            f"{article}: its licence is {stated or 'none that is known here'}; wanted {', '.join(sorted(licenses))}"
        )
