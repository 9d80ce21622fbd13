"""What was found in an article, compared with what is in it, field by field (`expected.json`, see `jats_writer.py`)."""

import re
from collections.abc import Collection
from typing import Any

from lxml import etree

from biomedclip_jax.data.pmc.jats.article import Article, License
from biomedclip_jax.data.pmc.jats.figure_files import resolve

_PLACE = ("index", "in_sub_article", "in_floats_group", "fig_group", "nested_in_fig")


def marked_figures(xml: bytes) -> frozenset[int]:
    """The figures, by their position in the document, whose captions hold <sup>, <sub> or formulas: how those are written
    is the package's own choice, which the truth of real articles does not know."""
    root = etree.fromstring(xml, etree.XMLParser(recover=True))
    figures = [e for e in root.iter() if isinstance(e.tag, str) and etree.QName(e).localname == "fig"]
    names = "sup", "sub", "math", "tex-math"
    return frozenset(
        position
        for position, figure in enumerate(figures)
        if any(
            isinstance(e.tag, str) and etree.QName(e).localname in names
            for caption in figure.iterchildren("{*}caption")
            for e in caption.iter()
        )
    )


def without_marks(xml: bytes) -> bytes:
    """The article without formulas, and with superscripts and subscripts as if they stood on the line."""
    xml = re.sub(rb"<((?:\w+:)?(?:math|tex-math))\b(?:[^>]*/>|.*?</\1>)", b"", xml, flags=re.DOTALL)
    return re.sub(rb"</?(?:\w+:)?su[bp](?=[\s>/])[^>]*>", b"", xml)


def without_signs(text: str | None) -> str:
    """A text without what tells powers, indices and fractions: signs, parentheses, spaces, invisible operators."""
    return re.sub(r"[\s^_()/\u2061\u2062]", "", text or "")


def compare_article(found: Article, expected: dict[str, Any], formulas: bool, marked: Collection[int] = ()) -> None:
    """formulas: whether the text of formulas was kept. marked: figures whose captions are compared `without_signs`."""
    assert (found.doi, found.title, found.article_type) == (expected["doi"], expected["title"], expected["article_type"])
    assert found.is_retracted is expected["is_retracted"]
    licence = expected["licence"]
    assert found.license == License(licence["code"], licence["url"], licence["declared_in"], licence["text"])
    assert len(found.figures) == len(expected["figures"]) == expected["n_figures"]
    for ours, theirs in zip(found.figures, expected["figures"], strict=True):
        for key in ("id", "label", *_PLACE):
            assert getattr(ours, key) == theirs[key], key
        with_formulas = theirs.get("caption_if_mathml_text_kept") if formulas else None
        assert _equal(ours.caption, with_formulas or theirs["caption"], ours.index in marked)
        if not with_formulas and ours.index not in marked:
            assert ours.caption_title == theirs["caption_title"]
            assert list(ours.caption_paragraphs) == theirs["caption_paragraphs"]
        assert [
            {"href": g.href, "media": resolve(g.href, expected["media"]), "in_alternatives": g.in_alternatives}
            for g in ours.graphics
        ] == theirs["graphics"]
        references = theirs["references"]
        assert ours.references.xrefs == references["n_xrefs"]
        assert ours.references.outside_paragraphs == references["n_xrefs_outside_paragraphs"]
        assert [p.where for p in ours.references.paragraphs] == [p["where"] for p in references["paragraphs"]]
        assert [p.starts for p in ours.references.paragraphs] == [p["starts"] for p in references["paragraphs"]]
        if not formulas:
            assert all(p.text.startswith(p.starts) for p in ours.references.paragraphs)


def _equal(ours: str | None, theirs: str | None, marked: bool) -> bool:
    return without_signs(ours) == without_signs(theirs) if marked else ours == theirs


def compare_what_the_writer_knows(found: Article, expected: dict[str, Any]) -> None:
    """What `expected.json` of written articles says beyond that of the real ones. Formulas are kept."""
    for ours, theirs in zip(found.figures, expected["figures"], strict=True):
        for key in ("attrib", "group_label", "group_caption"):
            assert getattr(ours, key) == theirs[key], key
        assert (ours.license is not None) is theirs["has_own_licence"]
        assert ours.license is None or (ours.license.code, ours.license.declared_in) == (None, "license text")


def compare_line(line: dict[str, Any], article: dict[str, Any], marked: Collection[int] = ()) -> None:
    """A line of figures.jsonl that was made with the cloud's metadata; the text of formulas is kept.

    marked: figures whose captions are compared `without_signs`.
    """
    assert line["pmcid"] == f"PMC{line['pmc']}" == article["pmcid"]
    assert line["location"] == article["xml"].removeprefix("cloud/")
    assert line["license"] == article["license_code_in_metadata"] and line["license_source"] == "metadata"
    assert line["license_url"] == article["licence"]["url"]
    for name in ("version", "pmid", "doi", "title", "article_type", "is_retracted"):
        assert line[name] == article[name], name
    for figure, truth in zip(line["figures"], article["figures"], strict=True):
        assert figure["fig_id"] == truth["id"] and figure["fig_label"] == truth["label"]
        said = truth.get("caption_if_mathml_text_kept", truth["caption"])
        assert _equal(figure["fig_caption"], said, figure["index"] in marked)
        if "caption_if_mathml_text_kept" not in truth and figure["index"] not in marked:
            assert figure["caption_title"] == truth["caption_title"]
            assert figure["caption_paragraphs"] == truth["caption_paragraphs"]
        assert figure["graphics"] == truth["graphics"]
        for name in _PLACE:
            assert figure[name] == truth[name], name
        # the writer of articles says which of several forms is the picture; else each file is one
        pictures = truth.get("pictures", [graphic["media"] for graphic in truth["graphics"] if graphic["media"]])
        assert figure["pictures"] == pictures
        assert figure["graphic_ref"] == (f"{article['id']}/{pictures[0]}" if pictures else None)
        assert figure["pair_id"] == f"{article['pmid'] or article['pmcid']}_{truth['id'] or 'fig-' + str(truth['index'])}"
        references = dict(figure["references"])
        references["paragraphs"] = [
            {name: value for name, value in paragraph.items() if name in ("where", "starts")}
            for paragraph in references["paragraphs"]
        ]
        assert references == truth["references"]


def compare_packages(in_cloud: list[dict[str, Any]], in_packages: list[dict[str, Any]]) -> None:
    """Lines of figures.jsonl: an article in its old package says the same as in the cloud, but for the files' names."""
    cloud = {line["pmcid"]: line for line in in_cloud}
    for line in in_packages:
        other = cloud[line["pmcid"]]
        assert line["license_source"] == "xml" and line["license"] == other["license"] and line["version"] is None
        for figure, same in zip(line["figures"], other["figures"], strict=True):
            name = same["graphic_ref"].rpartition("/")[2]
            assert figure["pictures"] in ([name], [f"{name}.jpg"])
            assert figure["graphic_ref"] == f"{line['location'].rpartition('/')[0]}/{figure['pictures'][0]}"
            changed = ("graphic_ref", "pictures", "graphics")
            assert {k: v for k, v in figure.items() if k not in changed} == {k: v for k, v in same.items() if k not in changed}
