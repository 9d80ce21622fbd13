"""Each kind of tower as an ONNX graph, operation for operation as in `models`.

Batch and, of texts, length are dynamic. A tower that is only read here (a ResNet, a Swin, CXR-BERT) is refused.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, GPTConfig, LlamaConfig, ViTConfig
from biomedclip_jax.deploy._onnx_graph import Graph, Parameters, activate, attend, block, dense, layer_norm, unit_head
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.model import Params

PIXELS, TOKENS = "pixels", "tokens"


def check_towers(config: CLIPConfig, form: str) -> None:
    """UserError, in one line, for a tower that this room has no graph for. form: what it was to become."""
    for name, known in (("image", (ViTConfig,)), ("text", tuple(_TEXTS))):
        tower = getattr(config, name)
        if type(tower) not in known:
            kinds = ", ".join(kind.__name__.removesuffix("Config") for kind in known)
            own = type(tower).__name__.removesuffix("Config")
            raise UserError(f"the {name} tower of this model is a {own}, which cannot be written as {form}; expected {kinds}")


def image_graph(config: CLIPConfig, params: Params) -> Any:
    """The image tower with its head: pixels float32 [batch, 3, S, S], normalised -> embedding float32 [batch, E]."""
    g, c = Graph(), config.vit
    features = _vit(Parameters(g, params["image"], "image"), c)
    value = unit_head(Parameters(g, params.get("image_head", {}), "image_head"), features, config.image_head)
    inputs = {PIXELS: (np.float32, ["batch", 3, c.image_size, c.image_size])}
    return g.model(inputs, (value, ["batch", config.embed_width]), "image")


def text_graph(config: CLIPConfig, params: Params) -> Any:
    """The text tower with its head: tokens int64 [batch, length], padded -> embedding float32 [batch, E]."""
    g = Graph()
    features = _TEXTS[type(config.text)](Parameters(g, params["text"], "text"), config.text)
    value = unit_head(Parameters(g, params.get("text_head", {}), "text_head"), features, config.text_head)
    return g.model({TOKENS: (np.int64, ["batch", "length"])}, (value, ["batch", config.embed_width]), "text")


def _vit(p: Parameters, c: ViTConfig) -> str:
    g, side, size = p.graph, c.image_size // c.patch_size, c.patch_size
    pixels = PIXELS
    if side * size < c.image_size:
        pixels = g.op("Slice", pixels, g.number([0, 0]), g.number([side * size] * 2), g.number([2, 3]))
    x = g.op("Transpose", g.reshape(pixels, 0, 3, side, size, side, size), perm=[0, 2, 4, 3, 5, 1])
    x = dense(p.at("patch"), g.reshape(x, 0, side * side, 3 * size * size))
    positions, prefix = p.array("position"), c.prefix_positions
    x = g.op("Add", x, g.weight("image/position/patches", positions[prefix:]))
    first = [*([p.array("class_token")[None]] if c.class_token else []), *([p.array("registers")] if c.registers else [])]
    if first:
        tokens = np.concatenate(first)
        tokens[:prefix] += positions[:prefix]
        rows = g.op("Concat", g.axis(x, 0), g.number(tokens.shape), axis=0)
        x = g.op("Concat", g.op("Expand", g.weight("image/first_tokens", tokens), rows), x, axis=1)
    if c.norm_pre:
        x = layer_norm(p.at("norm_pre"), x, c.layer_norm_eps)
    for i in range(c.depth):
        x = block(p.at("blocks").layer(i), x, c, None)
    norm = p.at("norm")
    if c.pool == "mean_prenorm":
        return g.op("ReduceMean", x, g.number([1]), keepdims=0)
    if c.pool == "cls":
        return layer_norm(norm, g.op("Gather", x, g.number(0), axis=1), c.layer_norm_eps)
    patches = g.take(x, c.prefix_tokens, c.prefix_tokens + c.patches, 1)
    if c.pool == "map":
        return _attention_pool(p.at("pool"), layer_norm(norm, patches, c.layer_norm_eps), c)
    if c.norm_after_pool:
        return layer_norm(norm, g.op("ReduceMean", patches, g.number([1]), keepdims=0), c.layer_norm_eps)
    return g.op("ReduceMean", layer_norm(norm, patches, c.layer_norm_eps), g.number([1]), keepdims=0)


def _attention_pool(p: Parameters, x: str, c: ViTConfig) -> str:
    """SigLIP's: the learned query looks at all patches; what it is projected to is worked out here."""
    g, d, width = p.graph, c.width, c.width // c.heads
    kernel, bias = p.at("qkv").array("kernel"), p.at("qkv").array("bias")
    query = (p.array("query") @ kernel[:, :d] + bias[:d]) * np.float32(width**-0.5)
    both = g.op("MatMul", x, g.weight("image/pool/key_value/kernel", kernel[:, d:]))
    both = g.reshape(g.op("Add", both, g.weight("image/pool/key_value/bias", bias[d:])), 0, 0, 2, c.heads, width)
    turned = g.op("Transpose", both, perm=[2, 0, 3, 1, 4])
    k, v = (g.op("Squeeze", each, g.number([0])) for each in g.ops("Split", 2, turned, axis=0, num_outputs=2))
    query_name = g.weight("image/pool/query", query.reshape(1, c.heads, 1, width).astype(np.float32))
    x = dense(p.at("out"), g.reshape(attend(g, query_name, k, v, None), 0, d))
    y = activate(g, dense(p.at("mlp", "fc1"), layer_norm(p.at("norm"), x, c.layer_norm_eps)), c.activation)
    return g.op("Add", x, dense(p.at("mlp", "fc2"), y))


