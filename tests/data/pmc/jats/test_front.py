"""The front matter: ids, journal, year, licence, retraction, as different publishers and DTDs write them."""

import pytest

from biomedclip_jax.data.pmc.jats.article import Article, License
from biomedclip_jax.data.pmc.jats.parse import parse_article

CC_BY = "http://creativecommons.org/licenses/by/4.0/"


def article(meta: str = "", journal: str = "", attributes: str = "") -> Article:
    xml = (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:ali="http://www.niso.org/schemas/ali/1.0/" {attributes}>'
        f"<front><journal-meta>{journal}</journal-meta><article-meta>{meta}</article-meta></front></article>"
    )
    return parse_article(xml.encode(), "a.xml")


@pytest.mark.parametrize(
    ("kind", "value", "pmcid"),
    [
        ("pmc", "123", "PMC123"),
        ("pmc", "PMC123", "PMC123"),
        ("pmcid", " pmc123 ", "PMC123"),
        ("pmcid", "123", "PMC123"),
        ("pmcaid", "123", None),
        ("pmcid-ver", "PMC123.1", None),
        ("pmcid", "", None),
    ],
)
def test_pmcid(kind: str, value: str, pmcid: str | None) -> None:
    assert article(f'<article-id pub-id-type="{kind}">{value}</article-id>').pmcid == pmcid


def test_ids_are_those_of_the_article_itself() -> None:
    found = article(
        '<article-id pub-id-type="pmid">5</article-id><article-id pub-id-type="doi">10.1/x</article-id>'
        "<article-id>y</article-id>"
        '<related-object><article-id pub-id-type="pmc">9</article-id></related-object>'
    )
    assert (found.pmcid, found.pmid, found.doi) == (None, "5", "10.1/x")


def test_nothing_at_all() -> None:
    found = parse_article(b"<article/>", "a.xml")
    assert (found.title, found.journal, found.year, found.article_type, found.figures) == (None, None, None, None, ())
    assert found.license == License(None, None, "none", None)


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        ("<journal-title-group><journal-title>J. <italic>X</italic></journal-title></journal-title-group>", "J. X"),
        ("<journal-id journal-id-type='nlm-ta'>J X</journal-id><journal-title>Journal of X</journal-title>", "Journal of X"),
        ("<journal-id journal-id-type='nlm-ta'>J X</journal-id><journal-title/>", "J X"),
        ("<journal-id journal-id-type='publisher-id'>jx</journal-id>", None),
    ],
)
def test_journal(journal: str, expected: str | None) -> None:
    assert article(journal=journal).journal == expected


@pytest.mark.parametrize(
    ("dates", "year"),
    [
        ('<pub-date pub-type="ppub"><year>2013</year></pub-date><pub-date pub-type="epub"><year>2012</year></pub-date>', 2012),
        ('<pub-date pub-type="pmc-release"><year>2011</year></pub-date><pub-date><year>2012</year></pub-date>', 2012),
        ('<pub-date pub-type="nihms-submitted"><year>2011</year></pub-date>', 2011),
        ('<pub-date date-type="pub" iso-8601-date="2020-05-01"/>', 2020),
        ("<history><date><year>2001</year></date></history>", None),
        ("<pub-date><year>n.d.</year></pub-date>", None),
    ],
)
def test_year(dates: str, year: int | None) -> None:
    assert article(dates).year == year


def test_title_is_the_articles_own() -> None:
    found = article(
        "<title-group><article-title>The <italic>lacZ</italic><sup>+</sup>\n gene</article-title></title-group>"
        "<related-article><article-title>no</article-title></related-article>"
    )
    assert found.title == "The lacZ+ gene"


RETRACTED = [
    "RETRACTED ARTICLE: Mice",
    "Retracted \u2013 Mice",
    "Mice (Retracted)",
    "Mice [retracted article]",
    "WITHDRAWN: Mice",
    "Retraction notice to \u201cMice\u201d",
    "Retraction Note: Mice",
    "Retraction Note to: Mice",
    "Retraction to: Mice",
    "Retraction",
    "[Retraction] Mice",
    "Notice of Retraction: Mice",
    "RETRACTION: Mice run",
]
NOT_RETRACTED = [
    "Retraction to neutral position of the shoulder in MRI",
    "Retraction to the hippocampus: brain retraction in surgery",
    "Retraction: forces in brain surgery",
    "Retraction-induced injury",
    "Retraction of the nipple: imaging findings",
    "RETRACTION: FORCES IN BRAIN SURGERY",
    "Retracted tongue in mice",
    "Withdrawn patients: a study",
    "Retraction for vitrectomy",
]
TO_THE_ARTICLE = "<related-article related-article-type='retracted-article'/>"


