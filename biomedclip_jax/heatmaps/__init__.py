"""Heat maps: which regions of an image answer a phrase, and whether the words make any difference to that.

A model, an image and phrases go in; a `Heatmap` comes out, with the maps of the phrases, of another finding and
of nonsense, the numbers that say how much a map depends on the words, and a picture. Read `maps.py` first;
`_attention.py` has gradient-weighted attention, `_words.py` the numbers, `_picture.py` the picture.
"""

from biomedclip_jax.heatmaps.maps import Heatmap, heatmap

__all__ = ["Heatmap", "heatmap"]