def _bert(p: Parameters, c: BertConfig) -> str:
    g = p.graph
    real = g.op("Not", g.op("Equal", TOKENS, g.number(c.pad_id)))
    x = g.op("Gather", p["word"], TOKENS, axis=0)
    rows = p.array("position")[c.position_offset : c.position_offset + c.context_length] + p.array("token_type")[0]
    x = layer_norm(p.at("norm"), g.op("Add", x, _first(g, g.weight("text/position", rows), g.axis(x, 1))), c.layer_norm_eps)
    mask = g.op("Unsqueeze", real, g.number([1, 2]))
    for i in range(c.depth):
        x = block(p.at("blocks").layer(i), x, c, mask, pre_norm=False)
    if c.pool in ("cls", "cls_pooler"):
        x = g.op("Gather", x, g.number(0), axis=1)
        return g.op("Tanh", dense(p.at("pooler"), x)) if c.pool == "cls_pooler" else x
    columns = g.op("Unsqueeze", real, g.number([2]))
    if c.pool == "max":
        x = g.op("Where", columns, x, g.number(-np.inf, np.float32))
        return g.op("ReduceMax", x, g.number([1]), keepdims=0)
    counted = g.op("Cast", columns, to=1)
    total = g.op("ReduceSum", g.op("Mul", x, counted), g.number([1]), keepdims=0)
    return g.op("Div", total, g.op("ReduceSum", counted, g.number([1]), keepdims=0))


def _clip_text(p: Parameters, c: ClipTextConfig) -> str:
    g, tokens = p.graph, TOKENS
    if c.reads_padding:
        missing = g.op("Sub", g.number([c.context_length]), g.axis(tokens, 1))
        tokens = g.op("Pad", tokens, g.op("Concat", g.number([0, 0, 0]), missing, axis=0), g.number(c.pad_id))
    x = g.op("Gather", p["word"], tokens, axis=0)
    x = g.op("Add", x, _first(g, p["position"], g.axis(x, 1)))
    mask = _causal(g, tokens) if c.causal else None
    for i in range(c.depth):
        x = block(p.at("blocks").layer(i), x, c, mask)
    if c.pool == "last":
        x = g.op("Gather", x, g.number(-1), axis=1)
    else:
        end = tokens if c.pool == "end" else g.op("Cast", g.op("Equal", tokens, g.number(c.eos_id)), to=7)
        x = _token(g, x, g.op("ArgMax", end, axis=1, keepdims=1))
    return layer_norm(p.at("norm"), x, c.layer_norm_eps)


def _gpt(p: Parameters, c: GPTConfig) -> str:
    g = p.graph
    tokens, lengths, mask = _causal_text(g, c)
    x = g.op("Gather", p["word"], tokens, axis=0)
    rows = g.weight("text/position", p.array("position")[: c.context_length])
    x = g.op("Add", x, _first(g, rows, g.axis(x, 1)))
    for i in range(c.depth):
        x = block(p.at("blocks").layer(i), x, c, mask, divisor=i + 1.0 if c.inverse_layer_scale else 1.0)
    return layer_norm(p.at("norm"), _token(g, x, _pooled_token(g, x, lengths, c)), c.layer_norm_eps)


