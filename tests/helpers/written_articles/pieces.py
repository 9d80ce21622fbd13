"""Licences, document types, running text and pictures, as the articles have them."""

from helpers.drawn_figures import Drawing
from helpers.jats_description import Licence, Paragraph, Picture, Words, link, mention, text, words_of

BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"
_PERMITS = " It may be used by anybody, for any purpose, if its authors are named."


def licence_by_attribute(address: str, code: str, words: Words) -> Licence:
    """<license xlink:href>, as most publishers write it."""
    said = text(words)
    statement = f'<license xlink:href="{address}"><license-p>{said.xml}</license-p></license>'
    xml = f"<permissions><copyright-statement>The authors, 2021</copyright-statement>{statement}</permissions>"
    return Licence(xml, code, address, "license/@xlink:href", said.plain)


def licence_by_link() -> Licence:
    said = "This text is under the " + link(BY, "Creative Commons Attribution License") + "." + _PERMITS
    xml = f'<permissions><license license-type="open-access"><license-p>{said.xml}</license-p></license></permissions>'
    return Licence(xml, "CC BY", BY, "license-p//ext-link/@xlink:href", said.plain)


def licence_by_reference() -> Licence:
    """NISO's <ali:license_ref>, whose address is also the first of its words; neither element has a space around it."""
    said = "This article comes under the terms of the Creative Commons Attribution License." + _PERMITS
    reference = f"<ali:license_ref>{BY}</ali:license_ref>"
    xml = f"<permissions><license>{reference}<license-p>{said}</license-p></license></permissions>"
    return Licence(xml, "CC BY", BY, "license//license_ref", f"{BY}{said}")


def licence_in_words() -> Licence:
    said = "An open access article under the Creative Commons Attribution License." + _PERMITS * 4
    return Licence(
        f"<permissions><license><license-p>{said}</license-p></license></permissions>", "CC BY", None, "license text", said
    )


def licence_of_old() -> Licence:
    """NLM 2.3: <p> in <license>, and neither in <permissions>."""
    said = "Distributed under the Creative Commons Attribution License." + _PERMITS
    xml = f'<copyright-statement>Two people</copyright-statement><license xlink:href="{BY}"><p>{said}</p></license>'
    return Licence(xml, "CC BY", BY, "license/@xlink:href", said)


def _doctype(public: str, system: str) -> str:
    return f'<!DOCTYPE article PUBLIC "-//NLM//DTD {public}//EN" "{system}">'


ARCHIVING = _doctype("JATS (Z39.96) Journal Archiving and Interchange DTD v1.1 20151215", "JATS-archivearticle1.dtd")
PUBLISHING = _doctype("JATS (Z39.96) Journal Publishing DTD v1.1d3 20150301", "JATS-journalpublishing1.dtd")
PUBLISHING_1_2 = _doctype("JATS (Z39.96) Journal Publishing DTD v1.2 20190208", "JATS-journalpublishing1.dtd")
ARCHIVING_1_3 = _doctype("JATS (Z39.96) Journal Archiving and Interchange DTD v1.3 20210610", "JATS-archivearticle1-3.dtd")
NLM_2_3 = _doctype("Journal Archiving and Interchange DTD v2.3 20070202", "archivearticle.dtd")
NLM_3 = _doctype("Journal Publishing DTD v3.0 20080202", "journalpublishing3.dtd")


_SENTENCES = (
    "We first asked whether {topic} was the same in all groups, and it was not ({figures}).",
    "As {figures} make plain, the effect on {topic} grew with the dose and was gone after a week of rest.",
    "Nobody had looked at {topic} in this way before, so we repeated each measurement twice; see {figures}.",
    "The difference in {topic} was larger than we had thought ({figures}), and held when outliers were left out.",
    "To find out what lies behind the change in {topic} we turned to older animals, which are shown in {figures}.",
    "Blinded readers judged {topic} on a scale from one to five, with the outcome drawn in {figures}.",
    "When the order of the sessions was reversed, {topic} stayed as it was (compare {figures}).",
    "There was one exception, and {figures} tell why {topic} could not be measured there.",
    "Our model of {topic} has three parameters; its fit to the data is seen in {figures}.",
    "Taken together ({figures}), these findings on {topic} speak for a slow process with a clear beginning.",
)


def said_of(topic: str, start: int, *groups: tuple[str, ...]) -> tuple[Paragraph, ...]:
    """Paragraphs on a topic, one for each group of mentions "id=Words"; other sentences for another start."""
    found = []
    for number, group in enumerate(groups, start):
        before, _, after = _SENTENCES[number % len(_SENTENCES)].replace("{topic}", topic).partition("{figures}")
        mentions: list[Words] = []
        for entry in group:
            rid, _, shown = entry.partition("=")
            mentions += [mention(rid, shown), " and "]
        found.append(Paragraph(words_of(before, *mentions[:-1], after)))
    return tuple(found)


def _letters(letters: str) -> tuple[str, ...]:
    return tuple(letters)


def drawn(name: str, seed: int, kinds: str, labels: str = "", rows: tuple[int, ...] = (1,), **more) -> Picture:
    """A picture whose href is its name, as in eLife."""
    size = more.pop("size", (480, 320 if len(rows) == 1 else 240 * len(rows)))
    drawing = Drawing(seed, tuple(kinds.split()), size, rows, _letters(labels), **more)
    return Picture(name, name, drawing, attributes='mime-subtype="jpeg" mimetype="image"')
