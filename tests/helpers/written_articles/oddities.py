"""Lost pictures, an old DTD, figures without id or in each other, and files with odd names."""

from helpers.drawn_figures import Drawing
from helpers.jats_description import (
    MATHML,
    ROOT,
    XLINK,
    Figure,
    Group,
    Paragraph,
    Picture,
    Section,
    SubArticle,
    Words,
    WrittenArticle,
    bold,
    italic,
    link,
    mention,
    script,
    unread,
    written,
)
from helpers.written_articles.pieces import (
    ARCHIVING_1_3,
    BY,
    NLM_2_3,
    PUBLISHING_1_2,
    licence_by_attribute,
    licence_of_old,
    said_of,
)


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


TREES = WrittenArticle(
    id="PMC99000007.1",
    title=written("Where a desert tree&#160;may grow in\n2050", "Where a desert tree may grow in 2050"),
    doi="10.5555/written.7",
    doctype=PUBLISHING_1_2,
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


def _odd(href: str, file: str, seed: int, kinds: str = "scan", **more) -> Picture:
    return Picture(href, file, Drawing(seed, tuple(kinds.split())), **more)


CASE = WrittenArticle(
    id="PMC99000008.1",
    title=written(
        "A stone in the na&iuml;ve kidney: &ldquo;case report&rdquo;",
        "A stone in the na\u00efve kidney: \u201ccase report\u201d",
    ),
    article_type="case-report",
    doi="10.5555/written.8",
    pmid="55555558",
    doctype=NLM_2_3,
    encoding="iso-8859-1",
    wrapper="<pmc-articleset>%s</pmc-articleset>",
    root=f'{ROOT} xml:lang="EN"',
    journal='<journal-id journal-id-type="nlm-ta">Old Cases</journal-id><journal-title>Old Cases</journal-title>',
    licence=licence_of_old(),
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


SKIN = WrittenArticle(
    id="PMC99000009.1",
    title="Three moles and a photograph of each",
    doi="10.5555/written.9",
    doctype=ARCHIVING_1_3,
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
                            ("It has grown by " + script("sub", "about", "about") + " one millimetre.",),
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
