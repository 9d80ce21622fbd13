"""Models of others read, and ours written so that others read them. PyTorch is needed for its own files only.

What comes in is a path: a model folder, a run folder, a file of weights, an adapter; `model_files` makes one of a
Hugging Face address. `detect` knows from one table what it is. What goes out is a `model.Model`: configs, parameters
and where its tokenizer is, with a report of every foreign tensor. `write` makes a folder of it again. Each kind is
described once, as a table of entries that `mapping` reads in both directions.

Read `detect.py` first, then `_mapping.py`, then one of `formats/` (read and written) or `baselines/` (only read).
`initial.py` gives a training run its pretrained towers.
"""
