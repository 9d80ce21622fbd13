"""Models taken away, to be run without this package: ONNX files, and StableHLO programs of `jax.export`.

A `Model` goes in; a folder comes out with a file for each tower, the tokenizer, what an image becomes, and a README.md
whose code runs as it stands. Nothing is written that does not give the model's own embeddings: each file is run and
compared first. Read `onnx_folder.py` first; `_onnx_towers.py` builds the graphs, `stablehlo_folder.py` the programs.
"""
