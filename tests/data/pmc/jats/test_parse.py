"""Articles read from JATS, against what written articles hold and against small cases of what publishers do."""

import re

import pytest
from helpers.article_truth import compare_article, compare_what_the_writer_knows
from helpers.jats_description import WrittenArticle
from helpers.jats_writer import truth_of, xml_of
from helpers.written_articles import ARTICLES

from biomedclip_jax.data.pmc.jats.article import Article, Figure, Graphic
from biomedclip_jax.data.pmc.jats.parse import parse_article
from biomedclip_jax.errors import UserError

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def article(body: str = "", front: str = "", rest: str = "", attributes: str = "") -> Article:
    xml = (
        f"<article {XLINK} {attributes}><front><article-meta>{front}</article-meta></front>"
        f"<body>{body}</body><back/>{rest}</article>"
    )
    return parse_article(xml.encode(), "a.xml")


def figure(inner: str, around: str = "%s") -> Figure:
    (found,) = article(around % f'<fig id="f1">{inner}</fig>').figures
    return found


@pytest.mark.parametrize("written", ARTICLES, ids=lambda written: written.id)
def test_written_article(written: WrittenArticle) -> None:
    xml, expected = xml_of(written), truth_of(written)
    found = parse_article(xml, expected["xml"])
    compare_article(found, expected, formulas=True)
    compare_what_the_writer_knows(found, expected)
    # paragraphs begin, for the truth, without formulas: with none in the XML every text must be equal to it
    without = re.sub(rb"<((?:\w+:)?(?:math|tex-math))\b.*?</\1>", b"", xml, flags=re.DOTALL)
    compare_article(parse_article(without, expected["xml"]), expected, formulas=False)


def test_the_written_articles_have_the_cases_compared() -> None:
    """A truth that is derived from a description, not counted, must hold what the description was made for."""
    articles = [truth_of(written) for written in ARTICLES]
    figures = [figure for expected in articles for figure in expected["figures"]]
    assert len(figures) == 51
    assert sum("caption_if_mathml_text_kept" in f for f in figures) == 9
    assert sum(len(f["references"]["paragraphs"]) for f in figures) > 100
    places = {paragraph["where"] for f in figures for paragraph in f["references"]["paragraphs"]}
    assert places == {"abstract", "body", "back", "sub-article"}
    assert sum(f["references"]["n_xrefs_outside_paragraphs"] for f in figures) == 11
    assert [f["id"] for f in figures if not f["references"]["n_xrefs"]] == ["fig4s1", None, None]
    assert sum(f["fig_group"] is not None for f in figures) == 15 and sum(f["in_floats_group"] for f in figures) == 3
    assert [(f["id"], f["nested_in_fig"]) for f in figures if f["nested_in_fig"]] == [("F1s1", "F1")]
    assert [f["id"] for f in figures if f["in_sub_article"]] == ["respfig1"]
    assert sorted(len(f["graphics"]) for f in figures)[-3:] == [1, 2, 3] and sum(not f["graphics"] for f in figures) == 1
    assert sum(g["in_alternatives"] for f in figures for g in f["graphics"]) == 3
    assert sum(bool(f["graphics"]) and not f["pictures"] for f in figures) == 3, "no file came with them"
    assert {a["licence"]["declared_in"] for a in articles} == {
        "license/@xlink:href",
        "license//license_ref",
        "license-p//ext-link/@xlink:href",
        "license text",
    }


def test_nothing_but_the_element() -> None:
    (found,) = article("<fig/>").figures
    assert found == Figure(0, None, None, None, None, (), (), found.references)
    assert (found.references.xrefs, found.references.paragraphs) == (0, ())


def test_where_figures_stand() -> None:
    found = article(
        '<fig id="a"><fig id="b"/></fig><p>x<fig-group><fig id="c"/><fig id="d"/></fig-group></p>'
        '<fig-group><label>Figure 9</label><caption><p>Two mice.</p></caption><fig id="e"><label>(a)</label></fig></fig-group>',
        rest='<floats-group><fig id="f"/></floats-group><sub-article><body><fig id="g"/></body></sub-article>'
        '<response><body><fig id="h"/></body></response>',
    ).figures
    assert [(f.index, f.id) for f in found] == list(enumerate("abcdefgh"))
    assert [f.nested_in_fig for f in found] == [None, "a", *[None] * 6]
    assert [f.fig_group for f in found] == [None, None, 1, 1, 2, None, None, None]
    assert [f.in_floats_group for f in found] == [False] * 5 + [True, False, False]
    assert [f.in_sub_article for f in found] == [False] * 6 + [True, True]
    assert (found[4].label, found[4].caption) == ("(a)", None)
    assert (found[4].group_label, found[4].group_caption) == ("Figure 9", "Two mice.")


