"""Models as the transformers library stores them: names of tensors, configs, reading and writing.

Read `mapping.py` first (BERT, ViT), then `causal.py` (GPT-2, LLaMA), `dinov2.py` and `clip.py`.
"""
