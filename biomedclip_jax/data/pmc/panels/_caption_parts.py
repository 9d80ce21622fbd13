"""The caption of a compound figure -> what is said of all panels, and what is said of each.

Panels are told by "(A)", "(a, b)", "(A and B)", "(A-C)", "A:", "A)", "a, ", "a Axial view.", "Left panel:". A marker
stands before its text, or after it ("Chest X-ray (A) and CT (B)"). Later mentions ("as in (A)", "scale bars (a, b)")
are no markers.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Part:
    """What a caption says of a panel.

    label: "A", "b", "left" ..., as written. text: without the marker.
    """

    label: str
    text: str


@dataclass(frozen=True)
class Parts:
    """A caption, divided into the parts of its panels.

    intro: what belongs to no panel alone, from before and behind the parts. parts: in the order of their labels, or
    ().
    """

    intro: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class _Marker:
    start: int
    end: int
    labels: tuple[str, ...]
    opens: bool  # stands where a sentence begins


@dataclass(frozen=True)
class Piece:
    """caption[start:end] is said of the panels `labels`; of all of them together, or none, if there are none."""

    start: int
    end: int
    labels: tuple[str, ...] = ()


_LETTER = r"[A-Za-z](?![\w'’])"  # noqa: RUF001
_JOINT = r"\s*(?:,\s*and\b|,|;|&|/|\band\b|\bto\b|[-–—‐‑−])\s*"  # noqa: RUF001
_LIST = rf"{_LETTER}(?:{_JOINT}{_LETTER})*"
_START = r"(?:\A|(?<=[.;:!?])|(?<=[.;:!?]\))|(?<=[;,] and))\s*"
_PARENTHESES = re.compile(rf"[(\[]\s*(?:[Pp]anels?\s+)?({_LIST})\s*[)\]]")
_PUNCTUATED = re.compile(rf"{_START}((?:[Pp]anels?\s+)?({_LIST})(?:\s*[:.,)]|\s+[-–—])(?=\s))")  # noqa: RUF001
_NAMED = re.compile(rf"{_START}((?:[Pp]anels?)\s+({_LIST}))\s(?=[a-z])")
_BARE = re.compile(rf"{_START}(({_LIST}))\s+(?=[A-Z0-9])")
_SIDES = re.compile(
    rf"{_START}([(\[]?(?:[Tt]he\s+|[Oo]n the\s+)?"
    r"([Ll]eft|[Rr]ight|[Tt]op|[Bb]ottom|[Uu]pper|[Ll]ower|[Mm]iddle|[Cc]ent(?:er|re))"
    r"(?:\s+(?:panels?|images?|graphs?|plots?|figures?|rows?|columns?))?(?:\s*[:,)\]]|\s(?=shows?\b|is\b|are\b|depicts?\b)))"
)
_SIDES_IN_ORDER = (
    ("left", "right"),
    ("left", "middle", "right"),
    ("left", "center", "right"),
    ("left", "centre", "right"),
    ("top", "bottom"),
    ("upper", "lower"),
    ("top", "middle", "bottom"),
    ("upper", "middle", "lower"),
)
_SENTENCE = re.compile(r"[.!?;][)\]”\"’']*\s+(?=[^\W\d_]|[(\[0-9*#†‡+])")  # noqa: RUF001
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|al|vs|cf|ca|e\.?g|i\.?e|[Ff]igs?|[Rr]efs?|sp|spp|[Nn]o|[Dd]r|approx|resp|var|subsp|st|[Ee]q|etc))\Z"
)
_AFTERWARDS = re.compile(r"\s*(?:\Z|[,;.:]|(?:and|or|with|versus|vs|but|showing|shows?|is|are|was|were)\b)")
_CAPITALIZED = re.compile(r"\s*[A-Z][a-z]{2}")
_GOES_ON = re.compile(
    r"(?:,|\b(?:and|or|of|in|for|with|the|by|from|to|on|at|after|before|is|are|was|were|showing|shows|show|as|using|between|both))"
    r"\s*\Z"
)
_PANEL_WORD = re.compile(r"\b[Pp]anels?\s*\Z")
_SHARED = re.compile(
    r"(?:Scale ?bars?|Bars?\b|Error bars?|Data\b|Values?\b|Abbreviations?|Asterisks?|[*#†‡+]|Presented|"
    r"Results are|Statistical|The raw data|Raw data|Additional|Source data|In box|In all|For all|Box plots?|Boxes\b|"
    r"Magnification|Original magnification|All (?:data|values|panels|images|experiments|statistical)|Repeated measures|"
    r"Significan|P[- ]values?|p\s*[<=]|Each (?:dot|point|symbol)|See also|Details of|"
    r"[A-Za-z0-9+/-]{2,14}[,:=] [^.]{3,60};)"
)
_LOOSE_ENDS = re.compile(
    rf"\A(?:[(\[]\s*{_LETTER}(?:{_JOINT}{_LETTER})+\s*[)\]]|[\s,;:.)\]–—-]+|(?:and|or)\b)+"  # noqa: RUF001
    r"|(?:[\s,;:(\[–—]|\b(?:and|or|while))+\Z"  # noqa: RUF001
)
_SHARED_END = re.compile(rf"[(\[]\s*{_LETTER}(?:{_JOINT}{_LETTER})+\s*[)\]]\s*\.?\s*\Z")


def split_caption(caption: str) -> Parts:
    """The parts of a caption; all of it is intro if they cannot be told for certain. Labels are in order and without a
    gap.
    """
    pieces = pieces_of(caption)
    labels = dict.fromkeys(label for piece in pieces for label in piece.labels)
    if not labels:
        return Parts(caption.strip())

    def said(of: Callable[[Piece], bool]) -> str:
        joined = " ".join(text for p in pieces if of(p) and (text := caption[p.start : p.end].strip()))
        return re.sub(r" (?=[.,;:)])", "", joined)

    in_order = sorted(labels) if all(len(label) == 1 for label in labels) else labels
    parts = tuple(Part(label, _LOOSE_ENDS.sub("", said(lambda p: label in p.labels))) for label in in_order)  # noqa: B023
    return Parts(said(lambda p: not p.labels), parts)


def pieces_of(caption: str) -> list[Piece]:
    """Pieces in text order; between them are only markers. One piece without labels if no parts are certain."""
    for markers in _readings(caption):
        chosen = _definitions(caption, markers)
        if chosen:
            pieces = list(_divide(caption, chosen))
            said = {label for p in pieces for label in p.labels if re.search(r"\w", caption[p.start : p.end])}
            if said == {label for marker in chosen for label in marker.labels}:
                return pieces
    return [Piece(0, len(caption))]


def _readings(caption: str) -> Iterator[list[_Marker]]:
    """The markers of each way to write them, likeliest first."""
    yield _joined(caption, list(_markers(caption, _PARENTHESES, 0)))
    for pattern in (_PUNCTUATED, _BARE, _NAMED):
        yield list(_markers(caption, pattern, 1))
    sides = [
        _Marker(m.start(1), m.end(1) if m[1][-1] in ":,)]" else m.start(1), (m[2].lower(),), True)
        for m in _SIDES.finditer(caption)
    ]
    if tuple(marker.labels[0] for marker in sides) in _SIDES_IN_ORDER:
        yield sides


def _markers(caption: str, pattern: re.Pattern[str], whole: int) -> Iterator[_Marker]:
    for match in pattern.finditer(caption):
        labels = _listed(match[whole + 1])
        if labels:
            before = _PANEL_WORD.sub("", caption[max(0, match.start(whole) - 40) : match.start(whole)]).rstrip()
            opens = whole == 1 or not before or before[-1] in ".;:!?" or before.endswith((".)", ":)"))
            # a full stop that was forgotten
            opens = opens or bool(_CAPITALIZED.match(caption, match.end()) and not _GOES_ON.search(before))
            yield _Marker(match.start(whole), match.start(1) if pattern is _NAMED else match.end(whole), labels, opens)


def _listed(text: str) -> tuple[str, ...]:
    """ "A-C, E" -> A, B, C, E; () if it is no list of labels."""
    items = re.findall(_LETTER, re.sub(r"\b(?:and|to)\b", lambda m: "&" if m[0] == "and" else "-", text))
    joints = re.split(_LETTER, re.sub(r"\b(?:and|to)\b", lambda m: "&" if m[0] == "and" else "-", text))[1:-1]
    labels = [items[0]]
    for joint, item in zip(joints, items[1:], strict=True):
        if item <= labels[-1] or item.isupper() != labels[-1].isupper():
            return ()
        is_range = joint.strip() in tuple("-–—‐‑−")  # noqa: RUF001
        labels += [chr(code) for code in range(ord(labels[-1]) + 1, ord(item) + 1)] if is_range else [item]
    return tuple(labels)


def _joined(caption: str, markers: list[_Marker]) -> list[_Marker]:
    """ "(A) and (B)", "(A)-(C)" are one marker."""
    found: list[_Marker] = []
    for marker in markers:
        if found:
            last = found[-1]
            between = caption[last.end : marker.start]
            labels = _listed(f"{last.labels[-1]} {between.strip() or ','} {marker.labels[0]}")
            whole = last.opens or _AFTERWARDS.match(caption, marker.end)
            if labels and whole and re.fullmatch(rf"{_JOINT}|\s*", between):
                found[-1] = replace(last, end=marker.end, labels=last.labels[:-1] + labels + marker.labels[1:])
                continue
        found.append(marker)
    return found


def _definitions(caption: str, markers: Sequence[_Marker]) -> list[_Marker]:
    """Of all mentions those that say where the text of a panel stands, in text order; [] unless A, B and so on all do."""
    if markers and len(markers[0].labels[0]) > 1:
        return list(markers)
    start = next((label for marker in markers for label in marker.labels if label in "Aa"), None)
    if start is None:
        return []
    first: dict[str, _Marker] = {}
    for marker in sorted(markers, key=lambda m: (not m.opens, m.start)):
        for label in marker.labels:
            first.setdefault(label, marker)
    labels = [chr(ord(start) + i) for i in range(26)]
    count = next(i for i, label in enumerate([*labels, ""]) if label not in first)
    beyond = labels[count:]
    if count < 2 or any(label in first and first[label].opens for label in beyond):
        return []
    chosen = [first[label] for label in labels[:count]]
    for several in {marker: None for marker in chosen if len(marker.labels) > 1}:
        # "(A-C) Images of (A) lung, (B) liver and (C) skin"
        stop = min((marker.start for marker in chosen if marker.start > several.start), default=math.inf)
        singles = [m for m in markers if several.start < m.start < stop and len(m.labels) == 1 and not m.opens]
        if tuple(marker.labels[0] for marker in singles) == several.labels and not any(
            several.start < start <= singles[-1].start for start in _sentences(caption)
        ):
            chosen = [m for m in chosen if m != several] + singles
            first |= {marker.labels[0]: marker for marker in singles}
    chosen.sort(key=lambda marker: marker.labels)
    if any(a.start > b.start and len(a.labels) == len(b.labels) == 1 for a, b in pairwise(chosen)):
        return []
    unique = sorted(set(chosen), key=lambda marker: marker.start)
    known = set(labels[:count])
    return [replace(m, labels=tuple(label for label in m.labels if label in known and first[label] == m)) for m in unique]


def _sentences(caption: str) -> list[int]:
    """Where sentences begin."""
    starts = [0]
    for match in _SENTENCE.finditer(caption):
        if caption[match.start()] != "." or not _ABBREVIATION.search(caption, max(0, match.start() - 8), match.start()):
            starts.append(match.end())
    return starts


def _divide(caption: str, markers: Sequence[_Marker]) -> Iterator[Piece]:
    starts = sorted({*_sentences(caption), *(marker.start for marker in markers if marker.opens)})
    bounds = [*starts, len(caption)]
    sentences: dict[tuple[int, int], list[_Marker]] = {}
    for marker in markers:
        begin = max(start for start in starts if start <= marker.start)
        end = min(bound for bound in bounds if bound > marker.start)
        sentences.setdefault((begin, end), []).append(marker)
    position = 0
    spans = list(sentences)
    for (begin, end), following in zip(spans, [*(span[0] for span in spans[1:]), len(caption)], strict=True):
        group = sentences[begin, end]
        labels = tuple(dict.fromkeys(label for marker in group for label in marker.labels))
        yield Piece(position, begin)
        if group[0].opens or not _AFTERWARDS.match(caption, group[0].end):
            yield Piece(begin, group[0].start, labels)
            stops = [*(marker.start for marker in group[1:]), following]
            for marker, stop in zip(group, stops, strict=True):
                shared = _shared_from(caption, marker.end, stop, bounds) if stop == len(caption) else stop
                yield Piece(marker.end, shared, marker.labels)
                if shared < stop:
                    yield Piece(shared, stop)
            position = following
        else:
            position = begin
            for marker in group:
                yield Piece(position, marker.start, marker.labels)
                position = marker.end
            yield Piece(position, end, labels)
            position = end
    yield Piece(position, len(caption))


def _shared_from(caption: str, start: int, stop: int, bounds: Sequence[int]) -> int:
    """Where, behind the last part's own text, notes on all panels begin ("Scale bars: 5 µm (A, C)", abbreviations)."""
    for begin, end in pairwise(bounds):
        if start < begin < stop and (_SHARED.match(caption, begin) or _SHARED_END.search(caption, begin, min(end, stop))):
            return begin
    return stop
