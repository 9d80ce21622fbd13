"""Nine articles that tests write: each structure of figures that publishers and PubMed Central use, in words made up here.

PMC99000001.1   <fig-group> with figure supplements; supplementary files in captions; mentions in a table's foot; a decision
                letter; JATS 1.1; an old package of it
PMC99000002.2   an author's response with a figure of its own; the licence's address in a link
PMC99000003.3   CC0; inline elements in one another; supplementary files in all captions
PMC99000004.2   four groups; MathML and TeX in captions; mentions in an appendix; a figure that is never mentioned; JATS 1.1
PMC99000005.1   PNG; tables and formulas that are images; JATS Publishing 1.1d3; a licence in words only
PMC99000006.1   names without extension; several paragraphs in a caption; line breaks everywhere; figures in the back matter;
                no DTD; an old package of it that adds .jpg
PMC99000007.1   no picture came with it; JATS Publishing 1.2
PMC99000008.1   NLM 2.3 in ISO-8859-1 and a wrapper, entities, figures without id, several graphics, <alternatives>, a licence
                of a figure's own, oddly named files
PMC99000009.1   JATS 1.3 with a namespace and prefix; <floats-group>, nested figures, a group with a caption, <response>
"""

from drawn_figures import Drawing
from jats_writer import (
    MATHML,
    ROOT,
    XLINK,
    DisplayedFormula,
    Figure,
    Group,
    Licence,
    Paragraph,
    Picture,
    Section,
    SubArticle,
    SupplementaryFile,
    Table,
    Text,
    Words,
    WrittenArticle,
    bold,
    formula,
    image_formula,
    italic,
    link,
    mention,
    sub,
    sup,
    tex_formula,
    text,
    unread,
    words_of,
    written,
)

# --- licences and document types ------------------------------------------------------------------------------------

BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"
_PERMITS = " It may be used by anybody, for any purpose, if its authors are named."


def licence_by_attribute(address: str, code: str, words: Words) -> Licence:
    """<license xlink:href>, as most publishers write it."""
    said = text(words)
    statement = f'<license xlink:href="{address}"><license-p>{said.xml}</license-p></license>'
    xml = f"<permissions><copyright-statement>The authors, 2021</copyright-statement>{statement}</permissions>"
    return Licence(xml, code, address, "license/@xlink:href", said.plain)


def _licence_by_link() -> Licence:
    said = "This text is under the " + link(BY, "Creative Commons Attribution License") + "." + _PERMITS
    xml = f'<permissions><license license-type="open-access"><license-p>{said.xml}</license-p></license></permissions>'
    return Licence(xml, "CC BY", BY, "license-p//ext-link/@xlink:href", said.plain)


def _licence_by_reference() -> Licence:
    """NISO's <ali:license_ref>, whose address is also the first of its words; neither element has a space around it."""
    said = "This article comes under the terms of the Creative Commons Attribution License." + _PERMITS
    reference = f"<ali:license_ref>{BY}</ali:license_ref>"
    xml = f"<permissions><license>{reference}<license-p>{said}</license-p></license></permissions>"
    return Licence(xml, "CC BY", BY, "license//license_ref", f"{BY}{said}")


def _licence_in_words() -> Licence:
    said = "An open access article under the Creative Commons Attribution License." + _PERMITS * 4
    return Licence(
        f"<permissions><license><license-p>{said}</license-p></license></permissions>", "CC BY", None, "license text", said
    )


def _licence_of_old() -> Licence:
    """NLM 2.3: <p> in <license>, and neither in <permissions>."""
    said = "Distributed under the Creative Commons Attribution License." + _PERMITS
    xml = f'<copyright-statement>Two people</copyright-statement><license xlink:href="{BY}"><p>{said}</p></license>'
    return Licence(xml, "CC BY", BY, "license/@xlink:href", said)


def _doctype(public: str, system: str) -> str:
    return f'<!DOCTYPE article PUBLIC "-//NLM//DTD {public}//EN" "{system}">'


_ARCHIVING = _doctype("JATS (Z39.96) Journal Archiving and Interchange DTD v1.1 20151215", "JATS-archivearticle1.dtd")
_PUBLISHING = _doctype("JATS (Z39.96) Journal Publishing DTD v1.1d3 20150301", "JATS-journalpublishing1.dtd")
_PUBLISHING_1_2 = _doctype("JATS (Z39.96) Journal Publishing DTD v1.2 20190208", "JATS-journalpublishing1.dtd")
_ARCHIVING_1_3 = _doctype("JATS (Z39.96) Journal Archiving and Interchange DTD v1.3 20210610", "JATS-archivearticle1-3.dtd")
_NLM_2_3 = _doctype("Journal Archiving and Interchange DTD v2.3 20070202", "archivearticle.dtd")
_NLM_3 = _doctype("Journal Publishing DTD v3.0 20080202", "journalpublishing3.dtd")

# --- running text ---------------------------------------------------------------------------------------------------

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
        before, between, after = _SENTENCES[number % len(_SENTENCES)].replace("{topic}", topic).partition("{figures}")
        mentions: list[Words] = []
        for entry in group:
            rid, _, shown = entry.partition("=")
            mentions += [mention(rid, shown), " and "]
        found.append(Paragraph(words_of(before, *mentions[:-1], after)))
    return tuple(found)


def _letters(letters: str) -> tuple[str, ...]:
    return tuple(letters)


# --- PMC99000001.1 --------------------------------------------------------------------------------------------------


