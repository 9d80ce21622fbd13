"""Labels and captions, wherever publishers put them."""

import time

import pytest

from biomedclip_jax.data.pmc.jats.article import Figure
from biomedclip_jax.data.pmc.jats.parse import parse_article


def figures(body: str, attributes: str = "") -> tuple[Figure, ...]:
    xml = f'<article xmlns:xlink="http://www.w3.org/1999/xlink" {attributes}><body>{body}</body></article>'
    return parse_article(xml.encode(), "a.xml").figures


def said(caption: str, label: str = "", attributes: str = "") -> tuple[str | None, str | None]:
    (found,) = figures(f"<fig>{label}{caption}</fig>", attributes)
    return found.label, found.caption


FIGURE_1 = "<label>Figure 1</label>"
PT, EN = "<p>Radiografia de t\u00f3rax.</p>", "<p>Chest radiograph.</p>"


@pytest.mark.parametrize(
    ("caption", "label", "attributes"),
    [
        (f'<caption xml:lang="pt">{PT}</caption><caption xml:lang="en">{EN}</caption>', FIGURE_1, ""),
        (f'<caption xml:lang="en">{EN}</caption><caption xml:lang="pt">{PT}</caption>', FIGURE_1, ""),
        (f'<caption>{PT}</caption><caption xml:lang="en">{EN}</caption>', FIGURE_1, 'xml:lang="pt"'),
        (f'<caption>{EN}</caption><caption xml:lang="pt">{PT}</caption>', FIGURE_1, 'xml:lang="en"'),
        ('<caption><p>Radiografia.</p><p xml:lang="en-US">Chest radiograph.</p></caption>', FIGURE_1, ""),
        ('<caption><p xml:lang="pt">Radiografia.</p><p xml:lang="en">Chest radiograph.</p></caption>', FIGURE_1, ""),
        ('<caption><title xml:lang="pt">Radiografia.</title><p xml:lang="en">Chest radiograph.</p></caption>', FIGURE_1, ""),
        ('<caption><p xml:lang="pt">Radiografia.</p><p>Chest radiograph.</p></caption>', FIGURE_1, 'xml:lang="en"'),
        # the label in the caption, or said again there
        (f"<caption>{FIGURE_1}{EN}</caption>", "", ""),
        (f"<caption>{FIGURE_1}{EN}</caption>", FIGURE_1, ""),
        ("<caption><p>Figure 1. Chest radiograph.</p></caption>", FIGURE_1, ""),
        ("<caption><p>Figure 1 Chest radiograph.</p></caption>", FIGURE_1, ""),
        ("<caption><p><bold>Fig. 1:</bold> Chest radiograph.</p></caption>", FIGURE_1, ""),
        ("<caption><title>Figure 1</title><p>Chest radiograph.</p></caption>", FIGURE_1, ""),
        ("<caption><p>Figure 1. Chest radiograph.</p></caption>", "", ""),
        ("<caption><p><label>Figure 1</label>Chest radiograph.</p></caption>", FIGURE_1, ""),
        # no caption, but words
        ("<graphic/>Figure 1. Chest radiograph.", "", ""),
        ("<p>Chest radiograph.</p><graphic/>", FIGURE_1, ""),
    ],
)
def test_one_caption_in_english_without_label(caption: str, label: str, attributes: str) -> None:
    assert said(caption, label, attributes) == ("Figure 1", "Chest radiograph.")


@pytest.mark.parametrize(
    ("inner", "caption"),
    [
        ("<p>Figure 1 shows a chest.</p>", "Figure 1 shows a chest."),
        ("<p>Figure 1A, a chest.</p>", "Figure 1A, a chest."),
        ("<p>Figure 2. A chest.</p>", "Figure 2. A chest."),
        ("<p>Figure 1\u20133. Chests.</p>", "Figure 1\u20133. Chests."),
        ("<p>Figure 1.5 is a chest.</p>", "Figure 1.5 is a chest."),
        ("<p>Figure 1</p>", "Figure 1"),
        ("<p>Figure 10. A chest.</p>", "Figure 10. A chest."),
        ("<p>Image 1. A chest.</p>", "Image 1. A chest."),
        ('<p>A chest.</p><p xml:lang="pt">Um t\u00f3rax.</p><p xml:lang="es">Un t\u00f3rax.</p>', "A chest."),
        ('<p xml:lang="pt">Um t\u00f3rax.</p><p xml:lang="es">Un t\u00f3rax.</p>', "Um t\u00f3rax."),
        ('<title>A chest.</title><p xml:lang="en">Its left side.</p>', "A chest. Its left side."),
    ],
)
def test_what_stays_of_a_caption(inner: str, caption: str) -> None:
    language = "" if "title" in inner or 'lang="pt">Um t\u00f3rax.</p><p' in inner else 'xml:lang="en"'
    attributes = language if not inner.startswith('<p xml:lang="pt"') else ""
    assert said(f"<caption>{inner}</caption>", FIGURE_1, attributes) == ("Figure 1", caption)


