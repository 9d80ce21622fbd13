"""Ablation: 336 px instead of 224, all 32 epochs; ImageNet positions resized.

    biomedclip train configs/ablation_336px.py --workdir runs/ablation_336px

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary prose; 336 px was in the tables of the first preprint only.
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import PreprocessConfig

config = dataclasses.replace(
    base,
    name="ablation_336px",
    model=dataclasses.replace(base.model, image=dataclasses.replace(base.model.image, image_size=336)),
    preprocess=PreprocessConfig(image_size=336),
)
