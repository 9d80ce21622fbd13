"""The model folder of open_clip, which is also ours. `folder.py` reads and writes it whole.

The names of its tensors are in `mapping.py`, its JSON in `config.py`; `timm.py` lists the image towers that it
builds by name.
"""
