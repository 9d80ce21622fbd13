"""Articles to a data set of image-caption pairs: a TFDS build, made shard by shard by any number of machines.

In: a `Source` of articles. Out: ArrayRecord shards with TFDS metadata, and counts of what was left out and why.
Read `build` first, the steps; `shard` is the work on one shard, `pairs` an article's pairs and the filters,
`pictures` the images and their duplicates, `record` what is stored, `runner` Beam, `storage` where it is written.
"""
