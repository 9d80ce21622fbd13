"""What a run may add to a model: adapters (small trained parts in the blocks of a tower), and context before labels."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.config.checks import check, check_patterns, check_positive
from biomedclip_jax.config.model import CLIPConfig
from biomedclip_jax.config.towers import BertConfig, GPTConfig, LlamaConfig, ViTConfig
from biomedclip_jax.errors import UserError

Layers = tuple[str, ...]

# the dense layers of a block, and the parts of one that may have an adapter of their own
LAYERS: Layers = ("attention/qkv", "attention/out", "mlp/fc1", "mlp/fc2")
PARTS = {"attention/query": 0, "attention/key": 1, "attention/value": 2}  # thirds of the output of attention/qkv
LLAMA_LAYERS: Layers = (*PARTS, "attention/out", "mlp/gate", "mlp/up", "mlp/down")  # there the parts are layers


def block_layers(tower: object) -> Layers:
    """The dense layers in the blocks of a tower with this config."""
    return LLAMA_LAYERS if isinstance(tower, LlamaConfig) else LAYERS


def _meant(owner: object, field: str, patterns: tuple[str, ...], block: Layers) -> Layers:
    """The layers of `block`, and the parts, that the patterns mean.

    UserError for one that means none, and for a layer beside its own part.
    """
    check_patterns(owner, field, patterns)
    parts = PARTS if "attention/qkv" in block else {}
    of = f"patterns of {'' if parts else 'the layers of a LLaMA, '}{', '.join((*block, *parts))}"
    found: list[str] = []
    for pattern in patterns:
        meant = [pattern] if pattern in parts else [layer for layer in block if fnmatch.fnmatchcase(layer, pattern)]
        check(bool(meant), owner, field, of)
        found += [name for name in meant if name not in found]
    both = "attention/qkv" in found and any(part in found for part in parts)
    check(not both, owner, field, "either attention/qkv or parts of it, not both")
    return tuple(found)


def _check_somewhere(layers_in: Callable[[Layers], Any]) -> None:
    """UserError unless the patterns of an adapter mean something in one kind of tower; `CLIPConfig` knows which it is."""
    errors: list[UserError] = []
    for block in (LAYERS, LLAMA_LAYERS):
        try:
            layers_in(block)
        except UserError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (arXiv 2106.09685): a dense layer gives x·W + alpha/rank · dropout(x)·A·B, with A, B trained.

    The defaults are CLEFT's on GPT-2.
    """

    rank: int = 8
    """Columns of A and rows of B: more can learn more and weigh more."""
    alpha: float = 32.0
    """What the layer adds is multiplied by alpha/rank."""
    dropout: float = 0.1
    """Probability that a number at the adapter's input is dropped in training; 0: none."""
    targets: tuple[str, ...] = ("attention/qkv",)
    """Layers of each block that are adapted, or patterns of them such as 'mlp/*'. PEFT's choice for BERT, ViT and LLaMA is
    attention/query attention/value."""

    def __post_init__(self) -> None:
        check_positive(self, "rank")
        check(self.alpha > 0, self, "alpha", "a number above 0")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        check(len(self.targets) > 0, self, "targets", "at least one layer")
        _check_somewhere(self.layers_in)

    def layers_in(self, block: Layers) -> Layers:
        """The layers and parts of a block that are adapted. UserError for a pattern that means none there."""
        return _meant(self, "targets", self.targets, block)