def _drawn(name: str, seed: int, kinds: str, labels: str = "", rows: tuple[int, ...] = (1,), **more) -> Picture:
    """A picture whose href is its name, as in eLife."""
    size = more.pop("size", (480, 320 if len(rows) == 1 else 240 * len(rows)))
    drawing = Drawing(seed, tuple(kinds.split()), size, rows, _letters(labels), **more)
    return Picture(name, name, drawing, attributes='mime-subtype="jpeg" mimetype="image"')


_GROWTH = WrittenArticle(
    id="PMC99000001.1",
    title="Replicated: light slows the growth of cultured kidney cells",
    doi="10.5555/written.1",
    doctype=_ARCHIVING,
    root=f'{ROOT} xmlns:ali="http://www.niso.org/schemas/ali/1.0/" dtd-version="1.1"',
    licence=_licence_by_reference(),
    body=(
        Section(
            "Results",
            (
                Section(
                    "Cells under light",
                    (
                        *said_of("growth", 0, ("fig1=Figure 1A",), ("fig1=Figure 1B", "fig2=Figure 2")),
                        Figure(
                            "fig1",
                            "Figure 1.",
                            "Blue light lowers the level of cyclin in kidney cells.",
                            (
                                "Cells were kept in the dark for two days and then put under blue light. ("
                                + bold("A")
                                + ") Western blot of lysates with an antibody against cyclin (upper rows) and against actin as a"
                                " loading control (last row). ("
                                + bold("B")
                                + ") Amount of cyclin at 0, 1 and 24 hr under light,"
                                " as the mean of four cultures; error bars are s.e.m. One-way ANOVA, F(2, 9)=7.31, p=0.013."
                                " Raw films are kept at "
                                + link("https://example.org/films", "https://example.org/films")
                                + ".",
                            ),
                            (_drawn("fig1.jpg", 1, "blot chart", "AB", (2,)),),
                            panels=("A", "B"),
                            doi="10.5555/written.1.001",
                            attributes=' position="float"',
                        ),
                    ),
                ),
                Section(
                    "Genes that follow",
                    (
                        Group(
                            (
                                Figure(
                                    "fig2",
                                    "Figure 2.",
                                    "Genes that answer to light.",
                                    (
                                        "Transcripts of 412 genes in each cell, at three times after the lamp was lit. The line"
                                        " in a box is the median. Statistics are in "
                                        + mention("tbl1", "Table 1", "table")
                                        + "; see also "
                                        + mention("fig1", "Figure 1")
                                        + ".",
                                    ),
                                    (_drawn("fig2.jpg", 2, "chart"),),
                                    supplement="All counts that " + mention("fig2", "Figure 2") + " is drawn from.",
                                    doi="10.5555/written.1.002",
                                ),
                                Figure(
                                    "fig2s1",
                                    "Figure 2\u2014figure supplement 1.",
                                    "Counts in single cultures.",
                                    (
                                        "Each dot is a gene. (A) First culture in the dark. (B) First culture under light. (C)"
                                        " Second culture in the dark. (D) Second culture under light. Note the shift to the left.",
                                    ),
                                    (_drawn("fig2-figsupp1.jpg", 3, "chart", "ABCD", (2, 2)),),
                                    panels=("A", "B", "C", "D"),
                                    doi="10.5555/written.1.003",
                                    attributes=' specific-use="child-fig"',
                                ),
                                Figure(
                                    "fig2s2",
                                    "Figure 2\u2014figure supplement 2.",
                                    "The same with red light.",
                                    ("Red light of equal energy changes nothing in the counts of these genes.",),
                                    (_drawn("fig2-figsupp2.jpg", 4, "diagram"),),
                                    supplement="Spectrum of the red lamp.",
                                    supplement_in_paragraph=False,
                                    attributes=' specific-use="child-fig"',
                                ),
                            )
                        ),
                        Table(
                            "tbl1",
                            "Tests of the counts, drawn in " + mention("fig2", "Figure 2") + ".",
                            ("0.02", "as in " + mention("fig2", "Figure 2")),
                            foot="Compare " + mention("fig2", "Figure 2") + " and " + mention("fig3", "Figure 3") + ".",
                        ),
                        *said_of(
                            "transcription",
                            2,
                            ("fig2s1=Figure 2\u2014figure supplement 1", "fig2s2=Figure 2\u2014figure supplement 2"),
                            ("fig3=Figure 3", "fig3=again Figure 3"),
                            ("fig2s1=its supplement 1", "fig3=Figure 3B"),
                        ),
                        Figure(
                            "fig3",
                            "Figure 3.",
                            "Original and replicate side by side.",
                            (
                                "(A) Size of the effect in the original study and in ours, with confidence intervals. (B) Both"
                                " combined in a meta-analysis, where a diamond marks the common effect.",
                            ),
                            (_drawn("fig3.jpg", 5, "chart", "AB", (1, 1)),),
                            panels=("A", "B"),
                            doi="10.5555/written.1.004",
                        ),
                    ),
                ),
            ),
        ),
    ),
    sub_articles=(
        SubArticle(
            "Decision letter",
            (
                Paragraph("The referees were pleased with the replication, but for one picture."),
                Paragraph("In " + mention("fig2s2", "the second supplement") + " the lamp should be named."),
            ),
        ),
    ),
    package="written-1.nxml",
)

# --- PMC99000002.2 --------------------------------------------------------------------------------------------------

