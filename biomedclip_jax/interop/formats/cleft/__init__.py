"""CLEFT's Lightning checkpoints. `checkpoint.py` reads and writes them, with the names in `mapping.py`; `lightning.py` opens a
file that pickles classes of others, without importing or running them.
"""
