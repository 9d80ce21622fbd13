"""Ablation: batch 4k for 8 epochs, then 64k (accumulated exactly) for 32.

    biomedclip train configs/ablation_batch_schedule.py --workdir runs/ablation_batch_schedule

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 7 (4k then 64k).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import Stage

config = dataclasses.replace(
    base,
    name="ablation_batch_schedule",
    stages=(Stage(epochs=8, batch_size=4_096), Stage(epochs=32, batch_size=65_536, microbatch=8_192)),
)
