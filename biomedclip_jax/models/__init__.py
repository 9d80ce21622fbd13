"""The towers and the model that joins them, as Flax NNX modules.

In come configs (`biomedclip_jax.config`), pixels and token ids; out go unit embeddings. Parameters travel as plain
nested dicts of arrays. Read `clip.py` first: it joins an image tower (`vit.py`) and a text tower (`bert.py`,
`_clip_text.py`, `_gpt.py`, `_llama.py`), whose blocks are those of `transformer.py`, by two projections. On GPUs their
attention is `_fused_attention.py`. `adapters.py` adds to the dense layers of `layers.py`, where dropout is, too, what
LoRA and its relatives train.

Letters of shapes, everywhere in this package:

    B  pairs: images with their captions         M  microbatches
    N  tokens of a sequence                      P  patches of an image
    S  side of an image, in pixels               V  vocabulary: token ids
    L  blocks of a tower (depth)                 D  width of a tower
    H  attention heads                           K  width of one head
    G  heads of keys and values (LLaMA)          F  width of the MLP
    E  width of the embedding                    C  classes
    R  learned context vectors                   T  tokens of a trained prefix
    A  rank of a low-rank adapter                Q  queries: rows whose neighbours are looked for

`n` and `m` are lengths that only one function knows, such as the columns of a matrix of scores or the rows of one
block.
"""

from biomedclip_jax.models.clip import CLIP, abstract_model, init_params, logits, unit_length

__all__ = ["CLIP", "abstract_model", "init_params", "logits", "unit_length"]
