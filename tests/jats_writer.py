"""Articles in JATS as publishers and PubMed Central write them, with pictures, and what a right reader finds in them.

An article is described in Python (`WrittenArticle`): its words, figures and files. The XML and the truth are both made of this
description in one walk, so the truth owes nothing to the package's parser. Words are kept in three forms (`Text`): as XML, as a
reader sees them without formulas, and with the characters of MathML.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from drawn_figures import Drawing
from PIL import Image

MATHML = "http://www.w3.org/1998/Math/MathML"
XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
ROOT = f'xmlns:mml="{MATHML}" {XLINK}'

# --- words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Words as XML, as they read without formulas, and as they read with MathML. mentions: the rid of each <xref> in them."""

    xml: str = ""
    plain: str = ""
    full: str = ""
    mentions: tuple[str, ...] = ()

    def __add__(self, other: "Words") -> "Text":
        other = text(other)
        return Text(self.xml + other.xml, self.plain + other.plain, self.full + other.full, self.mentions + other.mentions)

    def __radd__(self, other: str) -> "Text":
        return text(other) + self

    def line(self, formulas: bool = False) -> str:
        """As one line: any white space is one space."""
        return " ".join((self.full if formulas else self.plain).split())


Words = str | Text


def text(words: Words) -> Text:
    return words if isinstance(words, Text) else Text(escape(words), words, words)


def inline(name: str, words: Words, attributes: str = "") -> Text:
    """An element that changes nothing of what is read."""
    words = text(words)
    return Text(f"<{name}{attributes}>{words.xml}</{name}>", words.plain, words.full, words.mentions)


def italic(words: Words) -> Text:
    return inline("italic", words)


def bold(words: Words) -> Text:
    return inline("bold", words)


def sup(words: Words) -> Text:
    return inline("sup", words)


def sub(words: Words) -> Text:
    return inline("sub", words)


def link(address: str, words: Words) -> Text:
    return inline("ext-link", words, f' ext-link-type="uri" xlink:href="{address}"')


def mention(rid: str, words: Words, kind: str = "fig") -> Text:
    """A reference to one figure, or to several: "fig1 fig2"."""
    found = inline("xref", words, f' ref-type="{kind}" rid="{rid}"')
    return Text(found.xml, found.plain, found.full, (rid,))


def formula(mathml: str, shown: str, tex: str = "") -> Text:
    """An inline formula in MathML; with `tex` in both forms. shown: its characters, as a reader of MathML gets them."""
    math = f"<mml:math>{mathml}</mml:math>"
    if tex:
        math = f"<alternatives><tex-math>{escape(tex)}</tex-math>{math}</alternatives>"
    return Text(f"<inline-formula>{math}</inline-formula>", "", shown)


def tex_formula(tex: str) -> Text:
    """An inline formula in TeX only: nothing of it is read."""
    return Text(f"<inline-formula><tex-math>{escape(tex)}</tex-math></inline-formula>")


def image_formula(href: str) -> Text:
    """An inline formula that is a picture: nothing is read, and no figure has it."""
    return Text(f'<inline-formula><inline-graphic xlink:href="{href}"/></inline-formula>')


def unread(xml: str) -> Text:
    """A comment, a processing instruction, an id ..."""
    return Text(xml)


def written(xml: str, read: str) -> Text:
    """Anything else: an entity, a break ..."""
    return Text(xml, read, read)


def words_of(*parts: Words) -> Text:
    return sum(parts[1:], text(parts[0]))


