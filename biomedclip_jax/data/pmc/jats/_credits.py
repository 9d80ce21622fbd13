"""Whether a caption or credit line says that its figure is somebody else's: the article's licence does not hold then.

Told by "reprinted / reproduced / adapted / modified / redrawn ... from" a source, by a permission or licence to show
it, by a copyright line, by "courtesy of". Not by what is said of patients' consent, of methods, cells and data that
came from elsewhere, or of the authors themselves.
"""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from biomedclip_jax.data.pmc.jats.licences import license_code

_LONGEST = 300  # characters of the statement that are kept
_MOST = 100  # statements of one caption that are looked at

# fmt: off
_MAY_SAY = re.compile(
    r"permi[st]s|courtesy|copyright|©|\(c\)|rights reserved|licen[cs]|print|reproduc|adapted|modified|drawn|publish|re-?used"
    r"|taken"
    r"|derived|extracted|copied|borrowed|excerpted|getty|shutterstock|istock|alamy|autoris|genehmigung|adaptad|reprodu[zc]i"
    r"|radiop|wiki|flickr|pixabay|unsplash|freepik|credit|cortes[ií]a",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\bal)(?<!\bref)(?<!\bfig)(?<!\bvol)(?<!\bno)(?<!\b[A-Za-z])[.;!?][)\]\"”]?\s+(?=[A-Z(\[©])")
