"""Zero-shot classification: labelled images and prompts go in, metrics, intervals and pictures come out.

Read `task.py` first; `_pictures.py` draws what it found.
"""