# --- figures and their surroundings ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A <graphic>. file: the name that `href` means; None where no such file came with the article.

    shown: whether the file is a picture of the figure, not just another form of one.
    """

    href: str
    file: str | None = None
    drawing: Drawing | None = None
    shown: bool = True
    attributes: str = ""


@dataclass(frozen=True)
class Figure:
    """A <fig>. A tuple among `pictures` is one <alternatives>. panels: labels of the parts that the caption has, in order."""

    id: str | None
    label: Words | None = None
    title: Words | None = None
    paragraphs: tuple[Words, ...] = ()
    pictures: tuple[Picture | tuple[Picture, ...], ...] = ()
    panels: tuple[str, ...] = ()
    supplement: Words | None = None  # <supplementary-material> in the caption: what its own caption says
    supplement_in_paragraph: bool = True
    inner: tuple["Figure", ...] = ()
    attrib: Words | None = None
    own_licence: str | None = None  # <permissions>, with a licence that nobody knows
    doi: str = ""
    attributes: str = ""
    bare_caption: bool = False  # the one paragraph stands in the caption without <p>


@dataclass(frozen=True)
class Group:
    """A <fig-group>."""

    figures: tuple[Figure, ...]
    label: Words | None = None
    caption: Words | None = None


@dataclass(frozen=True)
class Paragraph:
    """Running text, with figures in its midst where a publisher puts them there."""

    words: Words
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Section:
    title: Words | None
    blocks: tuple["Block", ...]
    kind: str = "sec"


@dataclass(frozen=True)
class Table:
    """A table, also as an image; neither is a figure. cells, foot: mentions in them count, but are no running text."""

    id: str
    caption: Words
    cells: tuple[Words, ...]
    picture: Picture | None = None
    foot: Words | None = None


@dataclass(frozen=True)
class DisplayedFormula:
    """A formula of its own line that is an image."""

    picture: Picture


@dataclass(frozen=True)
class SupplementaryFile:
    id: str
    caption: Words


Block = Section | Paragraph | Figure | Group | Table | DisplayedFormula | SupplementaryFile


@dataclass(frozen=True)
class SubArticle:
    """A decision letter, an author's response ... kind: "sub-article" or "response"."""

    title: str
    blocks: tuple[Block, ...]
    kind: str = "sub-article"


@dataclass(frozen=True)
class Licence:
    """xml: of the statement as it stands in <article-meta>. The rest is what the statement says."""

    xml: str
    code: str
    url: str | None
    declared_in: str
    words: str


@dataclass(frozen=True)
class WrittenArticle:
    """id: PMC id and version. root: attributes of <article>. between: what stands between blocks. front: more of the front."""

    id: str
    title: Words
    body: tuple[Block, ...]
    licence: Licence
    doctype: str
    article_type: str = "research-article"
    doi: str | None = None
    pmid: str | None = None
    journal: str = "<journal-title-group><journal-title>Annals of Written Articles</journal-title></journal-title-group>"
    abstract: tuple[Block, ...] = ()
    back: tuple[Block, ...] = ()
    floats: tuple[Block, ...] = ()
    sub_articles: tuple[SubArticle, ...] = ()
    root: str = ROOT
    between: str = ""
    encoding: str = "utf-8"
    wrapper: str = "%s"
    prefix: str = ""  # of the elements' names
    package: str | None = None  # the XML's name in an old package, where the article comes as one, too
    package_suffix: str = ""  # what the package adds to the names of images
    unused: tuple[Picture, ...] = field(default=())  # files that no figure names

    @property
    def pmcid(self) -> str:
        return self.id.partition(".")[0]


# --- XML and truth --------------------------------------------------------------------------------------------------


