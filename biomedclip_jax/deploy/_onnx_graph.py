"""A small builder of ONNX graphs, and the layers that both towers are made of. Opset 20: Gelu and LayerNormalization."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from biomedclip_jax.config import Activation

OPSET = 20
_IR_VERSION = 9  # what opset 20 came with: newer ones are refused by older runtimes


class Graph:
    """An ONNX graph that grows by operations; values go by their names. Weights keep the paths of our parameters."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: dict[str, np.ndarray] = {}

    def weight(self, path: str, array: Any) -> str:
        """A constant of the graph, under this name; arrays stay as they are in memory until the graph is written."""
        if path not in self._weights:
            self._weights[path] = np.asarray(array)
        return path

    def number(self, value: Any, dtype: type = np.int64) -> str:
        """A small constant, a number or a list of them."""
        array = np.asarray(value, dtype)
        return self.weight(f"{array.dtype}{array.shape}:{array.tolist()}", array)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation of one result, and return the result's name."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, results: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operation of several results, and return their names."""
        from onnx import helper

        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(results)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def axis(self, x: str, axis: int) -> str:
        """How long x is along an axis, as int64 [1]."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *shape: int) -> str:
        """x in another shape; 0: as long as before; -1: what is left."""
        return self.op("Reshape", x, self.number(shape))

    def take(self, x: str, first: int, end: int, axis: int) -> str:
        """x from `first` to `end` along an axis."""
        return self.op("Slice", x, self.number([first]), self.number([end]), self.number([axis]))

    def model(self, inputs: Mapping[str, tuple[type, Sequence[Any]]], output: tuple[str, Sequence[Any]], name: str) -> Any:
        """The graph as an `onnx.ModelProto`. inputs: dtype and shape by name, words are dynamic; output: its value and shape.

        What comes out is called "embedding".
        """
        from onnx import helper, numpy_helper

        def described(name: str, dtype: Any, shape: Sequence[Any]) -> Any:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        value, shape = output
        self._nodes.append(helper.make_node("Identity", [value], ["embedding"]))
        weights = [numpy_helper.from_array(np.asarray(array, order="C"), path) for path, array in self._weights.items()]
        given = [described(each, *about) for each, about in inputs.items()]
        graph = helper.make_graph(self._nodes, name, given, [described("embedding", np.float32, shape)], weights)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="biomedclip_jax")


class Parameters:
    """A part of the parameters with the path that leads there; `at` goes deeper, `layer` into one of stacked blocks."""

    def __init__(self, graph: Graph, tree: Mapping[str, Any], path: str, index: int | None = None):
        self.graph, self.tree, self.path, self.index = graph, tree, path, index

    def at(self, *names: str) -> "Parameters":
        """The part below these names."""
        tree: Any = self.tree
        for name in names:
            tree = tree[name]
        return Parameters(self.graph, tree, "/".join((self.path, *names)), self.index)

    def layer(self, index: int) -> "Parameters":
        """Of stacked blocks one."""
        return Parameters(self.graph, self.tree, f"{self.path}/{index}", index)

    def array(self, name: str) -> np.ndarray:
        """A parameter as a NumPy array."""
        found = np.asarray(self.tree[name])
        return found if self.index is None else found[self.index]

    def __getitem__(self, name: str) -> str:
        """A parameter as a value of the graph."""
        return self.graph.weight(f"{self.path}/{name}", self.array(name))

    def __contains__(self, name: str) -> bool:
        return self.tree.get(name) is not None


def dense(p: Parameters, x: str) -> str:
    """x·W + b; b where there is one."""
    y = p.graph.op("MatMul", x, p["kernel"])
    return p.graph.op("Add", y, p["bias"]) if "bias" in p else y


def layer_norm(p: Parameters, x: str, eps: float) -> str:
    """LayerNorm over the last axis."""
    return p.graph.op("LayerNormalization", x, p["scale"], p["bias"], axis=-1, epsilon=eps)


def activate(g: Graph, x: str, kind: Activation) -> str:
    """GELU by the error function, its tanh form, or x·sigmoid(1.702x)."""
    if kind == "quick_gelu":
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.number(1.702, np.float32))))
    return g.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")


def attend(g: Graph, q: str, k: str, v: str, mask: str | None) -> str:
    """softmax(q·kᵀ)·v of [..., N, K]; q is scaled already. mask: bool, False where a key is not looked at."""
    turned = g.op("Transpose", k, perm=[0, 1, 3, 2])
    scores = g.op("MatMul", q, turned)
    if mask is not None:
        scores = g.op("Where", mask, scores, g.number(np.finfo(np.float32).min, np.float32))
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)


def block(p: Parameters, x: str, config: Any, mask: str | None, *, pre_norm: bool = True, divisor: float = 1.0) -> str:
    """A block of `models.transformer`: attention and MLP. divisor: of the attention scores."""
    g, c, eps = p.graph, config, config.layer_norm_eps
    width = c.width // c.heads

    def attention(x: str) -> str:
        qkv = g.reshape(dense(p.at("attention", "qkv"), x), 0, 0, 3, c.heads, width)
        turned = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.op("Squeeze", each, g.number([0])) for each in g.ops("Split", 3, turned, axis=0, num_outputs=3))
        q = g.op("Mul", q, g.number(width**-0.5 / divisor, np.float32))
        y = g.op("Transpose", attend(g, q, k, v, mask), perm=[0, 2, 1, 3])
        return dense(p.at("attention", "out"), g.reshape(y, 0, 0, c.width))

    def scaled(y: str, name: str) -> str:
        return g.op("Mul", y, p[name]) if name in p else y

    def mlp(x: str) -> str:
        return dense(p.at("mlp", "fc2"), activate(g, dense(p.at("mlp", "fc1"), x), c.activation))

    if pre_norm:
        x = g.op("Add", x, scaled(attention(layer_norm(p.at("norm1"), x, eps)), "scale1"))
        return g.op("Add", x, scaled(mlp(layer_norm(p.at("norm2"), x, eps)), "scale2"))
    x = layer_norm(p.at("norm1"), g.op("Add", x, scaled(attention(x), "scale1")), eps)
    return layer_norm(p.at("norm2"), g.op("Add", x, scaled(mlp(x), "scale2")), eps)


def unit_head(p: Parameters, x: str, kind: str) -> str:
    """The head of a tower (`models.clip.Head`), then unit length."""
    g = p.graph
    if kind == "linear":
        x = dense(p.at("proj"), x)
    elif kind == "mlp":
        x = dense(p.at("fc2"), activate(g, dense(p.at("fc1"), x), "gelu"))
    length = g.op("ReduceL2", x, g.number([-1]), keepdims=1)
    return g.op("Div", x, g.op("Max", length, g.number(1e-12, np.float32)))
