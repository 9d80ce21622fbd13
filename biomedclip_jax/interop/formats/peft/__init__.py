"""Adapters in PEFT's own folders. Read `folders.py` first: it puts those of both towers on a model.

`_settings.py` knows the fields of an adapter_config.json, `_read.py` and `_write.py` an adapter of one tower.
"""
