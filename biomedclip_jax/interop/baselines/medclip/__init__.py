"""MedCLIP: a Swin transformer or a ResNet-50 beside Bio_ClinicalBERT. `reader.py` says how it is released."""
