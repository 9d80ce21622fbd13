"""Sizes of the towers: vision transformer, BERT, CLIP's own text transformer, GPT-2, LLaMA."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive

if TYPE_CHECKING:
    from biomedclip_jax.config.training import ComputeConfig

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
ImagePool = Literal["cls", "mean", "mean_prenorm"]
BertPool = Literal["cls", "cls_pooler", "mean", "max"]
CausalPool = Literal["last_token", "first_eos"]
GPTActivation = Literal["gelu_tanh", "gelu"]


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer: timm's `VisionTransformer` and CLIP's own image tower are both spelled with these fields.

    The defaults are BiomedCLIP's ViT-B/16 (timm `vit_base_patch16_224`).
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    pool: ImagePool = "cls"  # "mean": of the patches; "mean_prenorm": of all tokens before the last norm (CLEFT)
    class_token: bool = True
    registers: int = 0
    position_on_prefix: bool = True  # timm: not no_embed_class; False adds positions to the patches only
    position_on_registers: bool = True  # False: of the prefix only the class token has a position (DINOv2's own layout)
    patch_bias: bool = True  # CLIP's own towers have none
    norm_pre: bool = False  # CLIP's ln_pre
    norm_after_pool: bool = False  # timm's fc_norm; makes a difference for mean pooling only
    layer_scale: bool = False
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=ImagePool, activation=Activation)
        check_heads(self)
        check(self.registers >= 0, self, "registers", "0 or more")
        check(self.image_size % self.patch_size == 0, self, "image_size", f"a multiple of patch_size = {self.patch_size}")
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
    """A BERT encoder (post-norm). The defaults are PubMedBERT / BiomedBERT base as BiomedCLIP uses it."""

    vocab_size: int = 30_522
    context_length: int = 256  # captions are cut here
    positions: int = 512  # rows of the position table
    token_types: int = 2
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    pool: BertPool = "cls"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    pad_id: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "context_length", "positions", "token_types", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=BertPool, activation=Activation)
        check_heads(self)
        check(self.context_length <= self.positions, self, "context_length", f"at most positions = {self.positions}")
        for field in ("dropout", "attention_dropout"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")


@dataclass(frozen=True)
class ClipTextConfig:
    """CLIP's own text transformer: causal, pre-norm, the feature is read at the end-of-text token (the largest id)."""

    vocab_size: int = 49_408
    context_length: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_width: int = 2048
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    pad_id: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "context_length", "width", "depth", "heads", "mlp_width")
        check_choices(self, activation=Activation)
        check_heads(self)


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
    """The same of an image tower, which also says what images it takes."""

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        ...


def features(tower: Any) -> int:
    """Width of what the tower of this config gives for one image or text: its own, unless it ends in a projection."""
    return tower.features if isinstance(tower, OwnTower) else tower.width


ImageConfig = ViTConfig | OwnImageTower
TextConfig = BertConfig | ClipTextConfig | GPTConfig | LlamaConfig