@pytest.mark.parametrize(
    ("meta", "attributes", "retracted"),
    [
        ("", "article-type='retraction'", True),
        ("", "article-type='research-article'", False),
        ("<related-article related-article-type='retraction-forward'/>", "", True),
        ("<related-article related-article-type='retracted-article'/>", "article-type='editorial'", False),
        ("<related-article related-article-type='companion'/>", "", False),
        ("<title-group><article-title>RETRACTED: Mice</article-title></title-group>", "", True),
        ("<title-group><article-title>Retracted Article: Mice</article-title></title-group>", "", True),
        ("<title-group><article-title>[Retracted] Mice</article-title></title-group>", "", True),
        ("<title-group><article-title>Retraction of the tongue in mice</article-title></title-group>", "", False),
        ("<title-group><article-title>Retracted articles in PubMed: a study</article-title></title-group>", "", False),
        *((f"<title-group><article-title>{t}</article-title></title-group>", "", True) for t in RETRACTED),
        *((f"<title-group><article-title>{t}</article-title></title-group>", "", False) for t in NOT_RETRACTED),
        (f"{TO_THE_ARTICLE}<title-group><article-title>Retraction: Mice</article-title></title-group>", "", True),
        (f"{TO_THE_ARTICLE}<title-group><article-title>Retraction to Mice and cats</article-title></title-group>", "", True),
        (f"{TO_THE_ARTICLE}<title-group><article-title>Many retractions</article-title></title-group>", "", False),
        ("<title-group><article-title>Retraction: Mice</article-title></title-group>", "article-type='correction'", True),
    ],
)
def test_retraction(meta: str, attributes: str, retracted: bool) -> None:
    assert article(meta, attributes=attributes).is_retracted is retracted


def test_licence_by_attribute() -> None:
    found = article(
        f'<permissions><copyright-statement>© A</copyright-statement><license xlink:href="{CC_BY}"><license-p>Open.</license-p>'
        "</license></permissions>"
    ).license
    assert found == License("CC BY", CC_BY, "license/@xlink:href", "Open.")


def test_licence_by_link_even_where_the_attribute_says_nothing() -> None:
    found = article(
        '<permissions><license xlink:href="http://publisher/terms"><license-p>See <ext-link '
        'xlink:href="https://creativecommons.org/licenses/by-nc/3.0/">here</ext-link>.</license-p></license></permissions>'
    ).license
    assert (found.code, found.declared_in) == ("CC BY-NC", "license-p//ext-link/@xlink:href")
    assert found.text == "See here."


def test_licence_by_reference() -> None:
    inside = article(f"<permissions><license><ali:license_ref>{CC_BY}</ali:license_ref></license></permissions>").license
    assert (inside.code, inside.url, inside.declared_in) == ("CC BY", CC_BY, "license//license_ref")
    beside = article(f"<permissions><ali:free_to_read/><ali:license_ref>{CC_BY}</ali:license_ref></permissions>").license
    assert (beside.code, beside.url, beside.declared_in) == ("CC BY", CC_BY, "permissions/license_ref")


def test_licence_by_words_only() -> None:
    words = "Distributed under the Creative Commons Attribution Non Commercial License, as is." + " x" * 300
    found = article(f"<permissions><license><license-p>{words}</license-p></license></permissions>").license
    assert (found.code, found.url, found.declared_in) == ("CC BY-NC", None, "license text")
    assert found.text == words[:300]
    oldest = article(f"<copyright-statement>© 2005 A. {CC_BY}.</copyright-statement>").license
    assert (oldest.code, oldest.url, oldest.declared_in) == ("CC BY", CC_BY, "copyright-statement text")


def test_the_first_known_of_several_licences() -> None:
    found = article(
        '<permissions><license xlink:href="http://publisher/terms"/><license xlink:href="http://creativecommons.org/licenses/by-nd/4.0"/>'
        f'<license xlink:href="{CC_BY}"/></permissions>'
    ).license
    assert found.code == "CC BY-ND"


def test_unknown_licence_is_kept_as_it_stands() -> None:
    found = article('<permissions><license xlink:href="http://publisher/terms"><p>Ours.</p></license></permissions>').license
    assert found == License(None, "http://publisher/terms", "license/@xlink:href", "Ours.")


@pytest.mark.parametrize(
    ("statement", "code", "declared_in"),
    [
        ('<license license-type="cc-by"><license-p>Open access.</license-p></license>', "CC BY", "license/@license-type"),
        ('<license license-type="CC BY-NC 4.0"/>', "CC BY-NC", "license/@license-type"),
        ('<license license-type="open-access"><license-p>Open access.</license-p></license>', None, "license text"),
        ('<license license-type="cc-by"><license-p>CC BY-NC 4.0</license-p></license>', "CC BY-NC", "license text"),
        (
            f'<license><ali:license_ref specific-use="textmining">{CC_BY}</ali:license_ref>'
            "<license-p>Text and data mining only.</license-p></license>",
            "TDM",
            "license text",
        ),
        (
            f'<license><ali:license_ref specific-use="textmining">{CC_BY}</ali:license_ref>'
            "<license-p>Open access.</license-p></license>",
            "CC BY",
            "license//license_ref",
        ),
        ("<ali:free_to_read/>", None, "none"),
    ],
)
def test_licence_by_type_and_words_that_overrule(statement: str, code: str | None, declared_in: str) -> None:
    found = article(f"<permissions>{statement}</permissions>").license
    assert (found.code, found.declared_in) == (code, declared_in)
