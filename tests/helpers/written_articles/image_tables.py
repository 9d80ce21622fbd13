"""PNG, with tables and formulas that are images, too, as PLOS writes them."""

from helpers.jats_description import (
    ROOT,
    DisplayedFormula,
    Figure,
    Paragraph,
    Picture,
    Section,
    SupplementaryFile,
    Table,
    Words,
    WrittenArticle,
    image_formula,
    mention,
)
from helpers.written_articles.pieces import PUBLISHING, drawn, licence_in_words, said_of


def _png(name: str, seed: int, kinds: str, labels: str = "", rows: tuple[int, ...] = (1,), **more) -> Picture:
    picture = drawn(name, seed, kinds, labels, rows, **more)
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


ALGAE = WrittenArticle(
    id="PMC99000005.1",
    title="Which genes of a green alga can be spared",
    doi="10.5555/written.5",
    doctype=PUBLISHING,
    root=f'{ROOT} dtd-version="1.1d3" xml:lang="en"',
    licence=licence_in_words(),
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
                                "A) Colonies of the wild type on agar after a week. B) Colonies that lack one "
                                "gene. C) Colonies in"
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
                                "(A) Network of pairs, where a line joins genes with like histories. (B) "
                                "Number of pairs against the"
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
