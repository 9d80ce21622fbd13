"""Ablation: PubMedBERT with 256 tokens, 8 epochs (also the ViT-B/16 row of table 2).

    biomedclip train configs/ablation_text_bert256.py --workdir runs/ablation_text_bert256

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary tables 1 and 2 (PubMedBERT 30k, 256; ViT-B/16).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import Stage

config = dataclasses.replace(base, name="ablation_text_bert256", stages=(Stage(epochs=8, batch_size=4_096),))
