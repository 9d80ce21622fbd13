"""Which licence an address, a code or a sentence names: "CC0", "CC BY", "CC BY-NC-ND" ..., "public domain" or "TDM" (text
mining only).
"""

import re

PUBLIC_DOMAIN = "public domain"
_ADDRESS = re.compile(
    r"creativecommons\.org/+(?:licen[cs]es/+(?P<terms>by(?:-(?:nc|nd|sa))*)\b(?!-)|publicdomain/+(?:(?P<zero>zero)|(?P<mark>mark))\b)",
    re.I,
)
_TEXT_MINING = re.compile(
    r"\btdm\b|\btdm_license|available for text mining|\btext(?:[- ]and[- ]data)?[- ]mining (?:only|licen[cs]e)", re.I
)
_TERM = r"(?:nc|nd|sa|non[- ]?comm?ercial|no[- ]?deriv(?:ative|ate)?s?(?: works?)?|share[- ]?alike)"
_TERMS = {
    "NC": re.compile(r"\bnc\b|non[- ]?comm?ercial", re.I),
    "SA": re.compile(r"\bsa\b|share[- ]?alike", re.I),
    "ND": re.compile(r"\bnd\b|no[- ]?deriv", re.I),
}
_SEPARATOR = r"(?:\s*[-\u2013\u2014/,+]\s*|\s*\band\b\s*|\s+)"
_CODE = re.compile(
    rf"\bcc{_SEPARATOR}?(?P<zero>0|zero)\b"
    rf"|(?:\bcc{_SEPARATOR}?by|\bcreative commons{_SEPARATOR}by|\battribution)(?P<terms>(?:{_SEPARATOR}{_TERM})*)\b",
    re.I,
)
_CREATIVE_COMMONS = re.compile(r"creative ?commons|\bcc(?:by|0|zero)?\b", re.I)
_NEAR = 80  # characters after a licence's name in which a code in brackets belongs to it: "Attribution License (CC BY-NC)"
_NON_COMMERCIAL_ONLY = re.compile(r"(?<!commercial and )(?<!commercial or )\bnon[- ]?commercial", re.I)
_PUBLIC_DOMAIN = re.compile(r"creative commons (?:cc0 |zero )?(?:public domain|zero|0)", re.I)
# what nobody has rights to, without a waiver: the mark, works of the government of the United States, and plain words
_NO_RIGHTS = re.compile(
    r"\bpublic[- ]?domain\b|\bpdm?(?: 1\.0)?\Z"
    r"|\b(?:u\.?\s?s\.?|united states|federal|american)(?: federal)? government works?\b"
    r"|\bworks? of the (?:u\.?\s?s\.?|united states)(?: federal)? government\b"
    r"|\bfree of all copyright\b",
    re.I,
)
_NOT_THESE = re.compile(r"\b(?:not|neither|nor|never|except|no longer|unless|until)\b[^.;]*$", re.I)
# "Panel B ... is not covered by the CC BY licence": what stands before the name in its sentence takes it back
_DENIED = re.compile(r"\b(?:not|neither|nor|except|excluded|exempt)\b[^.;]*$", re.I)
_HYPHENS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2212", "-") | {"\u00ad": "", "_": " "})


def license_code(text: str | None) -> str | None:
    """The licence named in an address, a code of PubMed Central's or a statement; None if none that we know is.

    An address counts before words, and what is named first before what is named later: statements go on to name the
    waiver for the article's data. Of words that contradict each other the stricter count: "the Creative Commons
    Attribution License, which permits non-commercial use" is CC BY-NC, and "is not covered by the CC BY licence" is
    none.
    """
    if not text:
        return None
    if address := _ADDRESS.search(text):
        return "CC0" if address["zero"] else PUBLIC_DOMAIN if address["mark"] else _code(address["terms"])
    line = " ".join(text.translate(_HYPHENS).split())
    if start := _CREATIVE_COMMONS.search(line):
        named = _CODE.search(line, start.start())
        if _DENIED.search(line, 0, (named or start).start()):
            return None
        if _PUBLIC_DOMAIN.match(line, start.start()) or (named and named["zero"]):
            return "CC0"
        if named:
            near = _CODE.finditer(line, named.start(), named.end() + _NEAR)
            terms = " ".join(code["terms"] or "" for code in near)
            return _code(terms + " nc" if _NON_COMMERCIAL_ONLY.search(line) else terms)
    elif re.fullmatch(rf"by(?:{_SEPARATOR}{_TERM})*(?:[- ]\d\.\d)?", line, re.I):
        return _code(line)
    if _TEXT_MINING.search(line):
        return "TDM"
    free = _NO_RIGHTS.search(line)
    return PUBLIC_DOMAIN if free and not _NOT_THESE.search(line, 0, free.start()) else None


def _code(terms: str) -> str:
    """ "CC BY-NC-ND" for "by-nc-nd", " Non Commercial-No Derivatives" ...; the order is Creative Commons' own."""
    return "-".join(["CC BY", *(short for short, pattern in _TERMS.items() if pattern.search(terms))])