_FEVER = WrittenArticle(
    id="PMC99000002.2",
    title="Selection of patients may explain why a rare enzyme seems to protect from fever",
    doi="10.5555/written.2",
    doctype=_ARCHIVING,
    licence=_licence_by_link(),
    body=(
        Section(
            "Main text",
            (
                *said_of("selection", 3, ("fig1=Figure 1",), ("fig1=Figure 1", "fig1=the same figure"), ("fig1=Figure 1",)),
                Figure(
                    "fig1",
                    "Figure 1.",
                    "Causal diagram of the enzyme, the fever and admission to hospital.",
                    (
                        "Arrows are causes. To look only at those who were admitted opens a path between the enzyme and the"
                        " fever that is not there in the whole population.",
                    ),
                    (_drawn("fig1.jpg", 6, "diagram"),),
                ),
                *said_of("admission", 6, ("fig1=Figure 1", "fig2=Figure 2")),
                Section("Simulated patients", said_of("the simulated risk", 7, ("fig2=Figure 2",), ("fig2=Figure 2",))),
                Figure(
                    "fig2",
                    "Figure 2.",
                    "Simulated odds ratios under selection.",
                    (
                        "Left panel: odds ratios where one patient in ten has another illness. Right panel: odds ratios where"
                        " one in two has. As in " + mention("fig1", "Figure 1") + ", nothing but selection is at work.",
                    ),
                    (_drawn("fig2.jpg", 7, "tissue scan", "", (2,), names=("left", "right")),),
                    panels=("left", "right"),
                ),
            ),
        ),
    ),
    sub_articles=(
        SubArticle(
            "Author response",
            (
                *said_of("the referee's curve", 0, ("respfig1=Author response image 1",)),
                Figure(
                    "respfig1",
                    "Author response image 1.",
                    None,
                    ("Histogram of the counts of blood platelets that the referee had asked for.",),
                    (_drawn("resp-fig1.jpg", 8, "chart"),),
                ),
            ),
        ),
    ),
)

# --- PMC99000003.3 --------------------------------------------------------------------------------------------------

_ALLELE = italic("Wri" + sup("+"))  # markup in markup
_MUTANT = italic("Wri" + sup(italic("m1") + "J"))


def _gene_figure(
    number: int, title: Words, caption: Words, labels: str, kinds: str, rows: tuple[int, ...], supplement: bool = True
) -> Figure:
    name = f"fig{number}.jpg"
    return Figure(
        f"fig{number}",
        f"Figure {number}.",
        title,
        (caption,),
        (_drawn(name, 10 + number, kinds, labels, rows),),
        panels=tuple(labels),
        supplement=f"Numbers behind figure {number}." if supplement else None,
        supplement_in_paragraph=number % 2 == 0,
        doi=f"10.5555/written.3.00{number}",
    )


_GENE = WrittenArticle(
    id="PMC99000003.3",
    title="A variant of " + italic("Wri1") + " decides how much sugar water mice drink",
    doi="10.5555/written.3",
    doctype=_NLM_3,
    licence=licence_by_attribute(ZERO, "CC0", "Free of all rights, under the Creative Commons CC0 public domain dedication."),
    abstract=(Paragraph("Mice differ in what they drink. One gene tells them apart (" + mention("fig1", "Figure 1") + ")."),),
    body=(
        Section(
            "Results",
            (
                _gene_figure(
                    1,
                    "Intake of sugar water by genotype.",
                    "("
                    + bold("a")
                    + ") Intake on each of eight days in females with the "
                    + _ALLELE
                    + " or the "
                    + _MUTANT
                    + " allele. ("
                    + bold("b")
                    + ") The same in males. Mean \u00b1 s.e.m.; "
                    + italic("n")
                    + " = 12; *"
                    + italic("p")
                    + " < 0.05.",
                    "ab",
                    "chart",
                    (1, 1),
                ),
                *said_of("intake", 0, ("fig1=Figure 1", "fig2=Figure 2"), ("fig2=Figure 2a",), ("fig3=Figure 3", "fig4=4")),
                _gene_figure(
                    2,
                    "Body temperature after sugar.",
                    "("
                    + bold("a")
                    + ") Time course of temperature in "
                    + _MUTANT
                    + " mice. ("
                    + bold("b")
                    + ") Time course in mice with one "
                    + _ALLELE
                    + " copy. Two-way analysis of variance.",
                    "ab",
                    "chart",
                    (1, 1),
                ),
                _gene_figure(
                    3,
                    "A repaired allele restores the answer.",
                    "("
                    + bold("a")
                    + ") Sequence around the repaired base. ("
                    + bold("b")
                    + ") Western blot of the protein in brain"
                    " lysates. (" + bold("c") + ") Immunofluorescence of hippocampal sections with the antibody.",
                    "abc",
                    "diagram blot cells",
                    (1, 1, 1),
                ),
                *said_of("thirst", 2, ("fig1=Figure 1a", "fig4=Figure 4"), ("fig2=Figure 2b", "fig5=Figure 5b")),
                *said_of("the repaired allele", 4, ("fig3=Figure 3",), ("fig4=Figure 4a", "fig4=b"), ("fig5=Figure 5",)),
                _gene_figure(
                    4,
                    "Choice between two bottles.",
                    "("
                    + bold("a")
                    + ") Preference for sugar, as bars of the mean. ("
                    + bold("b")
                    + ") Preference for salt. ("
                    + bold("c")
                    + ") Total volume drunk in one night. ("
                    + bold("d")
                    + ") Body weight at the end of the study. Symbols are mice.",
                    "abcd",
                    "chart",
                    (2, 2),
                ),
                _gene_figure(
                    5,
                    "Sections of the tongue.",
                    "Hematoxylin and eosin. ("
                    + bold("a")
                    + ") Taste buds of a mouse with the "
                    + _ALLELE
                    + " allele. ("
                    + bold("b")
                    + ") Taste buds of a "
                    + _MUTANT
                    + " mouse. Original magnification \u00d7200.",
                    "ab",
                    "tissue",
                    (2,),
                    supplement=False,
                ),
                Section(
                    "Where " + mention("fig5", "Figure 5") + " was taken",
                    said_of("taste", 8, ("fig5=Figure 5", "fig1=Figure 1"), ("fig1 fig2 fig3=Figures 1 to 3",)),
                ),
            ),
        ),
    ),
)

