"""BioViL and BioViL-T: a ResNet-50 beside CXR-BERT. `reader.py` says how they are released."""
