"""Small articles in the layout of PMC's cloud, each with something that a build must notice."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

XML = """<?xml version="1.0"?>
<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="research-article"><front><article-meta>
<article-id pub-id-type="pmcid">{pmcid}</article-id><article-id pub-id-type="pmid">{pmid}</article-id>
<pub-date><year>{year}</year></pub-date></article-meta></front>
<body><sec><title>Results</title><p>The scan (<xref ref-type="fig" rid="F1">Fig. 1</xref>) shows it.</p>{figures}</sec></body>
</article>"""
FIGURE = """<fig id="{id}"><label>Figure {number}.</label><caption><p>{caption}</p></caption>
<graphic xlink:href="{href}"/></fig>"""


def picture(seed: int, width: int = 180, height: int = 120) -> Image.Image:
    """Blobs of all sizes, other ones for each seed."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (2 * k, 3 * k, 3), dtype=np.uint8)).resize((width, height)), float
        )
        for k in (2, 6, 20)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_article(root: Path, number: int, files: dict[str, bytes], captions: list[str], **facts: Any) -> None:
    """An article `PMC<number>.<version>` with a figure for each file. facts: entries of the metadata."""
    pmcid, version = f"PMC{number}", facts.get("version", 1)
    key = f"{pmcid}.{version}"
    names = list(files)
    figures = "".join(
        FIGURE.format(id=f"F{i}", number=i, caption=caption, href=name)
        for i, (name, caption) in enumerate(zip(names, captions, strict=True), 1)
    )
    xml = XML.format(pmcid=pmcid, pmid=number % 7_000_000, year=2_000 + number % 20, figures=figures).encode()
    folder = root / key
    folder.mkdir(parents=True)
    (folder / f"{key}.xml").write_bytes(xml)

    def address(name: str, data: bytes) -> str:
        return f"s3://pmc-oa-opendata/{key}/{name}?md5={hashlib.md5(data).hexdigest()}"

    for name, data in files.items():
        if data:
            (folder / name).write_bytes(data)
    metadata = {
        "pmcid": pmcid,
        "version": version,
        "pmid": number % 7_000_000,
        "title": f"Article {number}",
        "citation": f"Journal. {number}",
        "is_pmc_openaccess": True,
        "is_manuscript": False,
        "is_historical_ocr": False,
        "is_retracted": False,
        "license_code": "CC BY",
        "xml_url": address(f"{key}.xml", xml),
        "media_urls": [address(name, data) for name, data in files.items() if data],
    } | facts
    text = json.dumps(metadata)
    (folder / f"{key}.json").write_text(text)
    (root / "metadata").mkdir(exist_ok=True)
    (root / "metadata" / f"{key}.json").write_text(text)


def write_corpus(root: Path, articles: int = 12) -> None:
    """`articles` ordinary ones of two figures each, and one for each thing that is to be left out."""
    for i in range(articles):
        files = {f"a{i}-g{j}.jpg": jpeg(picture(100 * i + j)) for j in (1, 2)}
        write_article(root, 7_000_000 + i, files, [f"Chest X-ray of patient {i}, frontal view.", f"A bar chart of dose {i}."])
    said = ["A caption of this picture."]
    write_article(root, 8_000_001, {"x.jpg": jpeg(picture(1))}, said, is_retracted=True)
    write_article(root, 8_000_002, {"x.jpg": jpeg(picture(2))}, said, is_historical_ocr=True)
    write_article(root, 8_000_003, {"x.jpg": jpeg(picture(3))}, said, license_code="CC BY-NC")
    write_article(root, 8_000_004, {"copy.jpg": jpeg(picture(101))}, said)  # the file of article 1
    write_article(
        root, 8_000_005, {"like.jpg": jpeg(picture(202).resize((150, 100)), 70)}, said
    )  # looks like article 2's second
    write_article(root, 8_000_006, {"gone.jpg": b"", "page.jpg": b"<html>404</html>"}, said * 2)
    write_article(root, 8_000_007, {"tiny.jpg": jpeg(picture(7, 20, 20)), "cut.jpg": jpeg(picture(8))[:700]}, said * 2)
    write_article(root, 8_000_008, {"e.jpg": jpeg(picture(9)), "s.jpg": jpeg(picture(10))}, ["", "Two words"])
    write_article(root, 8_000_009, {}, [])
    folder = root / "PMC8000010.1"
    folder.mkdir()
    (folder / "PMC8000010.1.xml").write_bytes(b"<article><body><fig></article>")