# --- PMC99000004.2 --------------------------------------------------------------------------------------------------

_N = formula("<mml:mrow><mml:mi>N</mml:mi><mml:mo>=</mml:mo><mml:mn>41</mml:mn></mml:mrow>", "N=41")
_ALPHA = formula("<mml:mi>\u03b1</mml:mi>", "\u03b1", r"\alpha")
_TAU = formula("<mml:msub><mml:mi>\u03c4</mml:mi><mml:mn>2</mml:mn></mml:msub>", "\u03c42", r"\tau_2")
_SLOPE = formula(
    "<mml:semantics><mml:mrow><mml:mi>d</mml:mi><mml:mi>\u03b8</mml:mi></mml:mrow>"
    '<mml:annotation encoding="application/x-tex">d\\theta</mml:annotation></mml:semantics>',
    "d\u03b8",
)


def _swim_figure(
    identity: str, label: str, title: Words, caption: Words, labels: str, picture: Picture, child: bool = False
) -> Figure:
    use = ' specific-use="child-fig"' if child else ""
    return Figure(identity, label, title, (caption,), (picture,), panels=tuple(labels.split() or ()), attributes=use)


_SWIM = WrittenArticle(
    id="PMC99000004.2",
    title="How young fish steer towards a lamp",
    doi="10.5555/written.4",
    doctype=_ARCHIVING,
    licence=licence_by_attribute(BY, "CC BY", "Anybody may use this article who names its authors."),
    abstract=(Paragraph("Fish larvae turn to light by simple rules (" + mention("fig1", "Figure 1") + ")."),),
    body=(
        Section("Introduction", said_of("steering", 1, ("fig1=Figure 1",))),
        Section(
            "Results",
            (
                Section(
                    "Turning in the dark",
                    (
                        *said_of("turning", 2, ("fig1=Figure 1A",), ("fig1=Figure 1B", "fig1=C"), ("fig1=Figure 1",)),
                        _swim_figure(
                            "fig1",
                            "Figure 1.",
                            "Statistics of turns without light.",
                            "(A) Sketch of the tank and the camera above it. (B) Path of one larva over a minute. (C) Distribution of"
                            " the turning angle " + _ALPHA + " (" + _N + " fish). (D) Correlation of successive turns with time"
                            " constant " + _TAU + ".",
                            "A B C D",
                            _drawn("fig1.jpg", 20, "diagram cells chart chart", "ABCD", (2, 2)),
                        ),
                        *said_of("the turning rate", 6, ("fig2=Figure 2", "fig2s1=its supplement"), ("fig2s2=supplement 2",)),
                        Group(
                            (
                                _swim_figure(
                                    "fig2",
                                    "Figure 2.",
                                    "Turns under uniform light.",
                                    "A, Mean distance between bouts. B, Share of forward bouts ("
                                    + _SLOPE
                                    + " below 0.2). C, Median"
                                    " speed in each of the " + _N + " fish.",
                                    "A B C",
                                    _drawn("fig2.jpg", 21, "chart", "ABC", (3,), size=(660, 300)),
                                ),
                                _swim_figure(
                                    "fig2s1",
                                    "Figure 2\u2014figure supplement 1.",
                                    "Fits of the angles.",
                                    "Sum of a normal and a gamma distribution fitted to "
                                    + _ALPHA
                                    + " in () and out of the light.",
                                    "",
                                    _drawn("fig2-figsupp1.jpg", 22, "chart"),
                                    child=True,
                                ),
                                _swim_figure(
                                    "fig2s2",
                                    "Figure 2\u2014figure supplement 2.",
                                    "Water temperature.",
                                    "It changed by less than "
                                    + tex_formula(r"0.3^\circ")
                                    + " one degree over the "
                                    + _N
                                    + " sessions.",
                                    "",
                                    _drawn("fig2-figsupp2.jpg", 23, "chart"),
                                    child=True,
                                ),
                            )
                        ),
                    ),
                ),
                Section(
                    "Turning to the lamp",
                    (
                        *said_of(
                            "the bias",
                            0,
                            ("fig3=Figure 3",),
                            ("fig3=Figure 3B", "fig3s1=figure supplement 1"),
                            ("fig3s2=the other",),
                        ),
                        Group(
                            (
                                _swim_figure(
                                    "fig3",
                                    "Figure 3.",
                                    "Contrast between the eyes.",
                                    "(A) Light reaches one eye only. (B) Bias of turns as a function of contrast, with slope "
                                    + _SLOPE
                                    + ". (C and D) Drift towards the brighter side for weak and for strong lamps.",
                                    "A B C D",
                                    _drawn("fig3.jpg", 24, "scan chart chart chart", "ABCD", (2, 2)),
                                ),
                                _swim_figure(
                                    "fig3s1",
                                    "Figure 3\u2014figure supplement 1.",
                                    "One eye removed.",
                                    "Fish with a single eye turn to that side, by " + _ALPHA + " on average.",
                                    "",
                                    _drawn("fig3-figsupp1.jpg", 25, "cells"),
                                    child=True,
                                ),
                                _swim_figure(
                                    "fig3s2",
                                    "Figure 3\u2014figure supplement 2.",
                                    "Paths of two fish.",
                                    "Left: a fish before the lamp is lit. Right: the same fish after " + _TAU + " of light.",
                                    "left right",
                                    _drawn("fig3-figsupp2.jpg", 26, "cells tissue", "", (2,), names=("left", "right")),
                                    child=True,
                                ),
                            )
                        ),
                        Group(
                            (
                                _swim_figure(
                                    "fig4",
                                    "Figure 4.",
                                    "A circuit that could do this.",
                                    "(A) Schematic of two halves that inhibit each other. (B) Activity of both halves over time. (C) Head"
                                    " angle that follows from it.",
                                    "A B C",
                                    _drawn("fig4.jpg", 27, "diagram chart chart", "ABC", (1, 2)),
                                ),
                                _swim_figure(
                                    "fig4s1",
                                    "Figure 4\u2014figure supplement 1.",
                                    "Stability of the circuit.",
                                    "Two fixed points exist where inhibition is above " + _SLOPE + ".",
                                    "",
                                    _drawn("fig4-figsupp1.jpg", 28, "diagram"),
                                    child=True,
                                ),
                            )
                        ),
                        *said_of("inhibition", 8, ("fig3=Figure 3C", "fig4=Figure 4A"), ("fig2=Figure 2C", "fig5=Figure 5")),
                        *said_of(
                            "the circuit", 3, ("fig4=Figure 4",), ("fig4=Figure 4B", "fig5=Figure 5"), ("fig5=Figure 5A",)
                        ),
                        Group(
                            (
                                _swim_figure(
                                    "fig5",
                                    "Figure 5.",
                                    "A simulated fish finds the lamp.",
                                    "(A) Many simulated paths, coloured by time. (B) Density of positions around the lamp at distance "
                                    + formula("<mml:mi>r</mml:mi>", "r")
                                    + ".",
                                    "A B",
                                    _drawn("fig5.jpg", 29, "cells tissue", "AB", (2,)),
                                ),
                                _swim_figure(
                                    "fig5s1",
                                    "Figure 5\u2014figure supplement 1.",
                                    "Real fish for comparison.",
                                    "Density of the positions of real larvae around a lamp, drawn alike.",
                                    "",
                                    _drawn("fig5-figsupp1.jpg", 30, "tissue"),
                                    child=True,
                                ),
                            )
                        ),
                    ),
                ),
            ),
        ),
    ),
    back=(
        Section(
            None,
            (
                Section(
                    "Appendix 1",
                    (
                        Section(
                            "Rules of the model",
                            (
                                Section(
                                    "Angles", said_of("angles", 5, ("fig1=Figure 1C", "fig5=Figure 5"), ("fig5=Figure 5B",))
                                ),
                                *said_of(
                                    "distances", 8, ("fig2=Figure 2A",), ("fig1=Figure 1", "fig5s1=Figure 5's supplement")
                                ),
                            ),
                            "boxed-text",
                        ),
                    ),
                    "app",
                ),
            ),
            "app-group",
        ),
    ),
)

