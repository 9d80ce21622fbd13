"""transformers' models: BERT and ViT (`mapping.py`), GPT-2 and LLaMA (`causal.py`), DINOv2 (`dinov2.py`), CLIP (`clip.py`)."""
