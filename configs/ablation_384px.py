"""Ablation: 384 px instead of 224, all 32 epochs; ImageNet positions resized.

    biomedclip train configs/ablation_384px.py --workdir runs/ablation_384px

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 4 (384 px).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import PreprocessConfig

config = dataclasses.replace(
    base,
    name="ablation_384px",
    model=dataclasses.replace(base.model, image=dataclasses.replace(base.model.image, image_size=384)),
    preprocess=PreprocessConfig(image_size=384),
)
