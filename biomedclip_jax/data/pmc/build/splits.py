"""Which split and shard an article belongs to: a function of its PMC id alone, so that no article straddles two."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

# PMC-15M (BiomedCLIP, section "Data"): pairs for training, validation and test
PMC_15M = {"train": 13_900_000, "validation": 13_600, "test": 726_000}
ARTICLES_PER_SHARD = 1_000  # about 3,000 pairs and 120 MB at 512 pixels


@dataclass(frozen=True, order=True)
class ShardId:
    """A shard of a split, which is the unit of work of a build: number `shard` (from 0) of `shards`."""

    split: str
    shard: int
    shards: int

    @property
    def name(self) -> str:
        """The name of its files while the build is made: "train-00000-of-00009"."""
        return f"{self.split}-{self.shard:05d}-of-{self.shards:05d}"


def shard_counts(proportions: Mapping[str, float], train_shards: int) -> dict[str, int]:
    """The number of shards of each split, if the first has `train_shards`: about equally long ones, at least one each.
    """
    first = next(iter(proportions.values()))
    return {split: max(1, round(train_shards * share / first)) for split, share in proportions.items()}


def shard_of(article: str, proportions: Mapping[str, float], shards: Mapping[str, int]) -> ShardId:
    """The shard of an article. article: the PMC id without version, or whatever names an article that has none.

    proportions: shares of the splits, which need not add up to 1. shards: the number of shards of each split.
    """
    digest = hashlib.sha256(article.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64 * sum(proportions.values())
    last = ""
    for split, share in proportions.items():
        if share > 0:
            last = split
            if position < share:
                break
            position -= share
    return ShardId(last, int.from_bytes(digest[8:16], "big") % shards[last], shards[last])