_PERSON = (
    r"(?:patient|parent|famil|guardian|subject|participant|volunteer|donor|individual|relative|next of kin|mother|father|child"
    r"|owner|proband|person|caregiver|wom[ae]n|m[ae]n\b|sibling|case\b|him\b|her\b|them\b)"
)
_AUTHORS = (
    r"(?:the\s+)?(?:\w+\s+)?(?:(?:author|co-author|writer)s?\b|ours\b|ourselves\b|us\b"
    r"|our\s+(?:own|lab|group|team|department|institut|hospital|clinic|unit)\w*)"
)
# what may come from elsewhere without the picture
_NO_PICTURE = (
    r"(?:protocol|method|procedure|assay|technique|scor|scale|criteri|classification|algorithm|equation|formula|questionnaire"
    r"|guideline|sequence|data|value|parameter|strain|software|code|script|cell|line|plasmid|primer|antibod|measurement|definition"
    r"|medium|media|buffer|approach|pipeline|annotation|rate|result|coordinate|genom|gene|estimate|mice|mouse|rat|animal|sample"
    r"|specimen|tissue|biops|reagent|peptide|compound|construct|vector|virus|drug|section|slice|image stack|frame|still|region"
    r"|area|swab|blood|serum|material|slide|section|protein|marker|workflow|term|nomenclature|design|experiment)\w*"
)
_LINKS = (
    r"(?:(?:was|were|is|are|which|that|has|have|had|been|being|slightly|partly|partially|originally|here|and|kindly|also"
    r"|as|obtained|provided|supplied|received)\s+)*"
)
_VERB = (
    r"(?:re-?printed|reproduced|adapted|modified|re-?drawn|drawn|republished|re-?published|re-?used|borrowed|copied|excerpted"
    r"|extracted|derived|taken|used|printed|published|included|presented|shown|shared|displayed)"
)
_STRONG = r"(?:re-?printed|reproduced|re-?drawn|re-?published|adapted|modified|copied|borrowed|excerpted|re-?used)"
_PUBLISHER = (
    r"(?:Elsevier|Springer|Wiley|Nature|Oxford|Cambridge|Taylor|Sage|SAGE|Karger|Thieme|Lippincott|Wolters|Kluwer|Macmillan"
    r"|American|Royal|Academic Press|BMJ|Lancet|Cell Press|IEEE|ACS|RSC|AAAS|Science|PNAS|Blackwell|Hindawi|MDPI|Frontiers"
    r"|Mosby|Saunders|McGraw|Churchill|Humana|Mary Ann Liebert|Massachusetts|Radiological|Mayo|Copyright Clearance|publisher"
    r"|press\b|journal|society|associat|wiki[mp]edia|https?:|www\.|textbook|atlas\b|copyright|©|permission|licen[cs]e|NASA"
    r"|WHO\b|World Health|CDC\b|National|Universit|Institute)"
)
_SOURCE = re.compile(
    rf"\W*(?:(?:our|the|an?|their|his|her|its|[Rr]ef(?:erence)?s?\.?|previous\w*|original\w*|work\w*|stud\w+|paper\w*|article\w*"
    rf"|publication\w*|report\w*|figures?|figs?\.?|of|by|in|see|figure\s+\w+|\d+\w?|[–-])[\s,:]+)*"
    rf"(?:\[|\(\s*\d{{1,3}}\s*[,)–-]|[Rr]ef(?:erence)?s?\.?\s*\d|doi\b|\(?[A-Z][\w'’-]+(?:\s+[A-Z]\w*\.?)*"
    rf"(?:\s*\[|,?\s+(?:et\s+al|and\s+(?:co-?workers|colleagues|[A-Z])|&)|,?\s*\(?(?:19|20)\d\d)"
    rf"|.{{0,80}}?(?:\bet\s+al\b|\[\d|{_PUBLISHER}))",
)
_NAMED_SOURCE = re.compile(r"\W*(?:(?:the|a|work|figure|fig\.?|by|of|in|\d+\w?)\s+)*[A-Z][a-z’'-]{2,}")
_FROM = re.compile(
    rf"\b({_VERB})\b(?:[\s,]+(?:and|or|with|in|part|partly|slightly|kindly|minor|some|modifications?|changes?|permission|directly|here"
    rf"|{_VERB})){{0,12}}[\s,:]+(?:from|after|by)\b\s*",
    re.IGNORECASE,
)
_WITH_PERMISSION = re.compile(
    r"\b(?:with|by|under|upon|on)\s+(?:\w+\s+){0,4}?permissions?\b|\bpermissions?\s+(?:from|of|by)\b"
    r"|\bcom\s+(?:a\s+)?(?:devida\s+)?permiss[ãa]o\b|\bcon\s+(?:el\s+)?permiso\b|\bavec\s+l[a’'e]\s*(?:\w+\s+)?(?:permission|autorisation)\b"
    r"|\bmit\s+(?:\w+\s+)?genehmigung\b",
    re.IGNORECASE,
)
_PERMISSION_TO = re.compile(
    r"\bpermissions?\b[^.;]{0,60}\b(?:re-?print|reproduc|re-?publi[sc]|re-?use|adapt|use\s+(?:of\s+)?(?:the|this|these)\s+(?:figure|image|photo|picture|illustration|material))"
    r"|\b(?:publisher|copyright\s+(?:holder|owner))s?\b[^.;]{0,60}\bpermission|\bpermission\b[^.;]{0,60}\b(?:publisher|copyright\s+(?:holder|owner))"
    rf"|\bpermission\s+(?:was\s+|is\s+|kindly\s+)*(?:granted|given|obtained|received)\s+(?:by|from)\s+(?:the\s+)?{_PUBLISHER}",
    re.IGNORECASE,
)
_TO_SHOW = re.compile(
    rf"\b(?:{_VERB}|from|figure|fig\.|image|photo\w*|picture|illustration|map|drawing|diagram|scheme|courtesy|copyright)\b|©",
    re.IGNORECASE
)
_FIELD_WORK = re.compile(
    r"\b(?:collect|sampl|captur|excavat|conduct|perform|approv|access|enter|obtain|record|recruit|enrol|carried|examin|"
    r"consent|ethic|IRB)\w*", re.IGNORECASE
)
_COPYRIGHT = re.compile(
    rf"©|\(c\)\s*(?:19|20)\d\d\s+(?:by\s+)?(?:the\s+)?{_PUBLISHER}|\bcopyrights?(?:ed)?\b(?!\s*(?:free|waiver|notice|law))|\ball\s+rights\s+reserved\b",
    re.IGNORECASE,
)
_HELD = r"\b(?:belongs?|held|owned|retained|remains?)"
_OF_A_PRODUCT = re.compile(r"\b(?:using|with|by|in|via|software|program)\s+(?:[\w.-]+\s+){0,3}[\w.-]+\Z", re.IGNORECASE)
_SOFTWARE = re.compile(r"\s*(?:software|version|v\.?\s?\d|program\w*|package|kit|system|platform|suite)\b", re.IGNORECASE)
_NO_COPYRIGHT = re.compile(r"\b(?:no|not|without|free\s+(?:of|from)(?:\s+\w+)?)\s*\Z|\bfree\s+of\s+all\s*\Z", re.IGNORECASE)
_COURTESY = re.compile(
    r"(?<!professional )(?<!common )(?<!as a )\b(?:courtesy|cortes[ií]a)\b\s*(?:of|by|from|de|do|da|[:;,])?\s*", re.IGNORECASE
)
_LICENSED = re.compile(
    rf"\b{_VERB}\b[^.;]{{0,60}}\bunder\b(?P<which>[^;]{{0,80}}?)\blicen[cs]e\b|\blicen[cs]ed\s+(?:from|by|under|to)\b"
    r"|\bunder\s+(?:a\s+)?licen[cs]e\s+(?:from|to|of|by)\b", re.IGNORECASE
)
_OTHER_LICENCE = re.compile(
    r"\b(?:project|home\s+office|animal|personal|procedure|ethic\w*|driv\w*|medical|hunting|collect\w*|import|protocol)\b",
    re.IGNORECASE,
)
_STOCK = re.compile(
    r"\b(?:Getty\s+Images|Shutterstock|iStock\w*|Adobe\s+Stock|Alamy|Science\s+Photo\s+Library)\b", re.IGNORECASE
)
_OTHER_LANGUAGES = re.compile(
    r"\b(?:reproduzid|adaptad|reproducid|modificad)[ao]s?\s+de\b|\badapt[ée]e?s?\s+d(?:e|’|')", re.IGNORECASE
)
_PICTURE = r"(?:figures?|figs?\.|images?|photos?\w*|pictures?|illustrations?|maps?|drawings?|diagrams?|schemes?|panels?)"
_PUBLISHED_BEFORE = re.compile(
    r"\b(?:(?:previously|originally|first|already|formerly)\s+published|published\s+(?:previously|originally|before|elsewhere))"
    r"(?:\s+as\b[^.;]{0,40})?\s+(?:in|by|with)\b\s*", re.IGNORECASE
)
_COLLECTION = re.compile(
    r"\b(?:credits?|photos?|photographs?|images?|pictures?|figure|illustration|case|downloaded)\b[^;]{0,30}"
    r"\b(?:Radiop(?:a|ae|æ)?dia|Wiki(?:pedia|media)|Flickr|Pixabay|Unsplash|Freepik)\b", re.IGNORECASE
)
# fmt: on


