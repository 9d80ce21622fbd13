"""Image-caption pairs and labelled images, from where they are kept to the batches that training takes. Knows no
model.

In: tables, WebDataset tars, TFDS builds, folders of class folders, benchmarks in their own files, articles of PubMed
Central. Out: `Pairs` (pairs.py), `Labelled` (labelled/types.py), and `Batch`, which `loader` makes of pairs.

Read `pairs` first, then `sources`, the one table of what a user may name as a source and who reads it. Readers:
`tables`, `webdataset` (with `tar_index`), `tfds_read`. Before training: `convert`, `statistics/`. For
training: `loader`, `text` (tokenizers), `images/` (decoding, preprocessing, augmentation). For a model in
use: `processor`, `unread_texts`, `embeddings_file`. Below: `labelled/` and `benchmarks/` (images of known classes),
`pmc/` (articles to builds), `demo/` (data that pip packages carry).
"""