class _Walk:
    """One walk through a description: what is written, and what is to be found in it."""

    def __init__(self, article: WrittenArticle) -> None:
        self.article = article
        self.figures: list[dict[str, Any]] = []
        self.pictures: list[Picture] = list(article.unused)
        self.xrefs: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.paragraphs: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.groups = 0
        self.where = "body"
        self.in_floats = False

    def blocks(self, blocks: Iterable[Block]) -> str:
        return "".join(self.article.between + self.block(block) for block in blocks)

    def block(self, block: Block) -> str:
        match block:
            case Section():
                title = f"<title>{self.beside(block.title)}</title>" if block.title is not None else ""
                return f"<{block.kind}>{title}{self.blocks(block.blocks)}</{block.kind}>"
            case Paragraph():
                return self.paragraph(block)
            case Figure():
                return self.figure(block, None)
            case Group():
                return self.group(block)
            case Table():
                return self.table(block)
            case DisplayedFormula():
                return f"<disp-formula>{self.graphic(block.picture)}</disp-formula>"
            case SupplementaryFile():
                caption = f"<caption><title>A file.</title><p>{self.beside(block.caption)}</p></caption>"
                return f'<supplementary-material id="{block.id}">{caption}</supplementary-material>'

    def beside(self, words: Words) -> str:
        """Words that are no running text: their mentions count, no paragraph is taken."""
        words = text(words)
        for rid in words.mentions:
            self.xrefs.update(rid.split())
            self.outside.update(rid.split())
        return words.xml

    def paragraph(self, block: Paragraph) -> str:
        words = text(block.words)
        for rid in words.mentions:
            self.xrefs.update(rid.split())
        for name in dict.fromkeys(name for rid in words.mentions for name in rid.split()):
            self.paragraphs[name].append({"where": self.where, "starts": words.line()[:80]})
        return f"<p>{words.xml}{''.join(self.figure(figure, None) for figure in block.figures)}</p>"

    def group(self, block: Group) -> str:
        self.groups += 1
        number = self.groups
        around = {"group_label": block.label and text(block.label).line(), "group_caption": None}
        xml = f"<label>{text(block.label).xml}</label>" if block.label else ""
        if block.caption:
            around["group_caption"] = text(block.caption).line(formulas=True)
            xml += f"<caption><p>{self.beside(block.caption)}</p></caption>"
        for figure in block.figures:
            xml += self.figure(figure, None, {"fig_group": number} | around)
        return f"<fig-group>{xml}</fig-group>"

    def table(self, block: Table) -> str:
        cells = "".join(f"<td>{self.beside(cell)}</td>" for cell in block.cells)
        inner = f"<table><thead><tr><th>Measured</th></tr></thead><tbody><tr>{cells}</tr></tbody></table>"
        if block.picture:
            inner = f"<alternatives>{self.graphic(block.picture)}{inner}</alternatives>"
        foot = ""
        if block.foot is not None:
            foot = f"<table-wrap-foot><fn><p>{self.beside(block.foot)}</p></fn></table-wrap-foot>"
        caption = f"<label>Table</label><caption><p>{self.beside(block.caption)}</p></caption>"
        return f'<table-wrap id="{block.id}">{caption}{inner}{foot}</table-wrap>'

    def graphic(self, picture: Picture) -> str:
        self.pictures.append(picture)
        attributes = f" {picture.attributes}" if picture.attributes else ""
        return f"<graphic{attributes} xlink:href={quoteattr(picture.href)}/>"

    def figure(self, figure: Figure, outer: str | None, group: dict[str, Any] | None = None) -> str:
        truth: dict[str, Any] = {
            "index": len(self.figures),
            "id": figure.id,
            "label": None if figure.label is None else text(figure.label).line(formulas=True),
            "caption": None,
            "caption_title": None,
            "caption_paragraphs": [],
            "in_sub_article": self.where == "sub-article",
            "in_floats_group": self.in_floats,
            "fig_group": None,
            "group_label": None,
            "group_caption": None,
            "nested_in_fig": outer,
            "attrib": None if figure.attrib is None else text(figure.attrib).line(formulas=True),
            "has_own_licence": figure.own_licence is not None,
            "caption_parts": list(figure.panels),
            **(group or {}),
        }
        self.figures.append(truth)
        attributes = (f' id="{figure.id}"' if figure.id is not None else "") + figure.attributes
        xml = f'<object-id pub-id-type="doi">{figure.doi}</object-id>' if figure.doi else ""
        if figure.label is not None:
            xml += f"<label>{text(figure.label).xml}</label>"
        xml += self.caption(figure, truth)
        xml += self.graphics(figure, truth)
        if figure.attrib is not None:
            xml += f"<attrib>{text(figure.attrib).xml}</attrib>"
        if figure.own_licence is not None:
            statement = f"<license><license-p>{figure.own_licence}</license-p></license>"
            xml += f"<permissions><copyright-statement>Copyright: its owner.</copyright-statement>{statement}</permissions>"
        for inner in figure.inner:
            xml += self.figure(inner, figure.id, group)
        return f"<fig{attributes}>{xml}</fig>"

    def caption(self, figure: Figure, truth: dict[str, Any]) -> str:
        if figure.title is None and not figure.paragraphs:
            return ""
        said = [*([figure.title] if figure.title is not None else []), *figure.paragraphs]
        plain, full = (" ".join(filter(None, (text(words).line(kept) for words in said))) for kept in (False, True))
        truth["caption"] = plain
        if full != plain:
            truth["caption_if_mathml_text_kept"] = full
        truth["caption_title"] = None if figure.title is None else text(figure.title).line()
        truth["caption_paragraphs"] = [line for words in figure.paragraphs if (line := text(words).line())]
        xml = f"<title>{self.beside(figure.title)}</title>" if figure.title is not None else ""
        mark = "%s" if figure.bare_caption else "<p>%s</p>"
        xml += "".join(self.article.between + mark % self.beside(words) for words in figure.paragraphs)
        if figure.supplement is not None:
            inner = f"<label>Source data</label><caption><title>{self.beside(figure.supplement)}</title></caption>"
            inner += '<media mimetype="application" xlink:href="source-data.csv"/>'
            inner = (
                f'<supplementary-material id="{figure.id}sdata"><object-id>10.0/s</object-id>{inner}</supplementary-material>'
            )
            xml += f"<p>{inner}</p>" if figure.supplement_in_paragraph else inner
        return f"<caption>{xml}{self.article.between}</caption>"

    def graphics(self, figure: Figure, truth: dict[str, Any]) -> str:
        xml, truth["graphics"], truth["pictures"] = "", [], []
        for entry in figure.pictures:
            forms = entry if isinstance(entry, tuple) else (entry,)
            for form in forms:
                alternative = isinstance(entry, tuple)
                truth["graphics"].append({"href": form.href, "media": form.file, "in_alternatives": alternative})
                if form.file and form.shown:
                    truth["pictures"].append(form.file)
            inner = "".join(map(self.graphic, forms))
            xml += f"<alternatives>{inner}</alternatives>" if isinstance(entry, tuple) else inner
        first = next((p for p in figure.pictures if isinstance(p, Picture) and p.drawing), None)
        truth["panels"] = first.drawing.places() if first is not None and first.drawing is not None else {}
        return xml

    def article_xml(self) -> str:
        article = self.article
        self.where = "abstract"
        abstract = f"<abstract>{self.blocks(article.abstract)}</abstract>" if article.abstract else ""
        self.where = "body"
        body = f"<body>{self.blocks(article.body)}</body>"
        self.where = "back"
        back = f"<back>{self.blocks(article.back)}<ref-list><ref><note><p>A book.</p></note></ref></ref-list></back>"
        self.where, self.in_floats = "floats-group", True
        floats = f"<floats-group>{self.blocks(article.floats)}</floats-group>" if article.floats else ""
        self.where, self.in_floats = "sub-article", False
        rest = ""
        for part in article.sub_articles:
            title = f"<front-stub><title-group><article-title>{part.title}</article-title></title-group></front-stub>"
            rest += f"<{part.kind}>{title}<body>{self.blocks(part.blocks)}</body></{part.kind}>"
        ids = f'<article-id pub-id-type="doi">{article.doi}</article-id>' if article.doi else ""
        ids += f'<article-id pub-id-type="pmid">{article.pmid}</article-id>' if article.pmid else ""
        title = f"<title-group><article-title>{text(article.title).xml}</article-title></title-group>"
        date = '<pub-date pub-type="epub"><year>2021</year></pub-date>'
        meta = f"<article-meta>{ids}{title}{date}{article.licence.xml}{abstract}</article-meta>"
        front = f"<front><journal-meta>{article.journal}</journal-meta>{meta}</front>"
        return f'<article article-type="{article.article_type}" {article.root}>{front}{body}{back}{floats}{rest}</article>'

    def references(self, name: str | None) -> dict[str, Any]:
        found = self.paragraphs[name] if name else []
        return {
            "n_xrefs": self.xrefs[name] if name else 0,
            "n_xrefs_outside_paragraphs": self.outside[name] if name else 0,
            "n_paragraphs": len(found),
            "n_paragraphs_without_sub_articles": sum(paragraph["where"] != "sub-article" for paragraph in found),
            "paragraphs": found,
        }