def _llama(p: Parameters, c: LlamaConfig) -> str:
    g, width = p.graph, c.width // c.heads
    tokens, lengths, mask = _causal_text(g, c)
    mask = g.op("Unsqueeze", mask, g.number([1]))  # [B, G, R, N, N]: groups of query heads that share keys
    x = g.op("Gather", p["word"], tokens, axis=0)
    half = width // 2
    angles = np.arange(c.context_length, dtype=np.float32)[:, None] * np.float32(c.rope_theta) ** (
        -np.arange(half, dtype=np.float32) / half
    )
    cos, sin = (_first(g, g.weight(f"text/{f.__name__}", f(angles)), g.axis(x, 1)) for f in (np.cos, np.sin))

    def norm(own: Parameters, x: str) -> str:
        square = g.op("ReduceMean", g.op("Mul", x, x), g.number([-1]), keepdims=1)
        length = g.op("Sqrt", g.op("Add", square, g.number(c.rms_norm_eps, np.float32)))
        return g.op("Mul", g.op("Div", x, length), own["scale"])

    def rotated(x: str) -> str:
        a, b = g.ops("Split", 2, x, axis=-1, num_outputs=2)
        first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        return g.op("Concat", first, g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin)), axis=-1)

    def attention(own: Parameters, x: str) -> str:
        groups, shared = c.key_value_heads, c.heads // c.key_value_heads
        sizes = {"query": shared, "key": 1, "value": 1}
        parts = {name: g.reshape(dense(own.at(name), x), 0, 0, groups, count, width) for name, count in sizes.items()}
        q, k, v = (g.op("Transpose", each, perm=[0, 2, 3, 1, 4]) for each in parts.values())
        q, k = g.op("Mul", rotated(q), g.number(width**-0.5, np.float32)), rotated(k)
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
        scores = g.op("Where", mask, scores, g.number(np.finfo(np.float32).min, np.float32))
        y = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 3, 1, 2, 4])
        return dense(own.at("out"), g.reshape(y, 0, 0, c.width))

    for i in range(c.depth):
        own = p.at("blocks").layer(i)
        x = g.op("Add", x, attention(own.at("attention"), norm(own.at("norm1"), x)))
        inside = norm(own.at("norm2"), x)
        gate = dense(own.at("mlp", "gate"), inside)
        gate = g.op("Mul", gate, g.op("Sigmoid", gate))
        x = g.op("Add", x, dense(own.at("mlp", "down"), g.op("Mul", gate, dense(own.at("mlp", "up"), inside))))
    return norm(p.at("norm"), _token(g, x, _pooled_token(g, x, lengths, c)))


_TEXTS: dict[type, Callable[[Parameters, Any], str]] = {
    BertConfig: _bert,
    ClipTextConfig: _clip_text,
    GPTConfig: _gpt,
    LlamaConfig: _llama,
}


def _first(g: Graph, table: str, count: str) -> str:
    """The first rows of a table."""
    return g.op("Slice", table, g.number([0]), count, g.number([0]))


def _places(g: Graph, tokens: str) -> str:
    """0, 1, 2 ... of the tokens, int64 [N]."""
    return g.op("Range", g.number(0), g.op("Squeeze", g.axis(tokens, 1), g.number([0])), g.number(1))


def _causal(g: Graph, tokens: str) -> str:
    """Which key a query looks at: at its own and earlier ones, bool [N, N]."""
    places = _places(g, tokens)
    return g.op("LessOrEqual", g.op("Unsqueeze", places, g.number([0])), g.op("Unsqueeze", places, g.number([1])))


def _causal_text(g: Graph, c: GPTConfig | LlamaConfig) -> tuple[str, str, str]:
    """Tokens, their lengths [B, 1] and the mask [B, 1, N, N], as `models._gpt` has them."""
    tokens = TOKENS
    if c.pool == "first_eos":  # one token of padding more, but where the text fills the context
        missing = g.op("Min", g.number([1]), g.op("Sub", g.number([c.context_length]), g.axis(tokens, 1)))
        tokens = g.op("Pad", tokens, g.op("Concat", g.number([0, 0, 0]), missing, axis=0), g.number(c.pad_id))
    real = g.op("Cast", g.op("Not", g.op("Equal", tokens, g.number(c.pad_id))), to=7)
    places = _places(g, tokens)
    counted = g.op("Mul", real, g.op("Add", places, g.number(1)))
    lengths = g.op("ReduceMax", counted, g.number([1]), keepdims=1)
    seen = g.op("Less", g.op("Unsqueeze", places, g.number([0])), g.op("Max", lengths, g.number(1)))
    mask = g.op("And", _causal(g, tokens), g.op("Unsqueeze", seen, g.number([1])))
    return tokens, lengths, g.op("Unsqueeze", mask, g.number([1]))


def _pooled_token(g: Graph, x: str, lengths: str, c: GPTConfig | LlamaConfig) -> str:
    """The index [B, 1] of the token that `pool` means."""
    if c.pool == "last_token":
        return g.op("Max", g.op("Sub", lengths, g.number(1)), g.number(0))
    return g.op("Where", g.op("Less", lengths, g.axis(x, 1)), lengths, g.number(0))


def _token(g: Graph, x: str, index: str) -> str:
    """x [B, N, D] at one index [B, 1] a row: [B, D]."""
    return g.op("GatherND", x, index, batch_dims=1)
