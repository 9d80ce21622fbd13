"""Ablation: ViT-S/16 as image tower, 8 epochs.

    biomedclip train configs/ablation_vit_s16.py --workdir runs/ablation_vit_s16

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 2 (S/16, 22M).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import Stage, ViTConfig

small = ViTConfig(width=384, depth=12, heads=6, mlp_width=1536)

config = dataclasses.replace(
    base,
    name="ablation_vit_s16",
    model=dataclasses.replace(base.model, image=small),
    stages=(Stage(epochs=8, batch_size=4_096),),
    image_init="hf-hub:timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
)
