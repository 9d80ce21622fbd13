"""METER's co-attention layers and classifier in PyTorch, from their description, and our parameters in them."""

from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor, other: Tensor, seen: Tensor | None) -> Tensor:
        """Head by head; what may not be looked at has a score of minus infinity."""
        q, k, v = (
            self.query(x).chunk(self.heads, -1),
            self.key(other).chunk(self.heads, -1),
            self.value(other).chunk(self.heads, -1),
        )
        found = []
        for head in range(self.heads):
            scores = q[head] @ k[head].mT / q[head].shape[-1] ** 0.5
            if seen is not None:
                scores = scores.masked_fill(~seen[:, None, :], -torch.inf)
            found.append(scores.softmax(-1) @ v[head])
        return self.out(torch.cat(found, -1))


class Stream(nn.Module):
    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.self_attention, self.cross_attention = Attention(width, heads), Attention(width, heads)
        self.fc1, self.fc2 = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps=1e-12) for _ in range(3))

    def forward(self, x: Tensor, other: Tensor, x_seen: Tensor | None, other_seen: Tensor | None) -> Tensor:
        x = self.norm1(x + self.self_attention(x, x, x_seen))
        x = self.norm2(x + self.cross_attention(x, other, other_seen))
        return self.norm3(x + self.fc2(F.gelu(self.fc1(x))))


class Layer(nn.Module):
    def __init__(self, *sizes: int):
        super().__init__()
        self.text, self.image = Stream(*sizes), Stream(*sizes)


class TorchMeter(nn.Module):
    """one_after_another: a mistake, the image looking at the question as it comes out of the layer."""

    def __init__(self, config: Any, text_width: int, image_width: int, class_token: bool):
        super().__init__()
        c = config
        self.text_projection, self.image_projection = nn.Linear(text_width, c.width), nn.Linear(image_width, c.width)
        self.token_type = nn.Parameter(torch.zeros(2, c.width))
        self.blocks = nn.ModuleList(Layer(c.width, c.heads, c.mlp_width) for _ in range(c.layers))
        self.text_pooler, self.image_pooler = nn.Linear(c.width, c.width), nn.Linear(c.width, c.width)
        self.classifier = nn.ModuleDict(
            {
                "fc1": nn.Linear(2 * c.width, 2 * c.width),
                "norm": nn.LayerNorm(2 * c.width, eps=1e-5),
                "fc2": nn.Linear(2 * c.width, len(c.answers)),
            }
        )
        self.class_token = class_token
        self.one_after_another = False

    def forward(self, text: Tensor, seen: Tensor, image: Tensor) -> Tensor:
        text = self.text_projection(text) + self.token_type[0]
        image = self.image_projection(image) + self.token_type[1]
        for layer in self.blocks:
            new = layer.text(text, image, seen, None)
            image = layer.image(image, new if self.one_after_another else text, None, seen)
            text = new
        first = image[:, 0] if self.class_token else image.mean(1)
        both = torch.cat([torch.tanh(self.text_pooler(text[:, 0])), torch.tanh(self.image_pooler(first))], -1)
        return self.classifier["fc2"](F.gelu(self.classifier["norm"](self.classifier["fc1"](both))))


def _names(path: str, depth: int) -> list[str]:
    """PyTorch's names of our parameter, one a layer for those that are stacked."""
    name = path.replace("/kernel", "/weight").replace("/scale", "/weight").replace("/", ".")
    return [name.replace("blocks.", f"blocks.{n}.", 1) for n in range(depth)] if path.startswith("blocks/") else [name]


def put(params: dict[str, Any], into: TorchMeter) -> None:
    """Our parameters into the module; all of its own are replaced."""
    tensors = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        rows = np.asarray(leaf) if path.startswith("blocks/") else np.asarray(leaf)[None]
        for name, row in zip(_names(path, len(rows)), rows, strict=True):
            tensors[name] = torch.tensor(row.T if path.endswith("kernel") else row)
    into.load_state_dict(tensors)


def gradients(of: TorchMeter, paths: list[str]) -> dict[str, np.ndarray]:
    """The module's gradients under our paths."""
    theirs = {name: parameter.grad for name, parameter in of.named_parameters()}
    found = {}
    for path in paths:
        rows = [theirs[name].numpy() for name in _names(path, len(of.blocks))]
        rows = [row.T for row in rows] if path.endswith("kernel") else rows
        found[path] = np.stack(rows) if path.startswith("blocks/") else rows[0]
    return found


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """METER's: the mean of the binary cross-entropy, times the number of answers."""
    return F.binary_cross_entropy_with_logits(scores, labels) * labels.shape[1]
