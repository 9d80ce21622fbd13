"""Ablation: ViT-M/16 (width 512) as image tower, from scratch, 8 epochs. The paper does not say which weights it began with.

    biomedclip train configs/ablation_vit_m16.py --workdir runs/ablation_vit_m16

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 2 (M/16, 39M).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import Stage, ViTConfig

medium = ViTConfig(width=512, depth=12, heads=8, mlp_width=2048)

config = dataclasses.replace(
    base,
    name="ablation_vit_m16",
    model=dataclasses.replace(base.model, image=medium),
    stages=(Stage(epochs=8, batch_size=4_096),),
    image_init=None,
)
