"""The two kernels of fused attention, written in Pallas for its Triton backend (CUDA GPUs).

A program has one head of one example, and a block of its tokens. It walks over the other tokens block by block, so
that no array of N x N numbers is ever in memory: the forward kernel keeps a running maximum and sum of each query's
scores (FlashAttention-2, arXiv 2307.08691), which the backward kernel makes the weights from again. Both read queries,
keys and values where the dense layer wrote them, [B, N, 3·H, K], and write results in the order of the next dense
layer: nothing is transposed or copied. The last block of a length that does not divide hangs over; loads and stores
leave that part out.

Scores, softmax and sums are float32; products are of the dtype of the queries, float32 ones in full precision.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

_LOG2_E = math.log2(math.e)  # the hardware has powers of 2
_UNSEEN = float(jnp.finfo(jnp.float32).min)  # finite: where no key is seen, all weigh the same, as in the plain form


@dataclass(frozen=True)
class Shape:
    """What the kernels of one attention are compiled for; kept: the share of weights that dropout keeps."""

    batch: int
    tokens: int
    heads: int
    width: int  # of a head
    dtype: Any
    kept: float = 1.0

    @property
    def block(self) -> int:
        """Tokens of a block; fewer of long rows, which shared memory must hold, and of float32, which take long to compile."""
        return 64 if self.width * jnp.dtype(self.dtype).itemsize <= 256 and self.dtype != jnp.float32 else 32

    @property
    def blocks(self) -> int:
        """Blocks of tokens, the last of which may hang over."""
        return pl.cdiv(self.tokens, self.block)

    def call(self, kernel: Callable, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> list[Array]:
        """The results of a kernel in all programs. inputs: (array or None, block), outputs: (shape, block), by name."""
        names = [*inputs, *outputs]
        return pl.pallas_call(
            lambda *refs: kernel(self, **dict(zip(names, refs, strict=True))),
            grid=(self.blocks, self.heads, self.batch),
            in_specs=[None if array is None else block for array, block in inputs.values()],
            out_specs=[block for _, block in outputs.values()],
            out_shape=[shape for shape, _ in outputs.values()],
            compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
            name=name,
        )(*(array for array, _ in inputs.values()))

    def of_head(self, first: int = 0) -> pl.BlockSpec:
        """All tokens of the program's head in an array [B, N, heads, K]; first: which head there is its number 0."""
        return pl.BlockSpec((None, self.tokens, None, self.width), lambda i, h, b: (b, 0, first + h, 0))

    @property
    def numbers(self) -> pl.BlockSpec:
        """One number a query of the program's head, of an array [B, H, N]."""
        return pl.BlockSpec((None, None, self.tokens), lambda i, h, b: (b, h, 0))

    def of_example(self, *sizes: int) -> pl.BlockSpec:
        """The program's example in an array [B, *sizes]."""
        return pl.BlockSpec((None, *sizes), lambda i, h, b: (b, *(0 for _ in sizes)))


class _Span:
    """One block of tokens: which of them there are, and loads and stores of these."""

    def __init__(self, shape: Shape, number: Any):
        self.slice = pl.ds(number * shape.block, shape.block)
        self.inside = number * shape.block + jnp.arange(shape.block) < shape.tokens

    def load(self, ref: Any) -> Array:
        """The rows of [N, K], or numbers of [N]; zeros where there is no token."""
        if len(ref.shape) == 1:
            return triton.load(ref.at[self.slice], mask=self.inside, other=0)
        return triton.load(ref.at[self.slice, :], mask=self.inside[:, None], other=0)

    def store(self, ref: Any, x: Array, *head: Any) -> None:
        """Write numbers [n] into [N], or rows [n, K] into [N, K] or, of a head, into [N, heads, K]."""
        if x.ndim == 1:
            triton.store(ref.at[self.slice], x, mask=self.inside)
        else:
            triton.store(ref.at[self.slice, *head, :], x.astype(ref.dtype), mask=self.inside[:, None])


def _dot(a: Array, b: Array, **transposed: bool) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return triton.dot(a, b, precision=precision, **transposed)


def _seen(columns: _Span, seen: Any) -> Array | None:
    """Which keys of a block may be looked at, bool [1, n]; None: all that there are."""
    return None if seen is None else columns.load(seen)[None, :] != 0


def _scores(shape: Shape, q: Array, k: Array, columns: _Span, seen: Array | None) -> Array:
    """Scores of a block of queries and one of keys, as exponents of 2."""
    scores = _dot(q, k, trans_b=True) * (shape.width**-0.5 * _LOG2_E)
    if seen is not None:
        scores = jnp.where(seen, scores, _UNSEEN)
    return jnp.where(columns.inside[None, :], scores, -jnp.inf)