def test_label_caption_and_credit_are_the_figures_own() -> None:
    found = article(
        '<fig id="f1"><object-id>10.1/x</object-id><label>Fig. <bold>1</bold>.</label>'
        "<caption><title>Mice.</title><p>Two.</p><p/>"
        "<p>See <list><list-item><label>a</label><p>left</p></list-item></list></p>"
        "<supplementary-material><label>Data 1</label><caption><p>Not ours.</p></caption></supplementary-material></caption>"
        "<attrib>Photo: A. <italic>Nobody</italic></attrib><fig><label>no</label><caption><p>no</p></caption></fig></fig>"
    ).figures[0]
    assert (found.label, found.caption, found.attrib) == ("Fig. 1.", "Mice. Two. See a left", "Photo: A. Nobody")
    assert (found.caption_title, found.caption_paragraphs) == ("Mice.", ("Two.", "See a left"))


def test_empty_is_not_missing() -> None:
    found = figure("<label/><caption><title/><p> </p></caption>")
    assert (found.label, found.caption, found.caption_title, found.caption_paragraphs) == ("", "", "", ())


def test_graphics() -> None:
    found = article(
        '<fig id="f1"><caption><p><graphic xlink:href="no"/></p></caption><graphic mimetype="image" xlink:href="a.b.c"/>'
        '<alternatives><graphic xlink:href="t.tif"/><graphic specific-use="thumb" content-type="x-20x30" xlink:href="t.jpg"/>'
        '</alternatives><p><alternatives><graphic xlink:href="u"/></alternatives></p><graphic/>'
        '<fig><graphic xlink:href="inner"/></fig>'
        '<table-wrap><caption><graphic xlink:href="table"/></caption></table-wrap></fig><graphic xlink:href="alone"/>'
    ).figures
    assert found[0].graphics == (
        Graphic("a.b.c"),
        Graphic("t.tif", 0),
        Graphic("t.jpg", 0, "thumb", "x-20x30"),
        Graphic("u", 1),
        Graphic(""),
        Graphic("table"),
    )
    assert [g.in_alternatives for g in found[0].graphics] == [False, True, True, True, False, False]
    assert found[1].graphics == (Graphic("inner"),)


MENTION = '<xref ref-type="fig" rid="f1">Fig. 1</xref>'


@pytest.mark.parametrize(
    "outside",
    [
        f"<sec><title>{MENTION}</title></sec>",
        f"<table-wrap><table><tr><td>{MENTION}</td><th>{MENTION}</th></tr></table></table-wrap>",
        f"<p>x<table><tr><td>{MENTION}</td></tr></table></p>",
        f"<table-wrap-foot><fn><p>{MENTION}</p></fn></table-wrap-foot>",
        f"<fig><caption><p>{MENTION}</p></caption></fig>",
        f"<fig-group><caption><p>{MENTION}</p></caption></fig-group>",
        f"<p>x<fig><p>{MENTION}</p></fig></p>",
        f"<p>x<supplementary-material><p>{MENTION}</p></supplementary-material></p>",
        f"<ref-list><ref><note><p>{MENTION}</p></note></ref></ref-list>",
        f"<p>x<list><list-item><label>{MENTION}</label></list-item></list></p>",
        f"<author-notes><fn><p>{MENTION}</p></fn></author-notes>",
        f"<sec>{MENTION}</sec>",
    ],
)
def test_mentions_outside_running_text(outside: str) -> None:
    references = article(f'<fig id="f1"/>{outside}').figures[0].references
    assert references.xrefs == references.outside_paragraphs == outside.count("<xref")
    assert references.paragraphs == ()


def test_mentions_in_running_text() -> None:
    found = article(
        f"<sec><title>Re<sub>1</sub>sults</title><p>One {MENTION} and {MENTION}.</p>"
        "<sec><p>Outer <boxed-text><title>Box</title>"
        f"<p>inner {MENTION}</p></boxed-text> then {MENTION}</p></sec></sec>"
        '<fig id="f1"/><fig id="f2"/><p>Both <xref rid=" f1\n f2 f1 gone"/></p><p>None <xref/> <xref rid="gone"/></p>',
        f"<abstract><p>In short {MENTION}.</p></abstract>",
        f"<sub-article><front-stub/><body><p>Asked {MENTION}</p></body></sub-article>",
    ).figures
    references = found[0].references
    assert (references.xrefs, references.outside_paragraphs) == (7, 0)
    assert [(p.where, p.section, p.text) for p in references.paragraphs] == [
        ("abstract", None, "In short Fig. 1."),
        ("body", "Re1sults", "One Fig. 1 and Fig. 1."),
        ("body", "Re1sults", "Outer Box inner Fig. 1 then Fig. 1"),
        ("body", "Box", "inner Fig. 1"),
        ("body", None, "Both"),
        ("sub-article", None, "Asked Fig. 1"),
    ]
    assert [p.text for p in found[1].references.paragraphs] == ["Both"]