@dataclass(frozen=True)
class _Hit:
    start: int
    end: int


def taken_from(text: str) -> str | None:
    """The words with which a caption says that its figure, or a part of it, is taken over from elsewhere; None if it
    does not. Of several, the first that names no licence.

    text: with numbers of references in brackets.
    """
    if not _MAY_SAY.search(text):
        return None
    hits = sorted({(hit.start, hit.end) for hit in islice(_hits(text), _MOST)})
    if not hits and (found := _COLLECTION.search(text)):
        hits = [found.span()]
    statements = []
    for number, (start, end) in enumerate(hits):
        following = next((after for after, _ in hits[number + 1 :] if after > end), len(text))
        statements.append(_statement(text, start, end, following))
    return next((s for s in statements if license_code(s) is None), statements[0] if statements else None)


def _statement(text: str, start: int, end: int, following: int) -> str:
    """The sentence of a hit, and what follows it up to the next hit, within limits."""
    begin = max((m.end() for m in _SENTENCE_END.finditer(text, max(0, start - 200), start + 1)), default=max(0, start - 120))
    stop = min(following, end + 200)
    return text[begin:stop].strip()[:_LONGEST]


def _before(text: str, start: int) -> str:
    """What stands before a place in its sentence."""
    first = max(0, start - 150)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, first, start + 1)]
    return text[ends[-1] if ends else first : start]


def _after(text: str, end: int) -> str:
    """What follows a place in its sentence."""
    piece = text[end : end + 150]
    found = _SENTENCE_END.search(piece)
    return piece[: found.start() + 1] if found else piece


