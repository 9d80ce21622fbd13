"""One image-caption pair as a build stores it."""

from typing import Any

import numpy as np

from biomedclip_jax.data.tfds_write import file_name
from biomedclip_jax.data.pmc.build.splits import Place

DATASET = "pmc_figures"
VERSION = "1.0.0"


def shard_name(place: Place) -> str:
    """The file of a shard."""
    return file_name(DATASET, place.split, place.shard, place.shards)


def record_features() -> Any:
    """`tfds.features.FeaturesDict` of a record."""
    from tensorflow_datasets import features

    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "caption": features.Text(),
            "pair_id": features.Text(),  # unique; a figure's second picture ends in "+2", its panel in "#A"
            "pmcid": features.Text(),
            "pmid": features.Text(),  # "" where there is none
            "version": np.int64,
            "year": np.int64,  # 0 where unknown
            "figure_id": features.Text(),
            "label": features.Text(),  # "Figure 1."
            "license": features.Text(),
            "citation": features.Text(),  # for attribution
            "references": features.Sequence(features.Text()),  # paragraphs that mention the figure
            "width": np.int64,  # of the original file
            "height": np.int64,
            "in_sub_article": np.bool_,
            "figure_type": features.Text(),
            "panel": features.Text(),  # "A" where the pair is one part of a compound figure, else ""
        }
    )
