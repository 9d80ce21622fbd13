"""Adapters in PEFT's own folders. Read `folders.py` first: it puts those of both towers on a model.

`_adapters.py` reads and writes those of one tower.
"""
