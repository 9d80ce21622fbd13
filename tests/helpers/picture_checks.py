"""What is measured of pictures in articles: how sure panels are found, and how far the looks of pictures are apart."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.pmc.panels.compound import match_panels

Places = Mapping[str, list[float]]  # label -> left, top, right, bottom in shares of the figure


def overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return width * height / (area - width * height)


def offered_panels(articles: Path, truth: Mapping[str, Places]) -> tuple[int, int, int]:
    """Figures with panels offered, panels offered, and how many of these are right, in all figures of a folder of articles.

    truth: "PMC id and version/file" -> the places of the figure's panels.
    """
    figures = offered = right = 0
    for article in json.loads((articles / "expected.json").read_text(encoding="utf-8"))["articles"]:
        for entry in article["figures"]:
            name = entry["graphics"][0]["media"] if entry["graphics"] else None
            if name is None:
                continue
            image = Image.open(articles / "cloud" / article["id"] / name).convert("RGB")
            found = match_panels(image, entry.get("caption_if_mathml_text_kept") or entry["caption"] or "")
            places = truth.get(f"{article['id']}/{name}", {})
            figures += bool(found)
            offered += len(found)
            for panel in found:
                assert 0 <= panel.box[0] < panel.box[2] <= image.width and 0 <= panel.box[1] < panel.box[3] <= image.height
                share = tuple(value / side for value, side in zip(panel.box, image.size * 2, strict=True))
                right += overlap(share, tuple(places.get(panel.label, (0, 0, 0, 0)))) >= 0.5
    return figures, offered, right


def distances_of_looks(paths: list[Path]) -> tuple[list[int], list[int]]:
    """Bits between the looks of pictures and of their small, strongly compressed copies: of the same picture, of all others."""
    from biomedclip_jax.data.pmc.build._pictures import make_picture

    looks, copies = [], []
    for path in paths:
        picture = make_picture(path.read_bytes(), path.name, 512, 32)
        image = Image.open(io.BytesIO(picture.jpeg))
        looks.append(picture.look)
        copy = image.resize((round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        copy.save(out, "JPEG", quality=60)
        copies.append(make_picture(out.getvalue(), path.name, 512, 32).look)
    distance = np.bitwise_count(np.stack(looks)[:, None] ^ np.stack(copies)[None]).sum(axis=-1).astype(int)
    same = np.eye(len(looks), dtype=bool)
    return distance[same].tolist(), distance[~same].tolist()