@dataclass(frozen=True)
class AdaLoRAConfig:
    """AdaLoRA (arXiv 2303.10512) after its ranks were found: a dense layer gives x·W + alpha/rank · dropout(x)·Q·diag(λ)·P."""

    rank: int = 12
    """Rank that the search began with (PEFT's init_r), which divides alpha."""
    alpha: float = 32.0
    """What the layer adds is multiplied by alpha/rank."""
    dropout: float = 0.1
    """Probability that a number at the adapter's input is dropped in training; 0: none."""
    targets: tuple[str, ...] = ("attention/qkv",)
    """Layers of each block that are adapted, or patterns of them such as 'mlp/*'."""
    ranks: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Ranks that the search left: for each layer one number a block, in a file (("attention/qkv", (8, 3, 0, 8)),). A layer
    that is not named keeps `rank` in every block."""

    def __post_init__(self) -> None:
        check_positive(self, "rank")
        check(self.alpha > 0, self, "alpha", "a number above 0")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        check(len(self.targets) > 0, self, "targets", "at least one layer")
        _check_somewhere(self.layers_in)
        fits = all(0 <= n <= self.rank for _, numbers in self.ranks for n in numbers)
        check(fits, self, "ranks", f"numbers from 0 to rank = {self.rank}")

    def layers_in(self, block: Layers) -> Layers:
        """The layers and parts of a block that are adapted. UserError for a pattern that means none there, and other ranks."""
        layers = _meant(self, "targets", self.targets, block)
        named = all(layer in layers for layer, _ in self.ranks)
        check(named, self, "ranks", f"numbers for {', '.join(layers)} only")
        return layers

    def ranks_of(self, layer: str) -> tuple[int, ...] | None:
        """The rank in each block, if it is not the same in all."""
        return dict(self.ranks).get(layer)


@dataclass(frozen=True)
class IA3Config:
    """(IA)³ (arXiv 2205.05638): what leaves some layers and what enters others is multiplied, number by number.

    The defaults are PEFT's for GPT-2.
    """

    outputs: tuple[str, ...] = ("attention/qkv",)
    """Layers of each block, or parts or patterns of them, whose output is multiplied. PEFT's choice for BERT and LLaMA is
    attention/key attention/value."""
    inputs: tuple[str, ...] = ("mlp/fc2",)
    """Whole layers of each block, or patterns of them, whose input is multiplied. PEFT's choice for BERT is attention/out
    mlp/fc2, for LLaMA mlp/down."""

    def __post_init__(self) -> None:
        check(len(self.outputs) + len(self.inputs) > 0, self, "outputs", "at least one layer here or in inputs")
        _check_somewhere(self.layers_in)

    def layers_in(self, block: Layers) -> tuple[Layers, Layers]:
        """The layers and parts of a block whose output is multiplied, and the layers whose input is. UserError as elsewhere."""
        outputs = _meant(self, "outputs", self.outputs, block)
        inputs = _meant(self, "inputs", self.inputs, block)
        whole = all(layer in block for layer in inputs)
        check(whole, self, "inputs", f"whole layers, {', '.join(block)}: their parts have one input")
        check(not set(inputs) & set(outputs), self, "inputs", "layers that are not in outputs, too")
        return outputs, inputs


@dataclass(frozen=True)
class PrefixConfig:
    """Prefix tuning (arXiv 2101.00190): trained keys and values before those of the text, in every block; no MLP makes them.

    In BERT, GPT-2 and LLaMA the positions of the text are counted on from the prefix, as transformers does with past keys.
    """

    tokens: int = 20
    """Trained keys and values before those of the text, in each block."""

    def __post_init__(self) -> None:
        check_positive(self, "tokens")


AdapterConfig = LoRAConfig | AdaLoRAConfig | IA3Config | PrefixConfig


@dataclass(frozen=True)
class Adaptation:
    """What is trained beside a model's own weights. By default nothing."""

    image: AdapterConfig | None = None
    """Adapter in the blocks of the image tower, which must be a vision transformer."""
    text: AdapterConfig | None = None
    """Adapter in the blocks of the text tower."""
    context: int = 0
    """Vectors that are learned to stand before a label (CLEFT's second stage, CoOp), for a loss of labels; 0: none."""

    def __post_init__(self) -> None:
        kinds = (LoRAConfig, AdaLoRAConfig, IA3Config, PrefixConfig)
        for tower in ("image", "text"):
            known = getattr(self, tower) is None or isinstance(getattr(self, tower), kinds)
            check(known, self, tower, f"None or one of {', '.join(kind.__name__ for kind in kinds)}")
        check(self.context >= 0, self, "context", "0 or more")

    @property
    def unmergeable(self) -> "Adaptation":
        """What stays beside the weights when the rest has been merged into them: prefixes."""
        image, text = (each if isinstance(each, PrefixConfig) else None for each in (self.image, self.text))
        return Adaptation(image, text)

    def check_fits(self, model: CLIPConfig) -> None:
        """UserError, with field and expectation, for what a model of these sizes has no place for."""
        vit = self.image is None or isinstance(model.image, ViTConfig)
        check(vit, self, "image", "None: only a vision transformer (ViT) can have one")
        for tower in ("image", "text"):
            self._check_adapter_fits(tower, getattr(model, tower))
        # a causal tower has them before its text, others inside it, beside a start, an end and a name
        most = model.text.context_length - 3
        if isinstance(model.text, GPTConfig | LlamaConfig):
            prefix = self.text.tokens if isinstance(self.text, PrefixConfig) else 0
            most = model.text.positions - prefix - model.text.context_length
        check(self.context <= most, self, "context", f"at most {most}, or there is no place for a label in the text tower")

    def _check_adapter_fits(self, tower: str, sizes: Any) -> None:
        adapter = getattr(self, tower)
        if isinstance(adapter, LoRAConfig | AdaLoRAConfig | IA3Config):
            adapter.layers_in(block_layers(sizes))
        if isinstance(adapter, AdaLoRAConfig):
            fits = all(len(ranks) == sizes.depth for _, ranks in adapter.ranks)
            check(fits, self, tower, f"ranks of {sizes.depth} numbers, one a block")
        if isinstance(adapter, PrefixConfig) and isinstance(sizes, BertConfig | GPTConfig | LlamaConfig):
            most = sizes.longest if isinstance(sizes, BertConfig) else sizes.positions
            fits = adapter.tokens + sizes.context_length <= most
            check(fits, self, tower, f"tokens + context_length = {sizes.context_length} at most positions = {most}")


UNADAPTED = Adaptation()
