"""The text rule, element by element."""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import pytest
from lxml import etree

from biomedclip_jax.data.pmc.jats._text import caption_parts, text_of

DROPPED = [
    "strike",
    "index-term",
    "glyph-data",
    "object-id",
    "supplementary-material",
    "media",
    "graphic",
    "inline-graphic",
    "alt-text",
    "long-desc",
    "fig",
    "fig-group",
    "table-wrap",
    "table-wrap-group",
]
LEAVING_A_SPACE = ["supplementary-material", "media", "fig", "fig-group", "table-wrap", "table-wrap-group"]
BLOCKS = [
    *("title", "p", "list", "list-item", "def-list", "def-item", "term", "def", "disp-quote", "disp-formula", "sec", "break"),
    *("label", "caption", "attrib", "preformat", "statement", "speech", "boxed-text", "verse-group", "verse-line"),
    *("fn", "td", "th", "tr"),
]
INLINE = [
    *("bold", "italic", "sc", "underline", "monospace", "xref", "ext-link", "named-content", "styled-content"),
    *("inline-formula", "alternatives", "email", "uri", "license-p", "ref", "anything", "textual-form", "overline", "roman"),
]


def text(inner: str) -> str:
    return text_of(etree.fromstring(f'<p xmlns:mml="http://www.w3.org/1998/Math/MathML">{inner}</p>'))


@pytest.mark.parametrize("name", DROPPED)
def test_dropped(name: str) -> None:
    between = " " if name in LEAVING_A_SPACE else ""
    assert text(f"a<{name}>no <p>no</p></{name}>b") == f"a{between}b"
    assert text(f"a<bold><{name}>no</{name}>c</bold>b") == f"a{between}cb"


@pytest.mark.parametrize("name", DROPPED)
def test_the_element_asked_for_is_not_dropped(name: str) -> None:
    assert text_of(etree.fromstring(f"<{name}>its <b>text</b></{name}>")) == "its text"


@pytest.mark.parametrize("name", BLOCKS)
def test_space_round_blocks(name: str) -> None:
    assert text(f"a<{name}>b</{name}>c") == "a b c"
    assert text(f"a<{name}/>c") == "a c"


@pytest.mark.parametrize("name", INLINE)
def test_no_space_round_inline_elements(name: str) -> None:
    assert text(f"a<{name}>b</{name}>c") == "abc"


def test_lists() -> None:
    assert text("See<list><list-item><label>1</label><p>one</p></list-item><list-item><p>two</p></list-item></list>.") == (
        "See 1 one two ."
    )


def test_of_the_forms_of_a_formula_one_is_read() -> None:
    formula = "<mml:math><mml:mi>β</mml:mi><mml:mo>=</mml:mo><mml:mn>2</mml:mn></mml:math>"
    assert text(f"p <inline-formula>{formula}</inline-formula> q") == "p β=2 q"
    assert text("p<inline-formula><tex-math>\\beta</tex-math></inline-formula>q") == "pβq"
    words = "<alternatives><tex-math>\\beta</tex-math><textual-form>b</textual-form></alternatives>"
    assert text(f"p <inline-formula>{words}</inline-formula> q") == "p b q"
    both = f"<inline-formula><tex-math>\\beta</tex-math>{formula}</inline-formula>"
    assert text(f"{both} and <tex-math>\\gamma</tex-math>") == "β=2 and γ"
    # one formula in several forms is read once
    forms = "<tex-math>\\beta</tex-math><mml:math><mml:mi>β</mml:mi></mml:math><inline-graphic/><graphic/>"
    assert text(f"p <inline-formula><alternatives>{forms}</alternatives></inline-formula> q") == "p β q"
    assert text(f"p<disp-formula><label>(1)</label><alternatives>{forms}</alternatives></disp-formula>q") == "p (1) β q"


@pytest.mark.parametrize("name", ["annotation", "annotation-xml"])
def test_annotations_of_mathml_are_dropped(name: str) -> None:
    note = f'<mml:{name} encoding="application/x-tex">\\beta</mml:{name}>'
    assert text(f"<mml:math><mml:semantics><mml:mi>β</mml:mi>{note}</mml:semantics></mml:math>") == "β"


def test_without_formulas_and_signs() -> None:
    """As the characters stand in the XML: what finds a text in another reading."""
    xml = (
        '<p xmlns:mml="http://m">10<sup>5</sup><mml:math><mml:mi>x</mml:mi></mml:math> of H<sub>2</sub>O in tissue<sup>'
        '<xref ref-type="bibr">12</xref></sup><tex-math>y</tex-math></p>'
    )
    assert text_of(etree.fromstring(xml), plain=True) == "105 of H2O in tissue12"
    assert text_of(etree.fromstring(xml)) == "10^5x of H2O in tissuey"


def test_footnotes_and_tables_in_a_text() -> None:
    assert text("Mice<fn><label>*</label><p>p &lt; 0.05</p></fn>ran") == "Mice * p < 0.05 ran"
    assert text("Key<array><tbody><tr><td>red</td><td>CT</td></tr></tbody></array>") == "Key red CT"


def test_comments_and_instructions_are_nothing() -> None:
    assert text("a<!-- no <p>no</p> -->b<?no no?>c<b>d<!----></b>e") == "abcde"


def test_white_space() -> None:
    assert text("\n a\t\u00a0\u2009\u200a b\u2003<b>\n</b>c\u3000") == "a b c"
    assert text("a\u200bb\u2060c\ufeffd") == "a\u200bb\u2060c\ufeffd", "no white space to Python"


def test_windows_quotes_that_came_as_control_characters() -> None:
    assert text("&#147;a&#148; &#150; b\u0085&#146;s") == "“a” – b ’s"


def test_nothing_else_changes() -> None:
    assert text("ﬁ ( ) , . e\u0301 ½ &lt;p&gt; &amp;nbsp; <![CDATA[<b>]]>") == "ﬁ ( ) , . e\u0301 ½ <p> &nbsp; <b>"


def test_any_namespace() -> None:
    assert text('a<x:title xmlns:x="http://x">b</x:title><y:object-id xmlns:y="http://y">no</y:object-id>c') == "a b c"


@pytest.mark.parametrize(
    ("inner", "title", "paragraphs"),
    [
        ("<title>T</title><p>a</p><p> </p><p>b</p>", "T", ["a", "b"]),
        ("<p>a</p>", None, ["a"]),
        ("<title/><p>a</p>", "", ["a"]),
        ("bare <b>text</b>", None, ["bare text"]),
        ("<title>T</title> x <p>a</p>y<list><list-item>z</list-item></list>", "T", ["x", "a", "y z"]),
        ("<p>a</p><title>late</title>", None, ["a", "late"]),
        ("<title>T</title><title>second</title>", "T", ["second"]),
        ("<title>T</title><p>a</p><supplementary-material><p>no</p></supplementary-material>", "T", ["a"]),
        ("<!-- x --><title>T</title><?x?><p>a</p>", "T", ["a"]),
        ("", None, []),
        ("<title>T<sup>2</sup></title>x<sub>i</sub><p>10<sup>5</sup></p>", "T^2", ["x_i", "10^5"]),
    ],
)
def test_parts_of_a_caption(inner: str, title: str | None, paragraphs: list[str]) -> None:
    caption = etree.fromstring(f"<caption>{inner}</caption>")
    assert caption_parts(caption) == (title, tuple(paragraphs))
    assert " ".join(filter(None, [title, *paragraphs])) == text_of(caption)
