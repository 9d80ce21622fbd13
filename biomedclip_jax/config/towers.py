"""Sizes of the towers: vision transformer, BERT, CLIP's own text transformer, GPT-2, LLaMA."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive

if TYPE_CHECKING:
    from biomedclip_jax.config.training import ComputeConfig

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
ImagePool = Literal["cls", "mean", "mean_prenorm", "map"]
BertPool = Literal["cls", "cls_pooler", "mean", "max"]
ClipTextPool = Literal["end", "last", "eos"]
CausalPool = Literal["last_token", "first_eos"]
GPTActivation = Literal["gelu_tanh", "gelu"]


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer: timm's `VisionTransformer` and CLIP's own image tower are both spelled with these fields.

    The defaults are BiomedCLIP's ViT-B/16 (timm `vit_base_patch16_224`).
    """

    image_size: int = 224
    """Side of the images in pixels, a multiple of patch_size; with pool = 'map', what is over beside the last whole patch is
    not seen (SigLIP's 384 pixels have patches of 14)."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    width: int = 768
    """Numbers in the vector of a patch, a multiple of heads."""
    depth: int = 12
    """Transformer blocks, one after another."""
    heads: int = 12
    """Attention heads in a block."""
    mlp_width: int = 3072
    """Width of the hidden layer of a block's MLP."""
    pool: ImagePool = "cls"
    """How tokens become one vector: the class token (cls), the mean of the patches (mean), the mean of all tokens before the
    last norm (mean_prenorm, CLEFT's), or attention of a learned query to the patches, and an MLP (map, SigLIP's)."""
    class_token: bool = True
    """Whether a learned token stands before the patches."""
    registers: int = 0
    """Further learned tokens between the class token and the patches, as in DINOv2 with registers; 0: none."""
    position_on_prefix: bool = True
    """Whether the class token and registers have position embeddings, too; the opposite of timm's no_embed_class."""
    position_on_registers: bool = True
    """Whether registers have position embeddings where the class token has one; DINOv2 gives them none."""
    patch_bias: bool = True
    """Whether the projection of the patches has a bias; CLIP's own towers have none."""
    norm_pre: bool = False
    """Whether a LayerNorm stands before the first block (CLIP's ln_pre)."""
    norm_after_pool: bool = False
    """Whether the last norm comes after pooling (timm's fc_norm); this makes a difference for pool mean only."""
    layer_scale: bool = False
    """Whether attention and MLP are multiplied by learned vectors before they are added (DINOv2)."""
    activation: Activation = "gelu"
    """Nonlinearity of the MLPs: the exact GELU, its tanh form (GPT-2), or x·sigmoid(1.702 x) (quick_gelu, OpenAI's CLIP)."""
    layer_norm_eps: float = 1e-6
    """Number added to the variance in LayerNorm."""

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=ImagePool, activation=Activation)
        check_heads(self)
        check(self.registers >= 0, self, "registers", "0 or more")
        whole = self.image_size % self.patch_size == 0 or (self.pool == "map" and self.image_size > self.patch_size)
        check(whole, self, "image_size", f"a multiple of patch_size = {self.patch_size}")
        check(self.class_token or self.pool != "cls", self, "class_token", "True with pool = 'cls'")
        registers = self.position_on_registers or (self.registers > 0 and self.position_on_prefix)
        check(registers, self, "position_on_registers", "True where there are no registers, or no positions on the prefix")

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: the class token, then the registers."""
        return int(self.class_token) + self.registers

    @property
    def prefix_positions(self) -> int:
        """Rows of the position table before those of the patches."""
        if not self.position_on_prefix:
            return 0
        return self.prefix_tokens if self.position_on_registers else int(self.class_token)


@dataclass(frozen=True)
class BertConfig:
    """A BERT or RoBERTa encoder (post-norm). The defaults are PubMedBERT / BiomedBERT base as BiomedCLIP uses it."""

    vocab_size: int = 30_522
    """Different tokens: rows of the embedding table."""
    context_length: int = 256
    """Longest caption in tokens, start and end included; longer ones are cut."""
    positions: int = 512
    """Rows of the position table, at least position_offset + context_length."""
    position_offset: int = 0
    """Row of a caption's first token in the position table: 0 in a BERT, pad_id + 1 in a RoBERTa."""
    token_types: int = 2
    """Rows of the token type table; captions use the first."""
    width: int = 768
    """Numbers in the vector of a token, a multiple of heads."""
    depth: int = 12
    """Transformer blocks, one after another."""
    heads: int = 12
    """Attention heads in a block."""
    mlp_width: int = 3072
    """Width of the hidden layer of a block's MLP."""
    pool: BertPool = "cls"
    """How tokens become one vector: the first token (cls), the first token through BERT's pooler, a dense layer with tanh
    (cls_pooler), or the mean or the maximum over all tokens but padding."""
    dropout: float = 0.1
    """Probability, in training, that a number of the embeddings or of what attention and MLP add is dropped; 0: none."""
    attention_dropout: float = 0.1
    """Probability, in training, that an attention weight is dropped; 0: none."""
    activation: Activation = "gelu"
    """Nonlinearity of the MLPs: the exact GELU, its tanh form, or x·sigmoid(1.702 x) (quick_gelu)."""
    layer_norm_eps: float = 1e-12
    """Number added to the variance in LayerNorm."""
    pad_id: int = 0
    """Id of the padding token, which no token looks at."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "context_length", "positions", "token_types", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=BertPool, activation=Activation)
        check_heads(self)
        check(self.position_offset in (0, self.pad_id + 1), self, "position_offset", f"0, or pad_id + 1 = {self.pad_id + 1}")
        most = f"at most {self.longest}: positions = {self.positions}"
        if self.position_offset:
            most += f", of which captions begin at {self.position_offset}"
        check(self.context_length <= self.longest, self, "context_length", most)
        for field in ("dropout", "attention_dropout"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")

    @property
    def longest(self) -> int:
        """Tokens of the longest text that there are positions for."""
        return self.positions - self.position_offset


@dataclass(frozen=True)
class ClipTextConfig:
    """The text transformer of CLIP and SigLIP, pre-norm.

    CLIP's is causal and read at the end-of-text token, SigLIP's is neither: its tokens see all others, padding too, and it
    is read at the last of `context_length`.
    """

    vocab_size: int = 49_408
    """Different tokens: rows of the embedding table; with pool = 'end', the last one ends a text."""
    context_length: int = 77
    """Longest caption in tokens, start and end included; longer ones are cut."""
    width: int = 512
    """Numbers in the vector of a token, a multiple of heads."""
    depth: int = 12
    """Transformer blocks, one after another."""
    heads: int = 8
    """Attention heads in a block."""
    mlp_width: int = 2048
    """Width of the hidden layer of a block's MLP."""
    activation: Activation = "gelu"
    """Nonlinearity of the MLPs: the exact GELU, its tanh form, or x·sigmoid(1.702 x) (quick_gelu, OpenAI's CLIP)."""
    layer_norm_eps: float = 1e-5
    """Number added to the variance in LayerNorm."""
    causal: bool = True
    """Whether a token looks at none behind it; if not, it looks at all, padding too."""
    pool: ClipTextPool = "end"
    """Which token stands for the caption: the one with the largest id, CLIP's end-of-text (end), the first with the id
    eos_id (eos, MetaCLIP 2's), or the last of context_length, padding of all but the longest captions (last, SigLIP's)."""
    eos_id: int = 2
    """Id of the token that ends a text, for pool = 'eos'."""
    pad_id: int = 0
    """Id of the token that fills captions up; where they are not causal, or pool = 'last', it is part of what is computed."""

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "context_length", "width", "depth", "heads", "mlp_width")
        check_choices(self, activation=Activation, pool=ClipTextPool)
        check_heads(self)
        check(0 <= self.pad_id < self.vocab_size, self, "pad_id", f"a token id, below vocab_size = {self.vocab_size}")
        ends = self.pool != "eos" or 0 <= self.eos_id < self.vocab_size
        check(ends, self, "eos_id", f"a token id, below vocab_size = {self.vocab_size}")

    @property
    def reads_padding(self) -> bool:
        """Whether padding makes a difference to a caption, so that all must be filled up to `context_length`."""
        return not self.causal or self.pool == "last"


