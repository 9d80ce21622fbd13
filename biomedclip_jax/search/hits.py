"""What a search finds, and how it is told as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FIELDS = ("id", "image", "caption", "article", "license", "citation")  # what every hit has, where it is known


@dataclass(frozen=True)
class Hit:
    """An image that was found; of a search for groups (patients) the nearest image of the group.

    score: cosine with the query, from -1 to 1; of a group its own score. position: the row in the index. id: the image's
    name in it. image: path of its file, or what messages call it. caption, article, license, citation: "" where unknown.
    columns: all that is known besides. group: what the image belongs to; None where images were searched.
    images: how many images of the group were looked at, 1 where images were searched.
    """

    score: float
    position: int
    id: str
    image: str
    caption: str = ""
    article: str = ""
    license: str = ""
    citation: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    images: int = 1

    def record(self, rank: int) -> dict[str, Any]:
        """The hit for JSON: what is not known is None, and letters that are none in UTF-8 are written as \\x.. ."""
        known = {name: _written(getattr(self, name)) or None for name in FIELDS}
        found: dict[str, Any] = {"rank": rank, "score": round(self.score, 6), **known}
        found["columns"] = {_written(name): _written(text) for name, text in self.columns.items()}
        if self.group is not None:
            found |= {"group": _written(self.group), "images": self.images}
        return found


def make_hit(score: float, position: int, cells: Mapping[str, str], group: str | None = None, images: int = 1) -> Hit:
    """Make the hit of a row of an index. cells: all its texts."""
    own = {name: cells.get(name, "") for name in FIELDS}
    columns = {name: text for name, text in cells.items() if name not in FIELDS}
    return Hit(float(score), position, columns=columns, group=group, images=images, **own)


def hits_record(query: str, kind: str, searched: int, hits: Sequence[Hit], error: str = "") -> dict[str, Any]:
    """One query with its hits for JSON. kind: text, image or like. searched: images that the filters left. error: why it
    could not be searched for.
    """
    told = [hit.record(rank) for rank, hit in enumerate(hits, 1)]
    found = {"query": _written(query), "kind": kind, "searched": searched, "hits": told}
    return found | {"error": _written(error)} if error else found


def _written(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
