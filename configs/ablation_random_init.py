"""Ablation: the image tower starts from random weights instead of ImageNet.

    biomedclip train configs/ablation_random_init.py --workdir runs/ablation_random_init

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 3 (random).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

config = dataclasses.replace(base, name="ablation_random_init", image_init=None)
