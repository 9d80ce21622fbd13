"""One image-caption pair as a build stores it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from biomedclip_jax.data.pmc.build.splits import ShardId
from biomedclip_jax.data.tfds_write import file_name

DATASET = "pmc_figures"
VERSION = "1.0.0"


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
