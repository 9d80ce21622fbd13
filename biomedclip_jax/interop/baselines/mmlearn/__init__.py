"""Checkpoints of mmlearn's contrastive pretraining, such as Open-PMC's: `reader.py`."""
