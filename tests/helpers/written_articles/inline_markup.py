"""Captions full of italics and superscripts, under CC0."""

from helpers.jats_description import Figure, Paragraph, Section, Words, WrittenArticle, bold, italic, mention, script
from helpers.written_articles.pieces import NLM_3, ZERO, drawn, licence_by_attribute, said_of

_ALLELE = italic("Wri" + script("sup", "+", "+"))  # markup in markup
_MUTANT = italic("Wri" + script("sup", italic("m1") + "J", "^m1J"))


def _gene_figure(
    number: int, title: Words, caption: Words, labels: str, kinds: str, rows: tuple[int, ...], supplement: bool = True
) -> Figure:
    name = f"fig{number}.jpg"
    return Figure(
        f"fig{number}",
        f"Figure {number}.",
        title,
        (caption,),
        (drawn(name, 10 + number, kinds, labels, rows),),
        panels=tuple(labels),
        supplement=f"Numbers behind figure {number}." if supplement else None,
        supplement_in_paragraph=number % 2 == 0,
        doi=f"10.5555/written.3.00{number}",
    )


GENE = WrittenArticle(
    id="PMC99000003.3",
    title="A variant of " + italic("Wri1") + " decides how much sugar water mice drink",
    doi="10.5555/written.3",
    doctype=NLM_3,
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
