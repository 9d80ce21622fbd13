"""`biomedclip bench`: how fast and in how much memory a config trains, alone or beside open_clip in PyTorch.

Read `report.py` first: it goes from the flags to the table. In: a `Task` (`task.py`): a config with one stage, and
what of it is measured. Out: a table and, on request, JSON with every single time. Each side works in a process of
its own (`ours.py`, `_open_clip.py`), on batches that both make from one seed; the sides alternate (`_alternate.py`),
so that a slow minute of the machine meets both. `loader.py` and `loader_sides.py` do the same for the data loader
alone.

It needs jax, flax and optax; torch, open_clip and the data libraries only where they are measured.
"""
