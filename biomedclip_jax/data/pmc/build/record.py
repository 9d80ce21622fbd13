"""What a build stores: its shards, and a record for each image-caption pair.

Split and shard of an article are a function of its PMC id alone, so that no article straddles two.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from biomedclip_jax.data._tfds_write import file_name

DATASET = "pmc_figures"
VERSION = "1.0.0"
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
    """The number of shards of each split, if the first has `train_shards`: about equally long ones, at least one each."""
    first = next(iter(proportions.values()))
    return {split: max(1, round(train_shards * share / first)) for split, share in proportions.items()}


def shard_of(article: str, proportions: Mapping[str, float], shards: Mapping[str, int]) -> ShardId:
    """The shard of an article. article: the PMC id without version, or whatever names an article that has none.

    proportions: shares of the splits, which need not add up to 1. shards: the number of shards of each split.
    """
    digest = hashlib.sha256(article.encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64 * sum(proportions.values())
    last = ""
    for split, share in proportions.items():
        if share > 0:
            last = split
            if position < share:
                break
            position -= share
    return ShardId(last, int.from_bytes(digest[8:16], "big") % shards[last], shards[last])


@dataclass(frozen=True)
class Record:
    """A record of a build; its fields are the features of `record_features`. Texts are "", numbers 0 where unknown."""

    image: bytes  # JPEG
    caption: str
    pair_id: str  # unique; a figure's second picture ends in "+2", its panel in "#A"
    pmcid: str
    pmid: str
    version: int
    year: int
    figure_id: str
    label: str  # "Figure 1."
    license: str
    citation: str  # for attribution
    references: tuple[str, ...]  # paragraphs that mention the figure
    width: int  # of the original file, in pixels
    height: int
    in_sub_article: bool
    figure_type: str
    panel: str = ""  # "A" where the pair is one part of a compound figure

    def example(self) -> Mapping[str, Any]:
        """The record as `tfds_write.Encoder` takes it."""
        return vars(self) | {"references": list(self.references)}

    def of_panel(self, label: str, caption: str, image: bytes, size: tuple[int, int]) -> "Record":
        """The record of a panel of this figure. size: width and height before the panel was reduced."""
        width, height = size
        pair_id = f"{self.pair_id}#{label}"
        return replace(self, image=image, caption=caption, pair_id=pair_id, panel=label, width=width, height=height)


def shard_name(shard: ShardId) -> str:
    """The name of the file of a finished shard."""
    return file_name(DATASET, shard.split, shard.shard, shard.shards)


def record_features() -> Any:
    """The `tfds.features.FeaturesDict` of a `Record`."""
    from tensorflow_datasets import features

    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "caption": features.Text(),
            "pair_id": features.Text(),
            "pmcid": features.Text(),
            "pmid": features.Text(),
            "version": np.int64,
            "year": np.int64,
            "figure_id": features.Text(),
            "label": features.Text(),
            "license": features.Text(),
            "citation": features.Text(),
            "references": features.Sequence(features.Text()),
            "width": np.int64,
            "height": np.int64,
            "in_sub_article": np.bool_,
            "figure_type": features.Text(),
            "panel": features.Text(),
        }
    )