@dataclass(frozen=True)
class GPTConfig:
    """A GPT-2 as text tower; the defaults are BioMedLM (2,594,247,680 parameters) with CLEFT's length of captions.

    Padding is the end-of-text token, on the right. BioMedLM: stanford-crfm/BioMedLM.
    """

    vocab_size: int = 28_896
    """Different tokens: rows of the embedding table."""
    context_length: int = 64
    """Longest caption in tokens; longer ones are cut."""
    positions: int = 1_024
    """Rows of the position table, at least context_length."""
    width: int = 2_560
    """Numbers in the vector of a token, a multiple of heads."""
    depth: int = 32
    """Transformer blocks, one after another."""
    heads: int = 20
    """Attention heads in a block."""
    mlp_width: int = 10_240
    """Width of the hidden layer of a block's MLP."""
    pool: CausalPool = "last_token"
    """Which token stands for the caption: its last one (last_token), or, as CLEFT was released, the first padding token after
    it and the very first token of a caption that fills context_length (first_eos)."""
    inverse_layer_scale: bool = True
    """Whether attention scores of block i, counted from 1, are divided by i, as in BioMedLM; GPT-2's own are not."""
    dropout: float = 0.1
    """Probability, in training, that a number of what attention and MLP add is dropped; 0: none."""
    embedding_dropout: float = 0.1
    """Probability, in training, that a number of the embeddings is dropped; 0: none."""
    attention_dropout: float = 0.1
    """Probability, in training, that an attention weight is dropped; 0: none."""
    activation: GPTActivation = "gelu_tanh"
    """Nonlinearity of the MLPs: GELU's tanh form, as in GPT-2, or the exact GELU."""
    layer_norm_eps: float = 1e-5
    """Number added to the variance in LayerNorm."""
    pad_id: int = 28_895
    """Id of the end-of-text token, which captions are padded with."""

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

    Padding is the end-of-text token, on the right. meditron-7b has a larger vocabulary: see its config.json.
    """

    vocab_size: int = 32_000
    """Different tokens: rows of the embedding table."""
    context_length: int = 64
    """Longest caption in tokens; longer ones are cut."""
    positions: int = 2_048
    """Longest text in tokens that the model was trained for, at least context_length; there is no table of positions."""
    width: int = 4_096
    """Numbers in the vector of a token, a multiple of heads."""
    depth: int = 32
    """Transformer blocks, one after another."""
    heads: int = 32
    """Attention heads in a block, each of an even width."""
    key_value_heads: int = 32
    """Heads of keys and values, a divisor of heads; with fewer than heads, groups of queries share them."""
    mlp_width: int = 11_008
    """Width of the hidden layer of a block's MLP."""
    pool: CausalPool = "last_token"
    """Which token stands for the caption: its last one (last_token), or the first padding token after it and the very first
    token of a caption that fills context_length (first_eos)."""
    rope_theta: float = 10_000.0
    """Base of the rotary positions' wavelengths; larger ones tell longer texts apart."""
    rms_norm_eps: float = 1e-5
    """Number added to the mean square in RMSNorm."""
    pad_id: int = 2
    """Id of the end-of-text token, which captions are padded with."""

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


@runtime_checkable
class OwnTower(Protocol):
    """Sizes of a tower that also make the tower: a frozen dataclass for a model that is only read (`interop.baselines`).

    `models` knows the towers that are trained and written here, and asks every other one for its module.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    quirk: ClassVar[str]  # what other formats cannot say of the tower; it ends an error message

    @property
    def features(self) -> int:
        """Width of what the tower gives for one image or text."""
        ...

    def build(self, compute: "ComputeConfig", rngs: Any) -> Any:
        """The Flax module, called as `models.vit.ViT` or `models.bert.Bert` is. rngs: `nnx.Rngs`."""
        ...


class OwnImageTower(OwnTower, Protocol):
    """Sizes of an image tower that also make the tower, and say what images it takes."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        ...


def features(tower: Any) -> int:
    """Width of what the tower of this config gives for one image or text: its own, unless it ends in a projection."""
    return tower.features if isinstance(tower, OwnTower) else tower.width


def reads_padding(text: Any) -> bool:
    """Whether padding makes a difference to a text's features, so that short texts save no work."""
    return isinstance(text, ClipTextConfig) and text.reads_padding


ImageConfig = ViTConfig | OwnImageTower
TextConfig = BertConfig | ClipTextConfig | GPTConfig | LlamaConfig