# --- PMC99000005.1 --------------------------------------------------------------------------------------------------


def _png(name: str, seed: int, kinds: str, labels: str = "", rows: tuple[int, ...] = (1,), **more) -> Picture:
    picture = _drawn(name, seed, kinds, labels, rows, **more)
    return Picture(picture.href, picture.file, picture.drawing, attributes='mimetype="image" position="float"')


def _plain_figure(number: int, title: Words, paragraphs: tuple[Words, ...], picture: Picture, labels: str = "") -> Figure:
    return Figure(
        f"pone.0000555.g00{number}",
        f"Fig {number}",
        title,
        paragraphs,
        (picture,),
        tuple(labels),
        doi=f"10.5555/w.5.g00{number}",
    )


def _image_table(number: int) -> Table:
    picture = _png(f"t00{number}.png", 40 + number, "chart", size=(300, 160))
    foot = "See " + mention("pone.0000555.g003", "Fig 3") + "." if number == 1 else None
    return Table(f"pone.0000555.t00{number}", f"Strains of series {number}.", ("one", "two"), picture, foot)


_ALGAE = WrittenArticle(
    id="PMC99000005.1",
    title="Which genes of a green alga can be spared",
    doi="10.5555/written.5",
    doctype=_PUBLISHING,
    root=f'{ROOT} dtd-version="1.1d3" xml:lang="en"',
    licence=_licence_in_words(),
    body=(
        Section(
            "Methods",
            (
                Section(
                    "Score",
                    (
                        Paragraph("The score of a gene is a mean of two parts, " + image_formula("i001.png") + " as follows."),
                        DisplayedFormula(_png("e001.png", 40, "diagram", size=(180, 26))),
                        _image_table(1),
                        _image_table(2),
                    ),
                ),
            ),
        ),
        Section(
            "Results",
            (
                Section(
                    "Genes",
                    (
                        *said_of(
                            "the score", 4, ("pone.0000555.g001=Fig 1",), ("pone.0000555.g001=Fig 1", "pone.0000555.g002=Fig 2")
                        ),
                        _plain_figure(
                            1,
                            "Flowchart of the search.",
                            ("Each gene of the alga was compared with those of 32 relatives, and kept if it had a match.",),
                            _png("g001.png", 31, "diagram"),
                        ),
                        _plain_figure(
                            2,
                            "Phylogenetic tree of the 32 relatives.",
                            ("Branch lengths are changes per site. Numbers at nodes are bootstrap values.",),
                            _png("g002.png", 32, "diagram", size=(360, 480)),
                        ),
                        _image_table(3),
                        _plain_figure(
                            3,
                            "Distribution of the score.",
                            ("A: Histogram over all genes. B: Histogram over genes that cannot be spared, on another scale.",),
                            _png("g003.png", 33, "chart", "AB", (1, 1)),
                            "AB",
                        ),
                        *said_of(
                            "spared genes",
                            7,
                            ("pone.0000555.g003=Fig 3A",),
                            ("pone.0000555.g004=Fig 4",),
                            ("pone.0000555.g005=5",),
                        ),
                        _plain_figure(
                            4,
                            "Heat map of shared genes.",
                            ("Rows are genes and columns are relatives; dark cells stand for a gene that is present.",),
                            _png("g004.png", 34, "cells"),
                        ),
                        _image_table(4),
                        _plain_figure(
                            5,
                            "Colonies of three strains.",
                            (
                                "A) Colonies of the wild type on agar after a week. B) Colonies that lack one gene. C) Colonies in"
                                " which the gene was put back.",
                            ),
                            _png("g005.png", 35, "cells tissue scan", "ABC", (3,), size=(660, 260)),
                            "ABC",
                        ),
                        _image_table(5),
                        _plain_figure(
                            6,
                            "Pairs of genes that vanish together.",
                            (
                                "(A) Network of pairs, where a line joins genes with like histories. (B) Number of pairs against the"
                                " threshold.",
                            ),
                            _png("g006.png", 36, "diagram chart", "AB", (1, 1)),
                            "AB",
                        ),
                        *said_of(
                            "lost genes",
                            1,
                            ("pone.0000555.g001=Fig 1", "pone.0000555.g006=Fig 6"),
                            ("pone.0000555.g002=Fig 2",),
                        ),
                        *said_of("pairs of genes", 9, ("pone.0000555.g006=Fig 6", "pone.0000555.g005=Fig 5B")),
                    ),
                ),
            ),
        ),
        Section(
            "Supporting information",
            (
                SupplementaryFile("pone.0000555.s001", "More of " + mention("pone.0000555.g002", "Fig 2") + "."),
                SupplementaryFile("pone.0000555.s002", "More of " + mention("pone.0000555.g006", "Fig 6") + "."),
            ),
        ),
    ),
)

