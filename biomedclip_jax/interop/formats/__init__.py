"""Folders that are read and written: each format knows its config, its names of tensors and its files.

`open_clip/` is the usual one, `huggingface/` has transformers' CLIP and the towers of `tower_pair.py`, `cleft/` the
checkpoints of XYPB/CLEFT, `peft/` and `adapter_folder.py` what adapters have learned. `_preprocessor.py` is
transformers' file on images.
"""