def test_mentions_in_back_matter_and_of_a_shared_id() -> None:
    back = f"<back><app><title>More</title><p>{MENTION}</p></app></back>"
    found = parse_article(f'<article><body><fig id="f1"/><fig id="f1"/></body>{back}</article>'.encode(), "a.xml").figures
    assert found[0].references == found[1].references
    assert [(p.where, p.section) for p in found[0].references.paragraphs] == [("back", "More")]


@pytest.mark.parametrize(
    "wrapped",
    [
        "%s",
        "<pmc-articleset>%s</pmc-articleset>",
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><GetRecord><record><metadata>%s</metadata></record></GetRecord></OAI-PMH>',
    ],
)
@pytest.mark.parametrize(
    "namespace", ["", ' xmlns="https://jats.nlm.nih.gov/ns/archiving/1.4/"', ' xmlns="http://dtd.nlm.nih.gov/2.0"']
)
def test_wrappers_and_namespaces(wrapped: str, namespace: str) -> None:
    inner = (
        f'<article article-type="case-report"{namespace}><front><article-meta><article-id pub-id-type="pmcid">PMC7</article-id>'
        '</article-meta></front><body><fig id="f1"><caption><p>Text</p></caption><graphic xmlns:l="http://www.w3.org/1999/xlink"'
        f' xmlns:h="http://h" h:href="no" l:href="g1"/></fig><p>{MENTION}</p></body></article>'
    )
    found = parse_article((wrapped % inner).encode(), "a.xml")
    assert (found.pmcid, found.article_type) == ("PMC7", "case-report")
    (only,) = found.figures
    assert (only.id, only.caption, only.graphics) == ("f1", "Text", (Graphic("g1"),))
    assert [p.text for p in only.references.paragraphs] == ["Fig. 1"]


def test_prefix_of_the_elements_themselves() -> None:
    xml = b'<j:article xmlns:j="http://jats"><j:body><j:fig id="f"><j:label>1</j:label></j:fig></j:body></j:article>'
    assert parse_article(xml, "a.xml").figures[0].label == "1"


@pytest.mark.parametrize("xml", ["<html><body><article/></body></html>", "<book/>", "<pmc-articleset/>"])
def test_no_article(xml: str) -> None:
    with pytest.raises(UserError, match=r"PMC1\.xml: no <article> in it"):
        parse_article(xml.encode(), "PMC1.xml")


def test_several_articles() -> None:
    with pytest.raises(UserError, match=r"PMC1\.xml: 2 articles in one file; expected one"):
        parse_article(b"<pmc-articleset><article/><article/></pmc-articleset>", "PMC1.xml")


def test_own_permissions_of_a_figure() -> None:
    found = figure(
        "<permissions><copyright-statement>© WHO</copyright-statement><license><license-p>"
        "Panel B is from WHO. It is not covered by the CC BY 4.0 licence.</license-p></license></permissions>"
    )
    assert found.license is not None
    assert (found.license.code, found.license.declared_in) == (None, "license text")
    assert figure("<label>1</label>").license is None


def test_images_that_nothing_is_said_of() -> None:
    """An image in the running text is no figure, and is not lost either; signs, tables, portraits and logos are none."""
    found = article(
        '<p>Seen: <graphic xlink:href="a"/></p>'
        '<p><alternatives><graphic xlink:href="b.tif"/><graphic xlink:href="b.jpg"/></alternatives></p>'
        '<p><inline-graphic xlink:href="no"/><inline-formula><graphic xlink:href="no"/></inline-formula></p>'
        '<disp-formula><alternatives><graphic xlink:href="no"/></alternatives></disp-formula>'
        '<table-wrap><graphic xlink:href="no"/></table-wrap><bio><graphic xlink:href="no"/></bio>'
        '<boxed-text><graphic xlink:href="disease_logo"/></boxed-text>'
        '<fig id="f"><caption><p>With <graphic xlink:href="no"/></p></caption><graphic xlink:href="no"/></fig>',
        front='<abstract><p><graphic xlink:href="c"/></p></abstract><permissions><graphic xlink:href="no"/></permissions>',
    )
    assert found.loose_images == ("c", "a", "b.tif")
    assert [one.id for one in found.figures] == ["f"]