# --- PMC99000006.1 --------------------------------------------------------------------------------------------------

_WILD = italic("WRI1\n                        ") + "knockout"


def _flux_figure(identity: str, label: Words, lead: Words, said: tuple[Words, ...], labels: str, picture: tuple) -> Figure:
    name, seed, kinds, rows = picture
    drawing = Drawing(seed, tuple(kinds.split()), (640, 300 * len(rows)), rows, tuple(labels))
    return Figure(identity, label, None, (lead, *said), (Picture(name, name, drawing),), tuple(labels))


def _shown_as(figure: str, words: str) -> Text:
    """bioRxiv's form: bold and italic around the reference."""
    return bold(italic(mention(figure, f"{words}\n                    ")))


_FLUX = WrittenArticle(
    id="PMC99000006.1",
    title="A dye that counts how often a cell digests itself",
    doi="10.5555/2021.05.05.650217",
    article_type="article",
    doctype="",
    root=f'{ROOT} xmlns:hwp="http://schema.highwire.org/Journal" specific-use="production"',
    between="\n            ",
    journal="<journal-title>Preprints</journal-title><abbrev-journal-title>Prepr.</abbrev-journal-title>",
    licence=licence_by_attribute(BY, "CC BY", "This preprint is under a\n     CC-BY 4.0 licence."),
    body=(
        Section(
            "Results",
            (
                Section(
                    "The dye",
                    (
                        Paragraph(
                            "Starved cells gave more of the cut form (" + _shown_as("fig1", "Fig. 1a") + ") than fed ones."
                        ),
                        Paragraph(
                            "All of it was gone in "
                            + _WILD
                            + " cells ("
                            + _shown_as("fig1", "Fig. 1b")
                            + "; "
                            + _shown_as("fig1_S1", "Fig. 1 S1")
                            + "), and came back with the gene."
                        ),
                        _flux_figure(
                            "fig1",
                            "Figure 1.",
                            "The cut form of the dye is a measure of\n                    digestion.",
                            (
                                "("
                                + bold("a")
                                + ") Immunoblotting of lysates of wild-type and "
                                + _WILD
                                + " cells, fed (0 h) or\n"
                                "              starved for 6 h. ("
                                + bold("b")
                                + ") Gel of the dye in the same lysates. ("
                                + bold("c")
                                + ") Share of the cut form; mean of\n              three experiments.",
                                "Lanes are numbered below the blot. Molecular weights are in kDa.",
                            ),
                            "abc",
                            ("650217v1_fig1", 50, "blot blot chart", (1, 2)),
                        ),
                        Paragraph("The dye was seen under the microscope (" + _shown_as("fig2", "Fig. 2") + "), too."),
                        _flux_figure(
                            "fig2",
                            "Figure 2.",
                            "Digestion seen by fluorescence\n              microscopy.",
                            (
                                "("
                                + bold("a")
                                + ") Fluorescence images of fed cells. ("
                                + bold("b")
                                + ") Fluorescence images of starved"
                                " cells with acid bodies in green. ("
                                + bold("c")
                                + ") Magnified part of (b). ("
                                + bold("d")
                                + ") Number of dots in each cell. "
                                + italic("n ")
                                + "= 60 cells.",
                                "Scale bars, 10 \u00b5m (main) and 2 \u00b5m (inset).",
                            ),
                            "abcd",
                            ("650217v1_fig2", 51, "cells cells cells chart", (2, 2)),
                        ),
                        Paragraph(
                            _shown_as("fig2", "Figures 2c")
                            + " and "
                            + _shown_as("fig2_S1", "2 S1")
                            + " show single dots, and "
                            + _shown_as("fig3", "Fig. 3")
                            + " their life."
                        ),
                    ),
                ),
                Section(
                    "Its use in mice",
                    (
                        _flux_figure(
                            "fig3",
                            "Figure 3.",
                            "The dye in mice.",
                            (
                                "("
                                + bold("a")
                                + ") Schematic of the feeding plan. ("
                                + bold("b")
                                + ") Sections of the liver stained for"
                                " the dye. (" + bold("c") + ") Blot of liver lysates from six animals.",
                            ),
                            "abc",
                            ("650217v1_fig3", 52, "diagram tissue blot", (3,)),
                        ),
                        Paragraph("In the liver (" + _shown_as("fig3", "Fig. 3b") + ") the change was seen within a day."),
                        Paragraph("Other organs are told of in " + _shown_as("fig3_S1", "Fig. 3 S1") + " and nowhere else."),
                    ),
                ),
            ),
        ),
    ),
    back=(
        Section(
            "Supplementary figures",
            (
                _flux_figure(
                    "fig1_S1",
                    "Figure 1\u2014figure supplement 1",
                    "Genotypes of the knockout cells.",
                    ("Sanger sequencing of both alleles around the cut, with the lost bases in gray.",),
                    "",
                    ("650217v1_fig1_S1", 53, "diagram", (1,)),
                ),
                _flux_figure(
                    "fig2_S1",
                    "Figure 2\u2014figure supplement 1",
                    "Dots over time.",
                    (
                        "("
                        + bold("a")
                        + ") Confocal images of one cell at 0 h. ("
                        + bold("b")
                        + ") Confocal images of it at 2 h. ("
                        + bold("c")
                        + ") Confocal images of it at 6 h.",
                        "Arrows point to dots that two colours share.",
                    ),
                    "abc",
                    ("650217v1_fig2_S1", 54, "cells", (3,)),
                ),
                _flux_figure(
                    "fig3_S1",
                    "Figure 3\u2014figure supplement 1",
                    "Other organs.",
                    ("(" + bold("a") + ") Blot of heart lysates. (" + bold("b") + ") Blot of muscle lysates.",),
                    "ab",
                    ("650217v1_fig3_S1", 55, "blot", (2,)),
                ),
            ),
        ),
    ),
    package="650217v1.nxml",
    package_suffix=".jpg",
)