def _hits(text: str) -> Iterator[_Hit]:
    for match in _FROM.finditer(text):
        if _is_from_a_source(text, match):
            yield _Hit(*match.span())
    for match in _WITH_PERMISSION.finditer(text):
        if _is_a_permission_to_show(text, match):
            yield _Hit(*match.span())
    for match in _PERMISSION_TO.finditer(text):
        if not re.search(_PERSON, _before(text, match.start()) + match[0] + _after(text, match.end()), re.IGNORECASE):
            yield _Hit(*match.span())
    for match in _COPYRIGHT.finditer(text):
        others = re.match(
            rf"\W*(?:(?:19|20)\d\d\W*)?(?:by\s+|of\s+)?{_AUTHORS}", text[match.end() : match.end() + 60], re.IGNORECASE
        )
        before = _before(text, match.start())
        others = others or re.search(rf"\b{_AUTHORS}\s+(?:\w+\s+){{0,3}}\Z", before, re.IGNORECASE)
        others = others or re.match(
            rf"[^.;]{{0,40}}?{_HELD}\s+(?:by|to|with)\s+{_AUTHORS}", text[match.end() : match.end() + 90], re.IGNORECASE
        )
        if match[0] == "©" and before[-1:].isalnum():  # "Prism©" names a product, "© Elsevier" an owner
            after = text[match.end() : match.end() + 30]
            others = others or _SOFTWARE.match(after)
            others = others or (_OF_A_PRODUCT.search(before) and not re.match(r"\s*(?:19|20)\d\d", after))
        if not others and not _NO_COPYRIGHT.search(before):
            yield _Hit(*match.span())
    for match in _COURTESY.finditer(text):
        after = text[match.end() : match.end() + 60]
        own = re.match(rf"(?:{_AUTHORS}|(?:the\s+)?{_PERSON})", after, re.IGNORECASE)
        if own is None and not _is_of_no_picture(_before(text, match.start())):
            yield _Hit(*match.span())
    for match in _LICENSED.finditer(text):
        before = _before(text, match.start())
        of_a_picture = not match[0].lower().startswith("under") or not before.strip() or _TO_SHOW.search(before)
        if of_a_picture and not _OTHER_LICENCE.search(match[0] + _after(text, match.end())[:40]):
            yield _Hit(*match.span())
    for match in _PUBLISHED_BEFORE.finditer(text):
        before = _before(text, match.start())
        of_a_picture = not before.strip(" (") or re.search(rf"\b{_PICTURE}[\s,]+(?:\w+[\s,]+){{0,4}}\Z", before, re.IGNORECASE)
        if of_a_picture and not re.match(_AUTHORS, text[match.end() : match.end() + 60], re.IGNORECASE):
            yield _Hit(*match.span())
    for pattern in (_STOCK, _OTHER_LANGUAGES):
        yield from (_Hit(*match.span()) for match in pattern.finditer(text))


def _is_of_no_picture(before: str) -> bool:
    """Whether it is cells, data, a method ... that came from elsewhere."""
    return re.search(rf"\b{_NO_PICTURE}[\s,(]+{_LINKS}(?:a\s+|by\s+|kind\s+)*\Z", before, re.IGNORECASE) is not None


def _is_from_a_source(text: str, match: re.Match[str]) -> bool:
    if _is_of_no_picture(_before(text, match.start())):
        return False
    after = _after(text, match.end())
    if re.match(rf"(?:{_AUTHORS}|(?:the\s+)?{_PERSON})", after, re.IGNORECASE):
        return False
    strong = re.fullmatch(_STRONG, match[1], re.IGNORECASE)
    if not strong:
        return (
            match[1].lower() in ("taken", "drawn", "derived", "extracted")
            and re.match(
                r"\W*\[\s*\d|\W*(?:the\s+)?[Rr]ef(?:erence)?s?\.?\s*\[?\d|.{0,60}?\bet\s+al\b|.{0,60}?\bpermission", after
            )
            is not None
        )
    if re.match(r"re-?print|re-?publish", match[1], re.IGNORECASE):
        return True
    return _SOURCE.match(after) is not None or (match[1].lower() != "modified" and _NAMED_SOURCE.match(after) is not None)


def _is_a_permission_to_show(text: str, match: re.Match[str]) -> bool:
    before, after = _before(text, match.start()), _after(text, match.end())
    if re.search(r"\b(?:without|no)\s*\Z", before) or re.search(rf"\b{_PERSON}", match[0] + after[:80], re.IGNORECASE):
        return False
    if re.search(rf"\b{_PERSON}\w*(?:\s+\w+){{0,3}}\s*\Z", before, re.IGNORECASE) and not re.search(_PUBLISHER, after):
        return False
    shown = re.search(rf"\b{_STRONG}\b|©|\bcopyright", before, re.IGNORECASE) is not None
    if not shown and _FIELD_WORK.search(before + after):
        return False
    if match[0].lower().startswith("permission") and not shown:
        return re.search(_PUBLISHER, after) is not None
    return (
        shown
        or _TO_SHOW.search(before) is not None
        or not before.strip(" (,;")
        or re.match(r"\s*(?:from|of|by|de|do|da|del|der|des|von)\b", after) is not None
    )
