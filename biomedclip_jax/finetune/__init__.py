"""`biomedclip finetune`: a model adapted to somebody's own data, and handed over only if it became better by that.

`main.finetune` is the whole of it, from the data to the last table: read it first. It is a front on the training of
`train`: it writes a config, which can be edited and run again with `biomedclip train`.
"""
