"""Figures with several pictures, licences of their own, and panels."""

from dataclasses import dataclass, field
from io import BytesIO

import pytest
from helpers.pmc_corpus import jpeg, picture
from PIL import Image, ImageDraw, ImageFont

from biomedclip_jax.data.pmc.build.pairs import Filters, Pair, Reject, pairs_of_article
from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.errors import UserError

pytest.importorskip("imagehash", reason="needs: pip install 'biomedclip_jax[beam]'")

ARTICLE = """<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
<article-id pub-id-type="pmcid">PMC5</article-id>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions>
</article-meta></front><body>{}</body></article>"""


@dataclass
class OneArticle:
    """A source with one article in memory."""

    body: str
    files: dict[str, bytes] = field(default_factory=dict)

    def open(self, key: str) -> ArticleFiles:
        if key != "PMC5":
            raise UserError(f"{key}: not here")
        xml = ARTICLE.format(self.body).encode()
        return ArticleFiles("PMC5.1", "PMC5.1/PMC5.1.xml", xml, None, tuple(self.files), self.files.__getitem__)

    def keys(self):
        yield "PMC5"

    def version(self, key: str) -> str:
        return key


def items(body: str, files: dict[str, bytes], filters: Filters | None = None, key: str = "PMC5") -> list[Pair | Reject]:
    return pairs_of_article(OneArticle(body, files), key, filters or Filters())


def test_a_figure_with_several_pictures() -> None:
    body = """<fig id="F1"><caption><p>Two scans of a chest.</p></caption>
    <graphic xlink:href="a"/><graphic xlink:href="b"/></fig>
    <fig id="F2"><caption><p>One picture in two forms.</p></caption>
    <alternatives><graphic xlink:href="c.tif"/><graphic xlink:href="c.jpg"/></alternatives></fig>"""
    files = {"a.jpg": jpeg(picture(1)), "b.jpg": jpeg(picture(2)), "c.jpg": jpeg(picture(3)), "c.tif": b"never read"}
    found = items(body, files)
    assert [item.record.pair_id for item in found if isinstance(item, Pair)] == ["PMC5_F1", "PMC5_F1+2", "PMC5_F2"]
    assert [item.picture.jpeg for item in found if isinstance(item, Pair)] == [files[n] for n in ("a.jpg", "b.jpg", "c.jpg")]


def test_a_picture_taken_from_elsewhere_is_not_under_the_articles_licence() -> None:
    body = """<fig id="F1"><caption><p>Ours, a chest X-ray.</p></caption><graphic xlink:href="a.jpg"/></fig>
    <fig id="F2"><caption><p>Reproduced with permission of Elsevier.</p></caption><graphic xlink:href="b.jpg"/>
    <permissions><copyright-statement>Copyright Elsevier, reproduced with permission.</copyright-statement>
    <license><license-p>All rights reserved.</license-p></license></permissions></fig>"""
    files = {"a.jpg": jpeg(picture(1)), "b.jpg": jpeg(picture(2))}
    first, second = items(body, files)
    assert isinstance(first, Pair) and first.record.license == "CC BY"
    assert isinstance(second, Reject) and second.reason == "taken over from elsewhere"
    _, second = items(body, files, Filters(licenses=None))
    assert isinstance(second, Pair) and second.record.license == ""


def test_a_caption_that_says_whose_the_picture_is() -> None:
    body = """<fig id="F1"><caption><p>Brain MRI, normal. Reprinted with permission from Springer Nature.</p></caption>
    <graphic xlink:href="a.jpg"/></fig>
    <fig id="F2"><caption><p>Brain MRI, normal. Adapted from Smith et al. (2010) under CC BY-NC 4.0.</p></caption>
    <graphic xlink:href="a.jpg"/></fig>
    <fig id="F3"><caption><p>Brain MRI, normal. Adapted from Smith et al. (2010) under CC BY-SA 4.0.</p></caption>
    <graphic xlink:href="a.jpg"/></fig>
    <fig id="F4"><caption><p>Brain MRI, normal. Shown with the written permission of the patient.</p></caption>
    <graphic xlink:href="a.jpg"/></fig>
    <fig id="F5"><caption><p>Brain MRI, normal.</p></caption><attrib>Courtesy of A. Smith.</attrib>
    <graphic xlink:href="a.jpg"/></fig>
    <fig id="F6"><caption><p>Brain MRI, normal. Reprinted with permission.</p></caption><graphic xlink:href="a.jpg"/>
    <permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions></fig>"""
    found = items(body, {"a.jpg": jpeg(picture(1))})
    assert [item.reason if isinstance(item, Reject) else item.record.license for item in found] == [
        "taken over from elsewhere",
        "licence not wanted",
        "CC BY-SA",
        "CC BY",
        "taken over from elsewhere",
        "CC BY",
    ]
    assert isinstance(found[0], Reject) and found[0].detail == "Reprinted with permission from Springer Nature."
    assert all(isinstance(item, Pair) for item in items(body, {"a.jpg": jpeg(picture(1))}, Filters(licenses=None)))


