"""`biomedclip bench`: how fast and in how much memory a config trains, alone or beside open_clip in PyTorch.

Each side works in a process of its own (`ours.py`, `open_clip.py`), on batches that both make from one seed (`task.py`);
the sides take turns (`turns.py`). It needs jax, flax and optax;
torch, open_clip and the data libraries only where they are measured.
"""
