"""Ablation: CLIP's causal text transformer with 77 tokens and vocabulary, from scratch, 8 epochs.

    biomedclip train configs/ablation_text_gpt77.py --workdir runs/ablation_text_gpt77

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 1 (GPT, 50k general, 77).
"""

import dataclasses

from biomedclip_vit_b16_224 import config as base

from biomedclip_jax.config import ClipTextConfig, Stage

text = ClipTextConfig(vocab_size=49_408, context_length=77)

config = dataclasses.replace(
    base,
    name="ablation_text_gpt77",
    model=dataclasses.replace(base.model, text=text, text_head="linear"),
    data=dataclasses.replace(base.data, tokenizer="hf-hub:openai/clip-vit-base-patch16"),
    stages=(Stage(epochs=8, batch_size=4_096),),
    text_init=None,
)
