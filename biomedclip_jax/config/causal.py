"""Sizes of the causal language models that can be text towers."""

from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive

CausalPool = Literal["last_token", "first_eos"]
GPTActivation = Literal["gelu_tanh", "gelu"]


@dataclass(frozen=True)
class GPTConfig:
    """A GPT-2. The defaults are BioMedLM (stanford-crfm/BioMedLM, 2,594,247,680 parameters) with CLEFT's captions.

    Padding is the end-of-text token, on the right. pool: "last_token" is the last token of the caption; "first_eos", as CLEFT
    was released, the first padding token after it, and the very first token of a caption that fills `context_length`.
    """

    vocab_size: int = 28_896
    context_length: int = 64  # captions are cut here
    positions: int = 1_024  # rows of the position table
    width: int = 2_560
    depth: int = 32
    heads: int = 20
    mlp_width: int = 10_240
    pool: CausalPool = "last_token"
    inverse_layer_scale: bool = True  # attention scores of block i, counted from 1, are divided by i; GPT-2's own are not
    dropout: float = 0.1  # of what attention and MLP add
    embedding_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: GPTActivation = "gelu_tanh"
    layer_norm_eps: float = 1e-5
    pad_id: int = 28_895

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "context_length", "positions", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=CausalPool, activation=GPTActivation)
        check_heads(self)
        check(self.context_length <= self.positions, self, "context_length", f"at most positions = {self.positions}")
        check(0 <= self.pad_id < self.vocab_size, self, "pad_id", f"a token id, below vocab_size = {self.vocab_size}")
        for field in ("dropout", "embedding_dropout", "attention_dropout"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")


@dataclass(frozen=True)
class LlamaConfig:
    """A LLaMA: RMSNorm, rotary positions, SwiGLU, no biases. The defaults are Llama 2 7B, of which meditron-7b is made.

    Padding and pooling as in `GPTConfig`. meditron-7b has a larger vocabulary: see its config.json.
    """

    vocab_size: int = 32_000
    context_length: int = 64
    positions: int = 2_048  # the longest text; there is no table
    width: int = 4_096
    depth: int = 32
    heads: int = 32
    key_value_heads: int = 32  # fewer than heads: groups of queries share keys and values
    mlp_width: int = 11_008
    pool: CausalPool = "last_token"
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    pad_id: int = 2

    def __post_init__(self) -> None:
        check_positive(
            self, "vocab_size", "context_length", "positions", "width", "depth", "heads", "key_value_heads", "mlp_width"
        )
        check_choices(self, pool=CausalPool)
        check_heads(self)
        check(self.heads % self.key_value_heads == 0, self, "key_value_heads", f"a divisor of heads = {self.heads}")
        even = self.width // self.heads % 2 == 0
        check(even, self, "heads", "heads of an even width: rotary positions turn pairs of numbers")
        check(self.context_length <= self.positions, self, "context_length", f"at most positions = {self.positions}")
        check(0 <= self.pad_id < self.vocab_size, self, "pad_id", f"a token id, below vocab_size = {self.vocab_size}")
        check(self.rope_theta > 0, self, "rope_theta", "a number above 0")
