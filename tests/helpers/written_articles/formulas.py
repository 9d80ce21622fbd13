"""Captions with formulas, groups of figures and an appendix."""

from helpers.jats_description import (
    Figure,
    Group,
    Paragraph,
    Picture,
    Section,
    Words,
    WrittenArticle,
    formula,
    mention,
    tex_formula,
)
from helpers.written_articles.pieces import ARCHIVING, BY, drawn, licence_by_attribute, said_of

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


SWIM = WrittenArticle(
    id="PMC99000004.2",
    title="How young fish steer towards a lamp",
    doi="10.5555/written.4",
    doctype=ARCHIVING,
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
                            "(A) Sketch of the tank and the camera above it. (B) Path of one larva over a "
                            "minute. (C) Distribution of"
                            " the turning angle " + _ALPHA + " (" + _N + " fish). (D) Correlation of successive turns with time"
                            " constant " + _TAU + ".",
                            "A B C D",
                            drawn("fig1.jpg", 20, "diagram cells chart chart", "ABCD", (2, 2)),
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
                                    drawn("fig2.jpg", 21, "chart", "ABC", (3,), size=(660, 300)),
                                ),
                                _swim_figure(
                                    "fig2s1",
                                    "Figure 2\u2014figure supplement 1.",
                                    "Fits of the angles.",
                                    "Sum of a normal and a gamma distribution fitted to "
                                    + _ALPHA
                                    + " in () and out of the light.",
                                    "",
                                    drawn("fig2-figsupp1.jpg", 22, "chart"),
                                    child=True,
                                ),
                                _swim_figure(
                                    "fig2s2",
                                    "Figure 2\u2014figure supplement 2.",
                                    "Water temperature.",
                                    "It changed by less than "
                                    + tex_formula(r"0.3^\circ", "0.3°")
                                    + " one degree over the "
                                    + _N
                                    + " sessions.",
                                    "",
                                    drawn("fig2-figsupp2.jpg", 23, "chart"),
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
                                    drawn("fig3.jpg", 24, "scan chart chart chart", "ABCD", (2, 2)),
                                ),
                                _swim_figure(
                                    "fig3s1",
                                    "Figure 3\u2014figure supplement 1.",
                                    "One eye removed.",
                                    "Fish with a single eye turn to that side, by " + _ALPHA + " on average.",
                                    "",
                                    drawn("fig3-figsupp1.jpg", 25, "cells"),
                                    child=True,
                                ),
                                _swim_figure(
                                    "fig3s2",
                                    "Figure 3\u2014figure supplement 2.",
                                    "Paths of two fish.",
                                    "Left: a fish before the lamp is lit. Right: the same fish after " + _TAU + " of light.",
                                    "left right",
                                    drawn("fig3-figsupp2.jpg", 26, "cells tissue", "", (2,), names=("left", "right")),
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
                                    "(A) Schematic of two halves that inhibit each other. (B) Activity of "
                                    "both halves over time. (C) Head"
                                    " angle that follows from it.",
                                    "A B C",
                                    drawn("fig4.jpg", 27, "diagram chart chart", "ABC", (1, 2)),
                                ),
                                _swim_figure(
                                    "fig4s1",
                                    "Figure 4\u2014figure supplement 1.",
                                    "Stability of the circuit.",
                                    "Two fixed points exist where inhibition is above " + _SLOPE + ".",
                                    "",
                                    drawn("fig4-figsupp1.jpg", 28, "diagram"),
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
                                    "(A) Many simulated paths, coloured by time. (B) Density of positions "
                                    "around the lamp at distance " + formula("<mml:mi>r</mml:mi>", "r") + ".",
                                    "A B",
                                    drawn("fig5.jpg", 29, "cells tissue", "AB", (2,)),
                                ),
                                _swim_figure(
                                    "fig5s1",
                                    "Figure 5\u2014figure supplement 1.",
                                    "Real fish for comparison.",
                                    "Density of the positions of real larvae around a lamp, drawn alike.",
                                    "",
                                    drawn("fig5-figsupp1.jpg", 30, "tissue"),
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
