"""The projections from the features of a tower to the joint space."""

from flax import nnx

from biomedclip_jax.config import CLIPConfig, ComputeConfig
from biomedclip_jax.config.towers import features
from biomedclip_jax.models.dense import linear
from biomedclip_jax.models.shapes import Embeddings, Features
from biomedclip_jax.models.transformer import activate


class Head(nnx.Module):
    """From pooled features to the joint space: one dense layer, two with an exact GELU between, or nothing."""

    def __init__(self, kind: str, widths: tuple[int, ...], biases: tuple[bool, ...], compute: ComputeConfig, rngs: nnx.Rngs):
        """widths = (in, out) for "linear", (in, hidden, out) for "mlp"; biases one a layer."""
        self.kind = kind
        if kind == "linear":
            self.proj = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
        elif kind == "mlp":
            self.fc1 = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
            self.fc2 = linear(widths[1], widths[2], compute, rngs, bias=biases[1])

    def __call__(self, x: Features) -> Embeddings:
        if self.kind == "linear":
            return self.proj(x)
        if self.kind == "none":
            return x
        return self.fc2(activate(self.fc1(x), "gelu"))


def image_head(config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Head:
    """The head of the image tower. The hidden layer of an "mlp" is 2·E wide, as timm's `Mlp(width, 2·embed)` is."""
    kind, width, e, bias = config.image_head, features(config.image), config.embed_width, config.image_head_bias
    if kind == "linear":
        return Head(kind, (width, e), (bias,), compute, rngs)
    return Head(kind, (width, 2 * e, e), (True, bias), compute, rngs)


def text_head(config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Head:
    """The head of the text tower. The hidden layer of an "mlp" is (D + E) / 2 wide, as in open_clip's `HFTextEncoder`."""
    kind, width, e, bias = config.text_head, features(config.text), config.embed_width, config.text_head_bias
    if kind == "linear":
        return Head(kind, (width, e), (bias,), compute, rngs)
    return Head(kind, (width, (width + e) // 2, e), (bias, bias), compute, rngs)