def test_images_with_captions_outside_figures() -> None:
    found = figures(
        '<p>x</p><graphic id="g1" xlink:href="a"><label>Figure 1</label><caption><p>A chest.</p></caption></graphic>'
        '<p>See <xref ref-type="fig" rid="g1">Fig. 1</xref>.<graphic xlink:href="b"/></p>'
        '<alternatives><graphic xlink:href="c.tif"/><graphic xlink:href="c.jpg"><caption><p>A knee.</p></caption></graphic>'
        "</alternatives><table-wrap><graphic><caption><p>A table.</p></caption></graphic></table-wrap>"
        '<fig-group><label>Figure 2</label><caption><p>Heads.</p></caption><graphic xlink:href="d"/><graphic xlink:href="e"/>'
        "</fig-group>"
    )
    assert [(f.id, f.label, f.caption, [g.href for g in f.graphics]) for f in found] == [
        ("g1", "Figure 1", "A chest.", ["a"]),
        (None, None, "A knee.", ["c.tif", "c.jpg"]),
        (None, None, None, ["d"]),
        (None, None, None, ["e"]),
    ]
    assert [p.text for p in found[0].references.paragraphs] == ["See Fig. 1."]
    assert [f.group_caption for f in found] == [None, None, "Heads.", "Heads."]


def test_captions_of_the_images_of_a_figure() -> None:
    (found,) = figures(
        '<fig><caption><p>A patient.</p></caption><graphic xlink:href="a"><label>A</label><caption><p>The chest.</p></caption>'
        '</graphic><graphic xlink:href="b"/></fig>'
    )
    assert found.caption == "A patient." and [g.caption for g in found.graphics] == ["The chest.", None]


def test_groups_in_groups_and_figures_in_figures() -> None:
    found = figures(
        "<fig-group><caption><p>All.</p></caption><fig-group><caption><p>Some.</p></caption><fig/></fig-group></fig-group>"
        "<fig><label>Figure 2</label><caption><p>Outer.</p></caption>"
        "<fig><label>(b)</label><caption><p>Inner.</p></caption></fig>"
        "<fig><label>Figure 2, supplement</label><caption><p>More.</p></caption></fig></fig>"
    )
    assert [f.group_caption for f in found] == ["All. Some.", None, "Outer.", None]


def test_floats_of_the_oldest_dtds() -> None:
    xml = "<article><body/><floats-wrap><fig><caption><p>A chest.</p></caption></fig></floats-wrap></article>"
    (found,) = parse_article(xml.encode(), "a.xml").figures
    assert found.in_floats_group and found.caption == "A chest."


@pytest.mark.parametrize(("own", "other", "translated"), [("en", "pt", [False, True]), ("pt", "en", [True, False])])
def test_translations_of_figures(own: str, other: str, translated: list[bool]) -> None:
    figure = '<fig><caption><p>x</p></caption><graphic xlink:href="a"/></fig>'
    xml = (
        (
            f'<article xmlns:xlink="http://www.w3.org/1999/xlink" xml:lang="{own}"><body>{figure}</body>'
            f'<sub-article article-type="translation" xml:lang="{other}"><body>{figure}</body></sub-article>'
            f'<sub-article article-type="reply"><body>{figure.replace("a", "b")}</body></sub-article></article>'
        )
        .replace("<cbption>", "<caption>")
        .replace("</cbption>", "</caption>")
    )
    found = parse_article(xml.encode(), "a.xml").figures
    assert [f.is_translation for f in found][:2] == translated


def test_whose_figure_it_is_by_what_stands_round_it() -> None:
    licence = '<permissions><license xlink:href="https://creativecommons.org/licenses/by-nc/4.0/"/></permissions>'
    found = figures(
        f"<fig-group>{licence}<fig/></fig-group><fig><graphic>{licence}</graphic></fig><fig/>"
        f"<sub-article><front-stub>{licence}</front-stub><body><fig/></body></sub-article>"
        "<fig-group><caption><p>Courtesy of A. Smith.</p></caption><fig><caption><p>A chest.</p></caption></fig></fig-group>"
        "<fig><graphic><caption><p>Reprinted from [3].</p></caption></graphic></fig>"
    )
    assert [f.license and f.license.code for f in found] == ["CC BY-NC", "CC BY-NC", None, "CC BY-NC", None, None]
    assert [f.taken_from for f in found] == [None] * 4 + ["Courtesy of A. Smith.", "Reprinted from [3]."]


def test_long_captions_in_time() -> None:
    start = time.perf_counter()
    figures("<fig><caption>" + '<p xml:lang="en">a</p><p xml:lang="pt">b</p>' * 10_000 + "</caption></fig>")
    figures("<alternatives>" + "<graphic><caption><p>a</p></caption></graphic>" * 5_000 + "</alternatives>")
    figures(f"<fig-group><caption><p>{'word ' * 200_000}</p></caption>{'<fig/>' * 2_000}</fig-group>")
    assert time.perf_counter() - start < 30, "3 s on a machine at rest"
