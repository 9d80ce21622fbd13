"""Ablation: PubMedBERT with captions cut at 77 tokens, 8 epochs.

    biomedclip train configs/ablation_text_bert77.py --workdir runs/ablation_text_bert77

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 1 (PubMedBERT 30k, 77).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import BertConfig, Stage

config = dataclasses.replace(
    base,
    name="ablation_text_bert77",
    model=dataclasses.replace(base.model, text=BertConfig(context_length=77)),
    stages=(Stage(epochs=8, batch_size=4_096),),
)
