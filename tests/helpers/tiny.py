"""A model and a batch small enough to compile and run in seconds, with every kind of randomness switched on."""

import numpy as np

from biomedclip_jax.config import BertConfig, CLIPConfig, ViTConfig

MODEL = CLIPConfig(
    image=ViTConfig(image_size=16, patch_size=8, width=32, depth=2, heads=4, mlp_width=64, patch_bias=False),
    text=BertConfig(vocab_size=50, context_length=8, positions=8, width=32, depth=2, heads=4, mlp_width=64, dropout=0.1),
    embed_width=16,
)


def batch(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What the loader gives: captions of different lengths, images of different colours, places in the run."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(rows, 16, 16, 3)) + 2 * rng.normal(size=(rows, 1, 1, 3))
    tokens = rng.integers(5, 50, (rows, 8))
    tokens[np.arange(8) >= rng.integers(2, 9, (rows, 1))] = 0
    return {
        "images": images.astype(np.float32),
        "tokens": tokens.astype(np.int32),
        "index": np.arange(1000, 1000 + rows, dtype=np.uint32),
    }