# --- PMC99000007.1 --------------------------------------------------------------------------------------------------


def _lost_figure(number: int, title: Words | None, caption: Words, labels: str = "") -> Figure:
    return Figure(
        f"f{number}",
        f"Figure {number}. ",
        title,
        (caption,) if caption else (),
        (Picture(f"written-7-g000{number}.gif"),),
        tuple(labels),
        attributes=' fig-type="figure" position="float"',
    )


_TREES = WrittenArticle(
    id="PMC99000007.1",
    title=written("Where a desert tree&#160;may grow in\n2050", "Where a desert tree may grow in 2050"),
    doi="10.5555/written.7",
    doctype=_PUBLISHING_1_2,
    licence=licence_by_attribute(
        "http://creativecommons.org/licenses/by/4.0/", "CC BY", "Copyright: its authors. " + link(BY, "CC BY 4.0") + "."
    ),
    body=(
        Section(
            "Results",
            (
                Section(
                    "Maps",
                    (
                        _lost_figure(
                            1,
                            None,
                            "Share of each variable for ( "
                            + bold("a")
                            + ") "
                            + italic("Acacia")
                            + ", ( "
                            + bold("b")
                            + ") "
                            + italic("Prosopis")
                            + " and ( "
                            + bold("c")
                            + ") both trees.",
                            "abc",
                        ),
                        _lost_figure(
                            2,
                            None,
                            "Maps of suitable land (now, 2050 and 2070) for ( "
                            + bold("a")
                            + ") "
                            + italic("Acacia")
                            + " and ( "
                            + bold("b")
                            + ") "
                            + italic("Prosopis")
                            + ".",
                            "ab",
                        ),
                        _lost_figure(3, "Loss of suitable land as the climate changes.", ""),
                        *said_of("suitable land", 2, ("f1=Figure 1", "f3=Figure 3"), ("f1=Figure 1", "f2=2"), ("f3=Figure 3",)),
                    ),
                ),
            ),
        ),
    ),
)

# --- PMC99000008.1 --------------------------------------------------------------------------------------------------


def _odd(href: str, file: str, seed: int, kinds: str = "scan", **more) -> Picture:
    return Picture(href, file, Drawing(seed, tuple(kinds.split())), **more)


