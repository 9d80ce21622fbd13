"""Lightning checkpoints of CLEFT. Read `checkpoint.py` first: it reads and writes them.

The names of their tensors are in `_mapping.py`; `_lightning.py` opens a file that pickles classes of others, without
importing or running them.
"""
