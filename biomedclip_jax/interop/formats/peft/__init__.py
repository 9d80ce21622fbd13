"""PEFT's adapters. `folders.py` puts those of both towers on a model; `adapters.py` reads and writes those of one tower."""
