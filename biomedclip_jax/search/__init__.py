"""Search in one's own images by words, by an image, or by a patient.

In comes an index, a folder that `biomedclip index` has made of images with all that their records say; out go hits.
Read `index.py` first, then `update.py`, which makes the folder, and `exact.py`, which finds what is nearest.
"""

from biomedclip_jax.search.filters import Filter
from biomedclip_jax.search.hits import Hit
from biomedclip_jax.search.index import Index, open_index

__all__ = ["Filter", "Hit", "Index", "open_index"]
