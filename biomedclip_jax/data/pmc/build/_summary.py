"""What a build holds and what it left out, in numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.data.pmc.build._shard import FinishedShard, ShardPairs
from biomedclip_jax.data.pmc.build.pairs import Reject


@dataclass(frozen=True)
class Summary:
    """What a build holds and what it left out: numbers of articles, pictures and pairs, and numbers by reason.

    pairs: of each split, panels included. panels: of all pairs. licenses: of pictures, before duplicates went.
    bytes: of all shards.
    """

    articles_seen: int
    articles_with_pictures: int
    articles_without_figures: int
    articles_rejected: dict[str, int]
    pictures_seen: int
    pictures_kept: int
    pictures_rejected: dict[str, int]
    pairs: dict[str, int]
    panels: int
    licenses: dict[str, int]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `summary.json` holds."""
        return {
            "articles": {
                "seen": self.articles_seen,
                "with pictures": self.articles_with_pictures,
                "without figures": self.articles_without_figures,
                "rejected": self.articles_rejected,
            },
            "pictures": {"seen": self.pictures_seen, "kept": self.pictures_kept, "rejected": self.pictures_rejected},
            "pairs": self.pairs,
            "of which panels": self.panels,
            "licenses of pictures before duplicates": self.licenses,
            "bytes": self.bytes,
        }


def summarize(
    states: Sequence[ShardPairs],
    finals: Sequence[FinishedShard],
    lengths: Mapping[str, Sequence[int]],
    duplicates: Sequence[Reject],
) -> Summary:
    """The counts of all shards together. lengths: records of each split's shards. duplicates: the rejects that came last."""
    counts = _sum(state.counts for state in states)
    rejected = _sum(state.rejected for state in states)
    rejected.update(f"{reject.kind}: {reject.reason}" for reject in duplicates)
    articles, pictures = (
        {name.removeprefix(kind): count for name, count in sorted(rejected.items()) if name.startswith(kind)}
        for kind in ("article: ", "picture: ")
    )
    kept = sum(state.pictures for state in states) - len(duplicates)
    without = counts["articles without figures"]
    return Summary(
        articles_seen=counts["articles"],
        articles_with_pictures=counts["articles"] - without - sum(articles.values()),
        articles_without_figures=without,
        articles_rejected=articles,
        pictures_seen=kept + sum(pictures.values()),
        pictures_kept=kept,
        pictures_rejected=pictures,
        pairs={split: sum(shards) for split, shards in lengths.items()},
        panels=sum(final.panels for final in finals),
        licenses=dict(sorted(_sum(state.licenses for state in states).items())),
        bytes=sum(final.bytes for final in finals),
    )


def _sum(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total
