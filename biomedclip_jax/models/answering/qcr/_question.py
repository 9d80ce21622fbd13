"""The words of a question: their vectors, the states of a GRU, and what is said of the question as a whole."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig, QCRConfig
from biomedclip_jax.models._shapes import Features, Hidden, Keys, Tokens
from biomedclip_jax.models.answering.qcr._layers import dropped, glorot_linear
from biomedclip_jax.models.layers import linear

States = Float[Array, "B N n"]  # of a GRU, as wide as the model

_SPREAD = 0.4  # of random word vectors: about that of GloVe's


class WordVectors(nnx.Module):
    """The vector of each word, float32 [V, D]; padding, id V, is a vector of zeros and stays one."""

    def __init__(self, config: QCRConfig, rngs: nnx.Rngs):
        shape = len(config.words), config.word_width
        self.table = nnx.Param(_SPREAD * jax.random.normal(rngs.params(), shape))

    def __call__(self, tokens: Tokens) -> Hidden:
        table = self.table[...]
        padding = jnp.zeros((1, table.shape[1]), table.dtype)
        return jnp.concatenate([table, padding])[tokens]


class GRU(nnx.Module):
    """One layer of gated recurrent units over all tokens, padding included; it gives all states [B, N, H].

    Both kernels, `input` [D, 3H] and `hidden` [H, 3H], hold reset gate, update gate and candidate side by side, as the
    rows of PyTorch's weight_ih_l0 and weight_hh_l0 do; so do the biases. The state is float32.
    """

    def __init__(self, d_in: int, width: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.input = linear(d_in, 3 * width, compute, rngs)
        self.hidden = linear(width, 3 * width, compute, rngs)

    def __call__(self, x: Hidden) -> States:
        inputs = self.input(x).astype(jnp.float32).transpose(1, 0, 2)  # [N, B, 3H]
        # the weights pass through the loop as plain arrays: a module must not cross a trace
        graph, state = nnx.split(self.hidden)

        def step(h: Array, given: Array) -> tuple[Array, Array]:
            i_reset, i_update, i_new = jnp.split(given, 3, axis=-1)
            h_reset, h_update, h_new = jnp.split(nnx.merge(graph, state)(h).astype(jnp.float32), 3, axis=-1)
            update = jax.nn.sigmoid(i_update + h_update)
            new = jnp.tanh(i_new + jax.nn.sigmoid(i_reset + h_reset) * h_new)
            h = (1 - update) * new + update * h
            return h, h

        start = jnp.zeros_like(inputs[0, :, : inputs.shape[-1] // 3])
        return lax.scan(step, start, inputs)[1].transpose(1, 0, 2)


class GatedPooling(nnx.Module):
    """The states of a question's words summed with weights that words and states decide, a softmax over all tokens."""

    def __init__(self, config: QCRConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        both = config.word_width + config.width
        self.tanh_gate = glorot_linear(both, config.width, compute, rngs)
        self.sigmoid_gate = glorot_linear(both, config.width, compute, rngs)
        self.weight = glorot_linear(config.width, 1, compute, rngs)

    def __call__(self, words: Hidden, states: States) -> Float[Array, "B n"]:
        both = jnp.concatenate([words, states], axis=-1)
        gated = jnp.tanh(self.tanh_gate(both)) * jax.nn.sigmoid(self.sigmoid_gate(both))
        weights = jax.nn.softmax(self.weight(gated).astype(jnp.float32), axis=1)  # [B, N, 1]
        return (weights * states).sum(axis=1)


class QuestionNet(nnx.Module):
    """An MLP of three layers on the pooled states of a question, with word vectors and a GRU of its own."""

    def __init__(self, config: QCRConfig, widths: tuple[int, int, int], compute: ComputeConfig, rngs: nnx.Rngs):
        """widths: those of the MLP's layers."""
        self.words = WordVectors(config, rngs)
        self.gru = GRU(config.word_width, config.width, compute, rngs)
        self.pooling = GatedPooling(config, compute, rngs)
        self.fc1 = glorot_linear(config.width, widths[0], compute, rngs)
        self.fc2 = glorot_linear(widths[0], widths[1], compute, rngs)
        self.fc3 = glorot_linear(widths[1], widths[2], compute, rngs)
        self.dropout = config.dropout

    def __call__(self, tokens: Tokens, keys: Keys | None) -> Features:
        words = self.words(tokens)
        x = jax.nn.relu(self.fc1(self.pooling(words, self.gru(words))))
        return self.fc3(jax.nn.relu(dropped(self.fc2(x), self.dropout, keys, 0))).astype(jnp.float32)


class QuestionEncoder(nnx.Module):
    """The states of a question's words, from their vectors and a second copy of these that neighbours have smoothed."""

    def __init__(self, config: QCRConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        self.words = WordVectors(config, rngs)
        self.smoothed = WordVectors(config, rngs)
        self.gru = GRU(2 * config.word_width, config.width, compute, rngs)

    def __call__(self, tokens: Tokens) -> States:
        return self.gru(jnp.concatenate([self.words(tokens), self.smoothed(tokens)], axis=-1))
