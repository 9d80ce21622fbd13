"""PMC-CLIP: CLIP's ResNet-50 beside PubMedBERT. `reader.py` says how it is released."""
