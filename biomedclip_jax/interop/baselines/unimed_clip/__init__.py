"""UniMed-CLIP: CLIP's ViT beside BiomedBERT. `reader.py` says how it is released."""
