"""Names without extension and line breaks everywhere, as bioRxiv writes them."""

from helpers.drawn_figures import Drawing
from helpers.jats_description import (
    ROOT,
    Figure,
    Paragraph,
    Picture,
    Section,
    Text,
    Words,
    WrittenArticle,
    bold,
    italic,
    mention,
)
from helpers.written_articles.pieces import BY, licence_by_attribute

_WILD = italic("WRI1\n                        ") + "knockout"


def _flux_figure(identity: str, label: Words, lead: Words, said: tuple[Words, ...], labels: str, picture: tuple) -> Figure:
    name, seed, kinds, rows = picture
    drawing = Drawing(seed, tuple(kinds.split()), (640, 300 * len(rows)), rows, tuple(labels))
    return Figure(identity, label, None, (lead, *said), (Picture(name, name, drawing),), tuple(labels))


def _shown_as(figure: str, words: str) -> Text:
    """bioRxiv's form: bold and italic around the reference."""
    return bold(italic(mention(figure, f"{words}\n                    ")))


FLUX = WrittenArticle(
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