def _kept(shape: Shape, head: Any, rows: _Span, columns: _Span, keep: Any) -> Array | float:
    """What dropout multiplies the weights of a head by: 0 or 1 / kept."""
    if keep is None:
        return 1.0
    inside = rows.inside[:, None] & columns.inside[None, :]
    bits = triton.load(keep.at[rows.slice, columns.slice], mask=inside, other=0).astype(jnp.int32)
    return jnp.where((bits >> head) & 1 != 0, 1 / shape.kept, 0.0)


def forward_kernel(shape: Shape, q: Any, k: Any, v: Any, seen: Any, keep: Any, **outputs: Any) -> None:
    """Results `out` of a block of queries and, where asked for, what the backward kernel needs of their softmax.

    largest: their largest scores, as exponents of 2; inverse: 1 / the sum of the others' powers relative to it.
    """
    rows, head = _Span(shape, pl.program_id(0)), pl.program_id(1)
    queries = rows.load(q)

    def look(number: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, largest, total = carry
        columns = _Span(shape, number)
        scores = _scores(shape, queries, columns.load(k), columns, _seen(columns, seen))
        now = jnp.maximum(largest, scores.max(axis=1))
        weights, shrink = jnp.exp2(scores - now[:, None]), jnp.exp2(largest - now)
        dropped = (weights * _kept(shape, head, rows, columns, keep)).astype(shape.dtype)
        out = out * shrink[:, None] + _dot(dropped, columns.load(v))
        return out, now, total * shrink + weights.sum(axis=1)

    start = jnp.zeros((shape.block, shape.width)), jnp.full(shape.block, -jnp.inf), jnp.zeros(shape.block)
    out, largest, total = lax.fori_loop(0, shape.blocks, look, start)
    rows.store(outputs["out"], out / total[:, None])
    if "largest" in outputs:
        rows.store(outputs["largest"], largest)
        rows.store(outputs["inverse"], 1 / total)


def backward_kernel(shape: Shape, q: Any, k: Any, v: Any, seen: Any, keep: Any, d_qkv: Any, **saved: Any) -> None:
    """Gradients of a block of tokens: as keys and values, over all queries, then as queries, over all keys.

    saved: `out`, `largest` and `inverse` of the forward kernel, and `d_out`, the gradient of `out`.
    """
    here, head = _Span(shape, pl.program_id(0)), pl.program_id(1)

    def of_queries(rows: _Span) -> tuple[Array, ...]:
        d_out = rows.load(saved["d_out"])
        along = (d_out.astype(jnp.float32) * rows.load(saved["out"]).astype(jnp.float32)).sum(axis=1)
        return rows.load(q), d_out, along, rows.load(saved["largest"]), rows.load(saved["inverse"])

    def meet(rows: _Span, columns: _Span, queries: tuple[Array, ...], keys: Array, values: Array) -> tuple[Array, Array]:
        """Weights after dropout, and the gradient of the products of queries and keys."""
        own, d_out, along, largest, inverse = queries
        looked = _seen(columns, seen)
        weights = jnp.exp2(_scores(shape, own, keys, columns, looked) - largest[:, None]) * inverse[:, None]
        kept = _kept(shape, head, rows, columns, keep)
        d_scores = weights * (_dot(d_out, values, trans_b=True) * kept - along[:, None]) * shape.width**-0.5
        if looked is not None:
            d_scores = jnp.where(looked, d_scores, 0.0)
        return (weights * kept).astype(shape.dtype), d_scores.astype(shape.dtype)

    keys, values = here.load(k), here.load(v)

    def over_queries(number: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = _Span(shape, number)
        queries = of_queries(rows)
        weights, d_scores = meet(rows, here, queries, keys, values)
        return carry[0] + _dot(d_scores, queries[0], trans_a=True), carry[1] + _dot(weights, queries[1], trans_a=True)

    zeros = jnp.zeros((shape.block, shape.width))
    d_keys, d_values = lax.fori_loop(0, shape.blocks, over_queries, (zeros, zeros))
    here.store(d_qkv, d_keys, shape.heads + head)
    here.store(d_qkv, d_values, 2 * shape.heads + head)

    queries = of_queries(here)

    def over_keys(number: Any, d_queries: Array) -> Array:
        columns = _Span(shape, number)
        their = columns.load(k)
        return d_queries + _dot(meet(here, columns, queries, their, columns.load(v))[1], their)

    here.store(d_qkv, lax.fori_loop(0, shape.blocks, over_keys, zeros), head)
