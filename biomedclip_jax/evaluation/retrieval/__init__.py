"""Cross-modal retrieval: image-text pairs go in, ranks, recalls and galleries come out.

Read `task.py` first; `_ranks.py` is the exact search and `approximate.py` the one for large galleries.
"""
