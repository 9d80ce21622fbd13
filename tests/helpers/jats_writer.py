"""Articles in JATS as publishers and PubMed Central write them, with pictures, and what a right reader finds in them.

XML and truth are made of a description (`jats_description.py`) in one walk, so the truth owes nothing to the package's parser.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image

from helpers.jats_description import (
    Block,
    DisplayedFormula,
    Figure,
    Group,
    Paragraph,
    Picture,
    Section,
    SupplementaryFile,
    Table,
    Words,
    WrittenArticle,
    text,
)


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
