"""Images of known classes, and captions made of labels.

In: class folders, tables, tars, TFDS builds. Out: `Labelled`, and CSV tables of captioned images. Read `types` first,
the contract, then `readers`. `captions` holds sentences that are filled from a row of a table, `caption_table` writes
the result.
"""
