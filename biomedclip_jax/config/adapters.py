"""Adapters: small trained parts inside the blocks of a tower whose own weights stay as they are."""

import fnmatch
from dataclasses import dataclass

from biomedclip_jax.config.checks import check, check_patterns, check_positive

# the dense layers of a block, and the parts of one that may have an adapter of their own
LAYERS = ("attention/qkv", "attention/out", "mlp/fc1", "mlp/fc2")
PARTS = {"attention/query": 0, "attention/key": 1, "attention/value": 2}  # thirds of the output of attention/qkv


def _layers(owner: object, field: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The layers and parts that the patterns mean. UserError for one that means none, and for a layer beside its own part."""
    check_patterns(owner, field, patterns)
    found: list[str] = []
    for pattern in patterns:
        meant = [pattern] if pattern in PARTS else [layer for layer in LAYERS if fnmatch.fnmatchcase(layer, pattern)]
        check(bool(meant), owner, field, f"patterns of {', '.join((*LAYERS, *PARTS))}")
        found += [name for name in meant if name not in found]
    both = "attention/qkv" in found and any(part in found for part in PARTS)
    check(not both, owner, field, "either attention/qkv or parts of it, not both")
    return tuple(found)


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (arXiv 2106.09685): a dense layer gives x·W + alpha/rank · dropout(x)·A·B, with A, B trained.

    The defaults are CLEFT's on GPT-2. targets: patterns of a block's layers, "mlp/*" for instance. PEFT's default for BERT and
    ViT is ("attention/query", "attention/value").
    """

    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ("attention/qkv",)

    def __post_init__(self) -> None:
        check_positive(self, "rank")
        check(self.alpha > 0, self, "alpha", "a number above 0")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        check(len(self.layers) > 0, self, "targets", "at least one layer")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers and parts that are adapted."""
        return _layers(self, "targets", self.targets)


@dataclass(frozen=True)
class AdaLoRAConfig:
    """AdaLoRA (arXiv 2303.10512) as it is when its ranks have been found: x·W + alpha/rank · dropout(x)·Q·diag(λ)·P.

    rank: what the search began with (PEFT's init_r); it scales. ranks: what was left of it, for each layer a number a block,
    (("attention/qkv", (8, 3, 0, 8)),); a layer that is not there keeps `rank` in every block.
    """

    rank: int = 12
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ("attention/qkv",)
    ranks: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        check_positive(self, "rank")
        check(self.alpha > 0, self, "alpha", "a number above 0")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        check(len(self.layers) > 0, self, "targets", "at least one layer")
        named = all(layer in self.layers for layer, _ in self.ranks)
        check(named, self, "ranks", f"numbers for {', '.join(self.layers)} only")
        fits = all(0 <= n <= self.rank for _, numbers in self.ranks for n in numbers)
        check(fits, self, "ranks", f"numbers from 0 to rank = {self.rank}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers and parts that are adapted."""
        return _layers(self, "targets", self.targets)

    def ranks_of(self, layer: str) -> tuple[int, ...] | None:
        """The rank in each block, if it is not the same in all."""
        return dict(self.ranks).get(layer)


@dataclass(frozen=True)
class IA3Config:
    """(IA)³ (arXiv 2205.05638): what leaves some layers and what enters others is multiplied, number by number.

    The defaults are PEFT's for GPT-2; for BERT it has outputs=("attention/key", "attention/value"),
    inputs=("attention/out", "mlp/fc2").
    """

    outputs: tuple[str, ...] = ("attention/qkv",)
    inputs: tuple[str, ...] = ("mlp/fc2",)

    def __post_init__(self) -> None:
        check(len(self.scaled_outputs) + len(self.scaled_inputs) > 0, self, "outputs", "at least one layer here or in inputs")
        whole = not any(part in self.scaled_inputs for part in PARTS)
        check(whole, self, "inputs", f"whole layers, {', '.join(LAYERS)}: their parts have one input")
        both = set(self.scaled_inputs) & set(self.scaled_outputs)
        check(not both, self, "inputs", "layers that are not in outputs, too")

    @property
    def scaled_outputs(self) -> tuple[str, ...]:
        """The layers and parts whose output is multiplied."""
        return _layers(self, "outputs", self.outputs)

    @property
    def scaled_inputs(self) -> tuple[str, ...]:
        """The layers whose input is multiplied."""
        return _layers(self, "inputs", self.inputs)


@dataclass(frozen=True)
class PrefixConfig:
    """Prefix tuning (arXiv 2101.00190): trained keys and values before those of the text, in every block; no MLP makes them.

    In BERT and GPT-2 the places of the text are counted on from the prefix, as transformers does with past keys.
    """

    tokens: int = 20

    def __post_init__(self) -> None:
        check_positive(self, "tokens")


AdapterConfig = LoRAConfig | AdaLoRAConfig | IA3Config | PrefixConfig
