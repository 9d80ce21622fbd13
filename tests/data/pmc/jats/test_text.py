"""The text rule, element by element."""

import pytest
from lxml import etree

from biomedclip_jax.data.pmc.jats._text import caption_parts, text_of

DROPPED = [
    "tex-math",
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
]
INLINE = [
    *("bold", "italic", "sub", "sup", "sc", "underline", "monospace", "xref", "ext-link", "named-content", "styled-content"),
    *("inline-formula", "alternatives", "email", "uri", "fn", "td", "license-p", "ref", "anything"),
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


def test_mathml_is_kept_and_tex_dropped() -> None:
    formula = "<mml:math><mml:mi>β</mml:mi><mml:mo>=</mml:mo><mml:mn>2</mml:mn></mml:math>"
    assert text(f"p <inline-formula>{formula}</inline-formula> q") == "p β=2 q"
    assert text("p<inline-formula><tex-math>\\beta</tex-math></inline-formula>q") == "pq"
    # one formula in several forms is read once
    forms = "<tex-math>\\beta</tex-math><mml:math><mml:mi>β</mml:mi></mml:math><inline-graphic/><graphic/>"
    assert text(f"p <inline-formula><alternatives>{forms}</alternatives></inline-formula> q") == "p β q"
    assert text(f"p<disp-formula><label>(1)</label><alternatives>{forms}</alternatives></disp-formula>q") == "p (1) β q"


@pytest.mark.parametrize("name", ["annotation", "annotation-xml"])
def test_annotations_of_mathml_are_dropped(name: str) -> None:
    note = f'<mml:{name} encoding="application/x-tex">\\beta</mml:{name}>'
    assert text(f"<mml:math><mml:semantics><mml:mi>β</mml:mi>{note}</mml:semantics></mml:math>") == "β"


def test_comments_and_instructions_are_nothing() -> None:
    assert text("a<!-- no <p>no</p> -->b<?no no?>c<b>d<!----></b>e") == "abcde"


def test_white_space() -> None:
    assert text("\n a\t\u00a0\u2009\u200a b\u2003<b>\n</b>c\u3000") == "a b c"
    assert text("a\u200bb\u2060c\ufeffd") == "a\u200bb\u2060c\ufeffd", "no white space to Python"


def test_nothing_else_changes() -> None:
    assert text("ﬁ ( ) , . e\u0301 ½ &lt;p&gt; &amp;nbsp; <![CDATA[<b>]]>") == "ﬁ ( ) , . e\u0301 ½ <p> &nbsp; <b>"


def test_any_namespace() -> None:
    assert text('a<x:title xmlns:x="http://x">b</x:title><y:tex-math xmlns:y="http://y">no</y:tex-math>c') == "a b c"


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
    ],
)
def test_parts_of_a_caption(inner: str, title: str | None, paragraphs: list[str]) -> None:
    caption = etree.fromstring(f"<caption>{inner}</caption>")
    assert caption_parts(caption) == (title, tuple(paragraphs))
    assert " ".join(filter(None, [title, *paragraphs])) == text_of(caption)
