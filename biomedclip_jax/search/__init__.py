"""Search in one's own images by words, by an image, or by a patient.

In comes an index, a folder or a collection of a server that `biomedclip index` has made of images with all that their
records say; out go hits. Read `index.py` first, then `update.py`, which makes it, and `_exact.py`, which finds what is
nearest in a folder.
"""

from biomedclip_jax.search.filters import Filter
from biomedclip_jax.search.hits import Hit
from biomedclip_jax.search.index import Index
from biomedclip_jax.search.open import open_index

__all__ = ["Filter", "Hit", "Index", "open_index"]
