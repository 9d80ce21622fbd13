"""The first preprint's recipe: half the patches, batch 4k then 64k, and unmasked tuning at 336 px.

    biomedclip train configs/biomedclip_preprint.py --workdir runs/biomedclip_preprint

Source: arXiv 2303.00915v1 as noted by readers (8 epochs at 4k and 32 at 64k: also NEJM AI supplementary table 7). 64k pairs
are accumulated exactly, 8,192 at a time. The preprint does not state length and rate of the unmasked tuning: one epoch at a
tenth of the learning rate is our choice.
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import Stage

config = dataclasses.replace(
    base,
    name="biomedclip_preprint",
    stages=(
        Stage(epochs=8, batch_size=4_096, patch_keep=0.5),
        Stage(epochs=32, batch_size=65_536, microbatch=8_192, patch_keep=0.5),
        Stage(epochs=1, batch_size=4_096, patch_keep=1.0, image_size=336, learning_rate_scale=0.1),
    ),
)
