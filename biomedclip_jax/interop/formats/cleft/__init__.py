"""Lightning checkpoints of CLEFT. Read `checkpoint.py` first: it reads and writes them.

The names of their tensors are in `mapping.py`; `lightning.py` opens a file that pickles classes of others, without
importing or running them.
"""
