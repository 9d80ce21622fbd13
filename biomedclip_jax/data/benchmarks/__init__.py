"""Published benchmarks, read from their own files: which images, which classes, which split.

In: the folder of a benchmark as its makers publish it, and a split. Out: `Labelled`; of CheXpert, RSNA and EMBED also
rows for captions (`labelled.caption_table`). A file reads one data set, `histology` two; `files` finds what is on the
disk. Names, licences and prompts of benchmarks are in `evaluation/benchmarks.yaml`. Read `medmnist` first, the
plainest.
"""