def captions(body: str) -> list[str]:
    found = items(body, {"a.jpg": jpeg(picture(1)), "b.jpg": jpeg(picture(2))})
    return [item.record.caption if isinstance(item, Pair) else item.reason for item in found]


def test_a_groups_caption_stands_before_those_of_its_panels() -> None:
    body = """<fig-group><label>Figure 1</label><caption><title>MRI of the knee.</title></caption>
    <fig id="F1"><label>(a)</label><caption><p>Sagittal.</p></caption><graphic xlink:href="a.jpg"/></fig>
    <fig id="F2"><label>(b)</label><graphic xlink:href="b.jpg"/></fig></fig-group>"""
    assert captions(body) == ["MRI of the knee. Sagittal.", "MRI of the knee."]
    body = """<fig-group><caption><p>Scans.</p></caption><fig><caption><p>Scans. Left and right lung.</p></caption>
    <graphic xlink:href="a.jpg"/></fig></fig-group>"""
    assert captions(body) == ["Scans. Left and right lung."], "said once"
    body = """<fig id="F1"><label>Figure 1</label><caption><p>MRI of the knee.</p></caption>
    <fig id="F1a"><label>(a)</label><caption><p>Sagittal.</p></caption><graphic xlink:href="a.jpg"/></fig></fig>"""
    assert captions(body) == ["no image named", "MRI of the knee. Sagittal."]


def test_each_image_of_a_figure_has_its_own_caption_too() -> None:
    body = """<fig id="F1"><caption><p>Imaging of a patient.</p></caption>
    <graphic xlink:href="a.jpg"><caption><p>Chest CT.</p></caption></graphic>
    <alternatives><graphic xlink:href="b.tif"/><graphic xlink:href="b.jpg"><caption><p>Brain MRI.</p></caption></graphic>
    </alternatives></fig>"""
    assert captions(body) == ["Imaging of a patient. Chest CT.", "Imaging of a patient. Brain MRI."]


def test_a_translation_is_left_out() -> None:
    body = """<fig id="F1"><caption><p>Chest radiograph with effusion.</p></caption><graphic xlink:href="a"/></fig></body>
    <sub-article article-type="translation" xml:lang="pt"><body><fig id="F1pt"><caption><p>Radiografia de t\u00f3rax.</p>
    </caption><graphic xlink:href="a"/></fig></body></sub-article><body>"""
    assert captions(body) == ["Chest radiograph with effusion.", "translation of another figure"]


def test_a_group_lends_its_caption() -> None:
    body = """<fig-group><caption><title>Chest X-rays of one patient.</title></caption>
    <fig id="F1"><graphic xlink:href="a.jpg"/></fig></fig-group>"""
    (pair,) = items(body, {"a.jpg": jpeg(picture(1))})
    assert isinstance(pair, Pair) and pair.record.caption == "Chest X-rays of one patient."


def test_an_article_that_fails_is_one_reject() -> None:
    (absent,) = items("", {}, key="PMC6")
    assert absent == Reject("article", "cannot be read", "PMC6", detail="PMC6: not here")
    (broken,) = items("<fig></article>", {})
    assert isinstance(broken, Reject) and (broken.kind, broken.reason) == ("article", "cannot be read")


def test_panels_are_pairs_of_their_own() -> None:
    """Two scans side by side, marked A and B."""
    figure = Image.new("RGB", (900, 440), "white")
    font = ImageFont.load_default(size=36)
    for i, letter in enumerate("AB"):
        figure.paste(picture(i, 380, 340), (30 + 450 * i, 70))
        ImageDraw.Draw(figure).text((30 + 450 * i, 15), letter, fill="black", font=font)
    caption = "Scans of one patient. (A) Chest X-ray in frontal view. (B) Head CT in axial plane."
    body = f'<fig id="F1"><caption><p>{caption}</p></caption><graphic xlink:href="a.jpg"/></fig>'
    (whole,) = items(body, {"a.jpg": jpeg(figure, 95)}, Filters(panels=True))
    assert isinstance(whole, Pair) and whole.record.caption == caption
    assert [panel.pair_id for panel in whole.panels] == ["PMC5_F1#A", "PMC5_F1#B"]
    for i, panel in enumerate(whole.panels):
        assert ("Chest X-ray" in panel.caption) == (i == 0) and ("Head CT" in panel.caption) == (i == 1)
        width, height = Image.open(BytesIO(panel.image)).size
        assert 340 <= width <= 460 and 330 <= height <= 440
        assert panel.panel == "AB"[i] and panel.license == "CC BY"


def test_an_image_outside_figures_is_a_reject() -> None:
    (found,) = items('<p>Seen: <graphic xlink:href="a"/> here</p>', {"a.jpg": jpeg(picture(1))})
    assert isinstance(found, Reject)
    assert (found.kind, found.reason, found.article, found.file) == ("picture", "image outside figures", "PMC5.1", "a")
