"""Figures with supplements, source data and a figure in an author's response, as eLife writes them."""

from helpers.jats_description import (
    ROOT,
    Figure,
    Group,
    Paragraph,
    Section,
    SubArticle,
    Table,
    WrittenArticle,
    bold,
    link,
    mention,
)
from helpers.written_articles.pieces import ARCHIVING, drawn, licence_by_link, licence_by_reference, said_of

GROWTH = WrittenArticle(
    id="PMC99000001.1",
    title="Replicated: light slows the growth of cultured kidney cells",
    doi="10.5555/written.1",
    doctype=ARCHIVING,
    root=f'{ROOT} xmlns:ali="http://www.niso.org/schemas/ali/1.0/" dtd-version="1.1"',
    licence=licence_by_reference(),
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
                                + ") Western blot of lysates with an antibody against cyclin (upper rows) and "
                                "against actin as a"
                                " loading control (last row). ("
                                + bold("B")
                                + ") Amount of cyclin at 0, 1 and 24 hr under light,"
                                " as the mean of four cultures; error bars are s.e.m. One-way ANOVA, F(2, 9)=7.31, p=0.013."
                                " Raw films are kept at "
                                + link("https://example.org/films", "https://example.org/films")
                                + ".",
                            ),
                            (drawn("fig1.jpg", 1, "blot chart", "AB", (2,)),),
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
                                    (drawn("fig2.jpg", 2, "chart"),),
                                    supplement="All counts that " + mention("fig2", "Figure 2") + " is drawn from.",
                                    doi="10.5555/written.1.002",
                                ),
                                Figure(
                                    "fig2s1",
                                    "Figure 2\u2014figure supplement 1.",
                                    "Counts in single cultures.",
                                    (
                                        "Each dot is a gene. (A) First culture in the dark. (B) First culture under light. (C)"
                                        " Second culture in the dark. (D) Second culture under light. Note "
                                        "the shift to the left.",
                                    ),
                                    (drawn("fig2-figsupp1.jpg", 3, "chart", "ABCD", (2, 2)),),
                                    panels=("A", "B", "C", "D"),
                                    doi="10.5555/written.1.003",
                                    attributes=' specific-use="child-fig"',
                                ),
                                Figure(
                                    "fig2s2",
                                    "Figure 2\u2014figure supplement 2.",
                                    "The same with red light.",
                                    ("Red light of equal energy changes nothing in the counts of these genes.",),
                                    (drawn("fig2-figsupp2.jpg", 4, "diagram"),),
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
                            (drawn("fig3.jpg", 5, "chart", "AB", (1, 1)),),
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


FEVER = WrittenArticle(
    id="PMC99000002.2",
    title="Selection of patients may explain why a rare enzyme seems to protect from fever",
    doi="10.5555/written.2",
    doctype=ARCHIVING,
    licence=licence_by_link(),
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
                    (drawn("fig1.jpg", 6, "diagram"),),
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
                    (drawn("fig2.jpg", 7, "tissue scan", "", (2,), names=("left", "right")),),
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
                    (drawn("resp-fig1.jpg", 8, "chart"),),
                ),
            ),
        ),
    ),
)
