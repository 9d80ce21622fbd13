"""Articles of PubMed Central, from where they are kept to a data set of image-caption pairs.

In: PMC's cloud, a copy of it, packages or folders of XML with pictures. Out: `figures.jsonl` or a TFDS build. An
article passes through `sources/` (its files), `jats/` (its XML), `description` (its figures, ready for JSON) and
`build/` (records, filters, splits, shards); `panels/`, experimental, cuts compound figures; `figure_types` tells kinds
of pictures by their captions; `figures_file` writes figures.jsonl. Read `description` first.
"""