_CASE = WrittenArticle(
    id="PMC99000008.1",
    title=written(
        "A stone in the na&iuml;ve kidney: &ldquo;case report&rdquo;",
        "A stone in the na\u00efve kidney: \u201ccase report\u201d",
    ),
    article_type="case-report",
    doi="10.5555/written.8",
    pmid="55555558",
    doctype=_NLM_2_3,
    encoding="iso-8859-1",
    wrapper="<pmc-articleset>%s</pmc-articleset>",
    root=f'{ROOT} xml:lang="EN"',
    journal='<journal-id journal-id-type="nlm-ta">Old Cases</journal-id><journal-title>Old Cases</journal-title>',
    licence=_licence_of_old(),
    body=(
        Section(
            "Case",
            (
                *said_of("pain", 4, ("F1=Figure 1", "F2=Figure 2"), ("F3=Figure 3", "F6=Figure 6")),
                *said_of("the stone", 1, ("F1=Figure 1",), ("F1=Figure 1", "F2=Figure 2"), ("F4=Figure 4",)),
                Figure(
                    "F1",
                    written("Figure&nbsp;1", "Figure 1"),
                    None,
                    (
                        "CT scan of the kidney on admission, "
                        + written("12&micro;g of contrast&mdash;axial view", "12\u00b5g of contrast\u2014axial view")
                        + ".",
                    ),
                    (_odd("old-cases-1-1-1", "old-cases-1-1-1.jpg", 61),),
                ),
                Figure(
                    None,
                    None,
                    None,
                    ("A figure that was given neither number nor name: the ward at night.",),
                    (_odd("ward.TIF", "ward.jpg", 62, "tissue"),),
                    bare_caption=True,
                ),
                Figure(
                    "F2",
                    "Figure 2",
                    None,
                    ("Ultrasound of both kidneys, the left one first and the right one below it.",),
                    (
                        _odd("figures/left%20kidney.jpg", "left kidney.jpg", 63, "scan"),
                        _odd("RIGHT.JPG", "right.jpg", 64, "cells"),
                    ),
                ),
                Paragraph(
                    "The stone was taken out; "
                    + mention("F3", "Figure 3")
                    + " was made in its course "
                    + unread("<!-- sic -->")
                    + ".",
                    (
                        Figure(
                            "F3",
                            "Figure 3",
                            None,
                            ("Endoscopic view of the stone in " + unread("<?page 3?>") + "the ureter before it was broken.",),
                            (
                                (
                                    _odd("f3.tif", "f3.tif", 65, "tissue", shown=False),
                                    _odd("f3.jpg", "f3.jpg", 65, "tissue"),
                                    _odd(
                                        "f3-small.gif",
                                        "f3-small.gif",
                                        65,
                                        "tissue",
                                        shown=False,
                                        attributes='specific-use="thumb"',
                                    ),
                                ),
                            ),
                        ),
                    ),
                ),
                Figure(
                    "F4",
                    "Figure 4",
                    "Anatomy of the ureter.",
                    ("A drawing that belongs to somebody else and was lent to the authors.",),
                    (_odd("f4.png", "f4.png", 66, "diagram"),),
                    attrib="Drawn by " + italic("A. Nobody"),
                    own_licence="Reproduced with permission. All rights reserved.",
                ),
                Figure(None, "Figure 5", None, (), (_odd("f5", "f5.JPG", 67, "blot"),)),
                Figure("F6", "Figure 6", "Stones of this kind in our ward, by year."),
            ),
        ),
    ),
    unused=(_odd("", "cover.jpg", 68, "diagram"),),
)

# --- PMC99000009.1 --------------------------------------------------------------------------------------------------

_SKIN = WrittenArticle(
    id="PMC99000009.1",
    title="Three moles and a photograph of each",
    doi="10.5555/written.9",
    doctype=_ARCHIVING_1_3,
    root=f'xmlns:j="https://jats.nlm.nih.gov/ns/archiving/1.3/" xmlns:mml="{MATHML}" {XLINK} dtd-version="1.3"',
    prefix="j",
    licence=licence_by_attribute(BY, "CC BY", "Under CC BY."),
    body=(
        Section(
            "Findings",
            (
                *said_of(
                    "the first mole", 5, ("F1=Figure 1", "F1s1=its supplement"), ("F2a=Figure 2a", "F2b=2b"), ("F3=Figure 3",)
                ),
                Figure(
                    "F1",
                    "Figure 1.",
                    "Dermoscopy of the first mole.",
                    ("Skin lesion with a pigment network of even mesh, as it was at the first visit.",),
                    (_odd("mole1.jpg", "mole1.jpg", 71, "tissue"),),
                    inner=(
                        Figure(
                            "F1s1",
                            "Figure 1-figure supplement 1.",
                            "The same mole a year later.",
                            ("It has grown by " + sub("about") + " one millimetre.",),
                            (_odd("mole1s.jpg", "mole1s.jpg", 72, "cells"),),
                        ),
                    ),
                ),
            ),
        ),
    ),
    floats=(
        Group(
            (
                Figure("F2a", "(a)", None, (), (_odd("mole2a.jpg", "mole2a.jpg", 73, "tissue"),)),
                Figure("F2b", "(b)", None, (), (_odd("mole2b.jpg", "mole2b.jpg", 74, "scan"),)),
            ),
            "Figure 2.",
            "The second mole under polarised and under plain light.",
        ),
        Figure(
            "F3",
            "Figure 3.",
            "The third mole in the laboratory.",
            ("(A) Section stained with hematoxylin and eosin. (B) Section stained with an antibody against melanin.",),
            (Picture("mole3.jpg", "mole3.jpg", Drawing(75, ("tissue", "cells"), (640, 320), (2,), ("A", "B"))),),
            ("A", "B"),
        ),
    ),
    sub_articles=(SubArticle("Reply", said_of("the reply", 6, ("F3=Figure 3",)), "response"),),
)

ARTICLES = (_GROWTH, _FEVER, _GENE, _SWIM, _ALGAE, _FLUX, _TREES, _CASE, _SKIN)