@dataclass(frozen=True)
class _Made:
    xml: bytes
    truth: dict[str, Any]
    pictures: tuple[Picture, ...]


@cache
def _make(article: WrittenArticle) -> _Made:
    walk = _Walk(article)
    xml = walk.article_xml()
    if article.prefix:
        xml = re.sub(r"<(/?)(?=[a-z][a-z-]*[\s/>])", rf"<\1{article.prefix}:", xml)
    figures = [figure | {"references": walk.references(figure["id"])} for figure in walk.figures]
    licence = article.licence
    truth = {
        "id": article.id,
        "pmcid": article.pmcid,
        "version": int(article.id.partition(".")[2]),
        "pmid": article.pmid,
        "doi": article.doi,
        "title": text(article.title).line(formulas=True),
        "article_type": article.article_type,
        "is_retracted": False,
        "xml": f"cloud/{article.id}/{article.id}.xml",
        "licence": {
            "code": licence.code,
            "url": licence.url,
            "declared_in": licence.declared_in,
            "text": " ".join(licence.words.split())[:300],
        },
        "license_code_in_metadata": licence.code,
        "n_figures": len(figures),
        "n_figures_with_media": sum(bool(figure["pictures"]) for figure in figures),
        "figures": figures,
        "media": {picture.file: {} for picture in walk.pictures if picture.file},
    }
    head = f'<?xml version="1.0" encoding="{article.encoding}"?>\n{article.doctype}\n'
    document = (head + article.wrapper % xml).encode(article.encoding, "xmlcharrefreplace")
    return _Made(document, truth, tuple(picture for picture in walk.pictures if picture.file))


