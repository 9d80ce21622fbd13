"""Lists and ranges of figures in the running text."""

import time

import pytest

from biomedclip_jax.data.pmc.jats.parse import parse_article

FIGURES = "".join(f'<fig id="f{n}"><label>Figure {n}.</label></fig>' for n in range(1, 9)) + "".join(
    f'<fig id="s{n}"><label>Figure S{n}</label></fig>' for n in (1, 2, 3)
)


def mentioned(paragraph: str) -> str:
    found = parse_article(f"<article><body>{FIGURES}<p>{paragraph}</p></body></article>".encode(), "a.xml").figures
    return " ".join((f.label or "")[7:].strip(".") for f in found if f.references.paragraphs)


def x(number: object, words: object = "") -> str:
    return f'<xref ref-type="fig" rid="f{number}">{words or number}</xref>'


@pytest.mark.parametrize(
    ("paragraph", "numbers"),
    [
        (f"See Figs. {x(1)}\u2013{x(3)}.", "1 2 3"),
        (f"See Figs.&#160;{x(1)}-{x(3)}.", "1 2 3"),
        (f"See Figs {x(1)} to {x(3)}.", "1 2 3"),
        (f"Figures {x(1)} through {x(4)} show", "1 2 3 4"),
        (f"{x(2, 'Fig. 2')} to {x(4, 'Fig. 4')}", "2 3 4"),
        (x(1, "Figs. 1\u20133"), "1 2 3"),
        (f"Fig. {x(1)}\u20133.", "1 2 3"),
        (x(1, "Figs. 1, 2, 4\u20136") + " and 8.", "1 2 4 5 6 8"),
        (f"<bold>Figs. {x(1)}</bold> <italic>to</italic> {x(3)}", "1 2 3"),
        (f"Figures {x(1, '1A')}\u2013{x(3, '3C')}", "1 2 3"),
        ("Figs. " + x("1 f3", "1\u20133"), "1 2 3"),
        # lists
        (x(1, "Figures 1A\u2013C") + " and 3 show", "1 3"),
        (f"{x(1, 'Fig. 1')}A\u2013C and {x(3, 'Fig. 3')}", "1 3"),
        (f"Fig. {x(2)} and 4.", "2 4"),
        (f"Figs. 2 and {x(4)}", "2 4"),
        (f"Figs. 1-3 and {x(5)}", "1 2 3 5"),
        (f"{x(1, 'Figure 1')} and {x(3, 'Figure 3')}", "1 3"),
        # supplementary figures are others
        ('<xref rid="s1">Figs. S1</xref>\u2013<xref rid="s3">S3</xref>', "S1 S2 S3"),
        ('<xref rid="s1">Figs. S1</xref>\u20133', "S1 S2 S3"),
        ('<xref rid="s1">Figure 3\u2014figure supplement 1</xref>', "S1"),
        # no figures
        (f"{x(2, 'Fig. 2')} and 4 mice died", "2"),
        (f"{x(1, 'Figure 1')} to 3 weeks", "1"),
        (f"({x(2, 'Fig. 2')}, 10 mg/kg)", "2"),
        (f"({x(2, 'Fig. 2')}; 5 of 10)", "2"),
        (f"{x(1, 'Fig. 1A')}\u2013{x(1, 'C')}, 5% of", "1"),
        (f"Fig. {x(3)}\u2013{x(1)}", "1 3"),
        ("Figs. 1\u20133 of that article", ""),
        (f"Figs. {x(1)}\u2013999", "1 2 3 4 5 6 7 8"),
    ],
)
def test_lists_and_ranges(paragraph: str, numbers: str) -> None:
    assert mentioned(paragraph) == numbers


def test_only_references_are_counted() -> None:
    found = parse_article(f"<article><body>{FIGURES}<p>Figs. {x(1)}-{x(3)}</p></body></article>".encode(), "a.xml").figures
    assert [f.references.xrefs for f in found[:4]] == [1, 0, 1, 0]
    assert [len(f.references.paragraphs) for f in found[:4]] == [1, 1, 1, 0]


def test_a_reference_to_a_group_is_one_to_its_figures() -> None:
    xml = f'<article><body><fig-group id="f1"><fig id="a"/><fig/></fig-group><p>{x(1)}</p></body></article>'
    found = parse_article(xml.encode(), "a.xml").figures
    assert [(f.references.xrefs, len(f.references.paragraphs)) for f in found] == [(1, 1), (1, 1)]


def test_numbers_count_within_their_part_of_the_article() -> None:
    figures = "".join(f'<fig id="r{n}"><label>Figure {n}</label></fig>' for n in (1, 2, 3))
    letter = f'<sub-article><body>{figures}<p>Figs. <xref rid="r1">1</xref>-<xref rid="r3">3</xref></p></body></sub-article>'
    found = parse_article(f"<article><body>{FIGURES}</body>{letter}</article>".encode(), "a.xml").figures
    assert [f.id for f in found if f.references.paragraphs] == ["r1", "r2", "r3"]


def test_long_lists_in_time() -> None:
    start = time.perf_counter()
    mentioned("Figs. " + ", ".join(x(1) for _ in range(20_000)))
    mentioned(f"Fig. {x(1)}" + ", 1" * 100_000)
    mentioned("Fig. 1, " * 50_000 + x(1))
    assert time.perf_counter() - start < 20, "1 s on a machine at rest"
