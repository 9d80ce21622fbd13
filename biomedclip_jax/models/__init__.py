"""The towers and the model that joins them, as Flax NNX modules.

Letters used for shapes everywhere in this package:

    B  pairs (images, captions)     M  microbatches      N  tokens
    D  width of a tower             H  heads             K  width of a head
    F  width of the MLP             E  embedding width   V  vocabulary
    L  blocks (depth)               P  patch size        S  image size
"""

from biomedclip_jax.models.clip import CLIP, abstract_model, init_params, logits, unit_length

__all__ = ["CLIP", "abstract_model", "init_params", "logits", "unit_length"]