def xml_of(article: WrittenArticle) -> bytes:
    return _make(article).xml


def truth_of(article: WrittenArticle) -> dict[str, Any]:
    """What is to be found in the article; `media` has only the names of the files."""
    return json.loads(json.dumps(_make(article).truth))


# --- files ----------------------------------------------------------------------------------------------------------


def _encoded(picture: Picture) -> bytes:
    """The image file; JPEG where the name does not say another format."""
    assert picture.drawing is not None and picture.file is not None, picture
    suffix = picture.file.rpartition(".")[2].lower()
    kind = {"png": "PNG", "tif": "TIFF", "gif": "GIF"}.get(suffix, "JPEG")
    out = io.BytesIO()
    picture.drawing.image().save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def _address(article: str, name: str, data: bytes) -> str:
    return f"s3://pmc-oa-opendata/{article}/{name}?md5={hashlib.md5(data, usedforsecurity=False).hexdigest()}"


def _write_package(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in ((f"{folder}/", b""), *((f"{folder}/{name}", data) for name, data in files.items())):
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_article(root: Path, article: WrittenArticle) -> dict[str, Any]:
    """The article under root/cloud in the layout of PMC's cloud service and, if it has one, its old package under
    root/packages. Returns the truth, with the facts of the files."""
    made, key = _make(article), article.id
    truth = truth_of(article)
    folder = root / "cloud" / key
    folder.mkdir(parents=True)
    files = {picture.file: _encoded(picture) for picture in made.pictures if picture.file}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        facts = {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode}
        truth["media"][name] = facts | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / f"{key}.xml").write_bytes(made.xml)
    metadata = {
        "pmcid": article.pmcid,
        "version": truth["version"],
        "pmid": article.pmid and int(article.pmid),
        "doi": article.doi,
        "title": truth["title"],
        "citation": f"Annals of Written Articles. 2021; {key}",
        "is_pmc_openaccess": True,
        "is_manuscript": False,
        "is_historical_ocr": False,
        "is_retracted": False,
        "license_code": article.licence.code,
        "xml_url": _address(key, f"{key}.xml", made.xml),
        "pdf_url": None,
        "text_url": None,
        "media_urls": [_address(key, name, data) for name, data in files.items()],
    }
    for place in (folder, root / "cloud" / "metadata"):
        place.mkdir(exist_ok=True)
        (place / f"{key}.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    if article.package:
        (root / "packages").mkdir(exist_ok=True)
        packed = {name + article.package_suffix: data for name, data in files.items()}
        _write_package(root / "packages" / f"{article.pmcid}.tar.gz", article.pmcid, {article.package: made.xml, **packed})
    return truth


def write_articles(root: Path, articles: Iterable[WrittenArticle]) -> Path:
    """All of them, and `expected.json` with what is to be found in them. Returns `root`."""
    truths = [write_article(root, article) for article in articles]
    (root / "expected.json").write_text(json.dumps({"articles": truths}, indent=1), encoding="utf-8")
    return root
