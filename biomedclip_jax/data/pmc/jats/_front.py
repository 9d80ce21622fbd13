"""What the front matter of a JATS article says: ids, title, journal, year, licence, retraction."""

import re
from collections.abc import Iterator

from lxml import etree

from biomedclip_jax.data.pmc.jats._elements import child, children, local_name
from biomedclip_jax.data.pmc.jats._text import one_line, text_of
from biomedclip_jax.data.pmc.jats.article import License
from biomedclip_jax.data.pmc.jats.licences import license_code

_TEXT_MINING_ONLY = "TDM"
_BY_TYPE = "license/@license-type"
STATEMENT_LENGTH = 300  # characters of a licence's statement that are kept

_ADDRESS = re.compile(r"https?://[^\s<>\"'()]*[^\s<>\"'().,;:]")
_NOT_PUBLICATION = re.compile(r"pmc|nihms|received|accepted|rev-|preprint|submi|correct|retract|embargo", re.IGNORECASE)
_RETRACTED_TYPES = frozenset({"retraction", "retracted-article", "partial-retraction"})
# of the article itself: "RETRACTED: Mice", "[Retracted] Mice", "Mice (retracted article)"; not "Retracted articles: a study"
_RETRACTED_TITLE = re.compile(
    r"[\[(]?\s*(?:retracted|withdrawn)\b(?:\s+(?:article|paper|manuscript|chapter))?\s*(?:[:\])]|[\u2013\u2014-]\s)"
    r"|.*[\[(]\s*retracted(?:\s+(?:article|paper))?\s*[\])]\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
# of a notice; "Retraction: ..." and "Retraction to ..." may also be of muscles and brains
_NOTICE_TITLE = re.compile(
    r"[\[(]?\s*(?:(?:partial\s+)?retraction\b\s*(?:(?:note|notice|statement|announcement)\b|(?:to|of|for)\s*[:\"\u201c\u2018\u00ab']|[\])]|\.?\s*\Z)"
    r"|notice of (?:partial )?retraction\b)",
    re.IGNORECASE,
)
_PERHAPS_A_NOTICE = re.compile(r"retraction\b\s*(?:[:.\u2013\u2014-]|to\b|of\b|for\b)", re.IGNORECASE)
_SHOUTED_NOTICE = re.compile(r"RETRACTION\s*[:\u2013\u2014].*[a-z]", re.DOTALL)
_NOTICE_TYPES = frozenset({"correction", "addendum", "announcement", "expression-of-concern"})


def xlink(element: etree._Element, name: str) -> str | None:
    """An XLink attribute, however its prefix is called; also without any, where nothing declares the prefix."""
    return element.get(f"{{http://www.w3.org/1999/xlink}}{name}", element.get(name))


def article_meta(article: etree._Element) -> etree._Element | None:
    """The <article-meta> of an article, or None."""
    return child(child(article, "front"), "article-meta")


def article_ids(meta: etree._Element | None) -> dict[str, str]:
    """ "pmcid" (as "PMC123", also from the older "pmc" with or without letters), "pmid" and "doi", where they are
    given.
    """
    found: dict[str, str] = {}
    for element in children(meta, "article-id"):
        kind, value = element.get("pub-id-type") or "", text_of(element)
        if kind in ("pmc", "pmcid", "pmc-uid") and (number := re.fullmatch(r"(?:PMC)?(\d+)", value, re.IGNORECASE)):
            found.setdefault("pmcid", f"PMC{number[1]}")
        elif kind in ("pmid", "doi") and value:
            found.setdefault(kind, value)
    return found


def title(meta: etree._Element | None) -> str | None:
    """The title of an article as plain text, or None."""
    element = child(child(meta, "title-group"), "article-title")
    return text_of(element) if element is not None else None


def journal(article: etree._Element) -> str | None:
    """The journal's title, within <journal-title-group> or (older DTDs) not; its short form where that is all there
    is.
    """
    meta = child(child(article, "front"), "journal-meta")
    if meta is None:
        return None
    full = [text_of(e) for e in meta.iter("{*}journal-title")]
    short = [text_of(e) for e in meta.iter("{*}abbrev-journal-title")]
    ids = [text_of(e) for e in children(meta, "journal-id") if e.get("journal-id-type") in ("nlm-ta", "iso-abbrev")]
    return next((name for name in (*full, *short, *ids) if name), None)


def year(meta: etree._Element | None) -> int | None:
    """The year in which the article first appeared: the earliest <pub-date> that is a date of publication."""
    years: dict[bool, list[int]] = {True: [], False: []}
    for date in children(meta, "pub-date"):
        kind = date.get("pub-type") or date.get("date-type") or ""
        written = next((text_of(e) for e in children(date, "year")), None) or (date.get("iso-8601-date") or "")[:4]
        if re.fullmatch(r"(?:1[6-9]|20|21)\d\d", written):
            years[_NOT_PUBLICATION.match(kind) is None].append(int(written))
    return min(years[True] or years[False], default=None)


def is_retracted(article: etree._Element, meta: etree._Element | None) -> bool:
    """Whether the article has been retracted, or is the notice of a retraction: neither should teach anybody anything.

    Publishers and PubMed Central mark it by the article's type, by a <related-article> "retraction-forward" (that
    leads to the notice; the notice itself points back with "retracted-article"), or only by a title that begins with
    "RETRACTED:". A title that begins with "Retraction" alone says it only where something else does: the pointer to the
    retracted article, the type, or its words ("Retraction notice", capitals).
    """
    kind = (article.get("article-type") or "").lower()
    if kind in _RETRACTED_TYPES:
        return True
    related = {(e.get("related-article-type") or "").lower() for e in children(meta, "related-article")}
    if related & {"retraction-forward", "retraction"}:
        return True
    words = title(meta) or ""
    if _RETRACTED_TITLE.match(words) or _NOTICE_TITLE.match(words) or _SHOUTED_NOTICE.match(words):
        return True
    says_so = "retracted-article" in related or kind in _NOTICE_TYPES
    return says_so and _PERHAPS_A_NOTICE.match(words) is not None


def article_license(meta: etree._Element | None) -> License:
    """The licence in the front matter; <license> stands in <permissions> or, in the oldest DTDs, beside it."""
    return license_of([e for e in (child(meta, "permissions"), meta) if e is not None])


def license_of(permissions: list[etree._Element]) -> License:
    """The first licence that we know among those declared in these elements (<permissions> as a rule), else the first
    declared.

    The statement kept is that of the <license>, by the rule for texts; of the copyright if there is no <license>.
    Words that allow text mining only overrule the address beside them.
    """
    first: License | None = None
    for element in permissions:
        for statement in (*children(element, "license"), *children(element, "license_ref", "copyright-statement")):
            words = text_of(statement)
            text = words[:STATEMENT_LENGTH] or None
            sentences = " ".join(text_of(part) for part in children(statement, "license-p", "p"))
            if license_code(sentences) == _TEXT_MINING_ONLY:
                return License(_TEXT_MINING_ONLY, None, "license text", text)
            for url, declared_in, named in _declarations(statement):
                found = License(license_code(named), url, declared_in, text)
                if found.code:
                    return found
                if declared_in != _BY_TYPE:
                    first = first or found
    return first or License(None, None, "none", None)


def _declarations(statement: etree._Element) -> Iterator[tuple[str | None, str, str]]:
    """(address, where it is declared, what names the licence) of all that a statement says, the plainest first."""
    name = local_name(statement.tag)
    if name == "license":
        if href := xlink(statement, "href"):
            yield href.strip(), "license/@xlink:href", href
        for element in statement.iter("{*}license_ref"):
            yield one_line(element.text or ""), "license//license_ref", element.text or ""
        for element in statement.iter("{*}ext-link", "{*}uri", "{*}a"):
            if href := xlink(element, "href"):
                yield href.strip(), f"license-p//{local_name(element.tag)}/@xlink:href", href
    words = text_of(statement)
    if words:
        address = _ADDRESS.search(words)
        yield address and address[0], "permissions/license_ref" if name == "license_ref" else f"{name} text", words
    if name == "license" and (kind := statement.get("license-type")):  # "cc-by"; as a rule just "open-access"
        yield None, _BY_TYPE, kind
