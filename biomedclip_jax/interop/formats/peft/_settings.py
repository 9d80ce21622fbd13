"""What an `adapter_config.json` says, read as PEFT reads it: every field is used, known to be harmless, or refused.

A field that is not there has PEFT's default. Sources: PEFT 0.21 `tuners/lora/config.py`, `tuners/lora/layer.py`,
`tuners/adalora/config.py`, `tuners/ia3/config.py`, `tuners/prefix_tuning/config.py`, `tuners/tuners_utils.py`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.fields import Fields, flag, number, shown

CONFIG_FILE = "adapter_config.json"
KINDS = ("LORA", "ADALORA", "IA3", "PREFIX_TUNING")

_EMPTY: tuple[Any, ...] = (None, [], {})
_NOTES = {
    **dict.fromkeys(("peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type"), "a note"),
    "inference_mode": "whether it was being trained",
}
_TARGETS = ("peft_type", "target_modules", "exclude_modules")
_TRAINING = dict.fromkeys(
    ("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    "how ranks were searched; what was found is in the tensors",
)
_LOW_RANK = Fields(
    used=("lora_alpha", "lora_dropout", "init_lora_weights", *_TARGETS),
    harmless=_NOTES
    | {
        "fan_in_fan_out": "PEFT goes by the layer's own kind",
        "megatron_core": "read with megatron_config only",
        "qalora_group_size": "read with use_qalora only",
        "runtime_config": "where arrays are while a model is made",
        "merge_weights": "of PEFT before 0.3: when weights are merged",
        **dict.fromkeys(
            ("loftq_config", "eva_config", "corda_config", "lora_ga_config"), "read with that init_lora_weights only"
        ),
    },
    only={
        "bias": ("none",),
        **dict.fromkeys(("use_dora", "lora_bias", "use_qalora", "ensure_weight_tying"), (False, None)),
        **dict.fromkeys(("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"), _EMPTY),
        **dict.fromkeys(("megatron_config", "alora_invocation_tokens", "arrow_config", "kasa_config"), _EMPTY),
        **dict.fromkeys(("monteclora_config", "velora_config", "enable_lora"), _EMPTY),
        "use_bdlora": (None, False),
    },
)
_OF_LAYERS = ("layers_to_transform", "layers_pattern")
_FIELDS = {
    "LORA": Fields(
        (*_LOW_RANK.used, "r", "use_rslora", "rank_pattern", "alpha_pattern", *_OF_LAYERS), _LOW_RANK.harmless, _LOW_RANK.only
    ),
    "ADALORA": Fields(
        (*_LOW_RANK.used, "init_r", *_OF_LAYERS),
        {**_LOW_RANK.harmless, **_TRAINING, "r": "AdaLoRA has init_r", "rank_pattern": "ranks are those of the tensors"},
        {**_LOW_RANK.only, "use_rslora": (False, None), "alpha_pattern": _EMPTY},
    ),
    "IA3": Fields(
        _TARGETS,
        _NOTES
        | {
            "fan_in_fan_out": "PEFT goes by the layer's own kind",
            "feedforward_modules": "seen in the shapes of the tensors",
            "init_ia3_weights": "how training began; all of it is in the file",
        },
        {"modules_to_save": _EMPTY},
    ),
    "PREFIX_TUNING": Fields(
        ("peft_type", "num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads"),
        _NOTES | dict.fromkeys(("encoder_hidden_size", "init_weights"), "of the MLP, or how training began"),
        {"prefix_projection": (False, None), "num_transformer_submodules": (1, None), "modules_to_save": _EMPTY},
    ),
}

# Inits that leave the model's own weights as they are. With any other a part of them is taken out when training begins,
# and the adapter is trained on the rest.
_HARMLESS_INITS = ("gaussian", "orthogonal", "eva", "mica")


def check_fields(described: Mapping[str, Any], where: Path) -> str:
    """The kind of the adapter, one of `KINDS`. UserError names a field or value that has no meaning here."""
    kind = described.get("peft_type")
    if kind not in KINDS:
        raise UserError(f"{where}: peft_type = {shown(kind)}; supported: {', '.join(KINDS)}")
    fields = _FIELDS[kind]
    known = (*fields.used, *fields.harmless, *fields.only)
    # a setting of a later PEFT that is null asks for nothing
    fields.check({name: value for name, value in described.items() if value is not None or name in known}, str(where))
    init = described.get("init_lora_weights", True)
    plain = init is None or isinstance(init, bool) or (isinstance(init, str) and init.lower() in _HARMLESS_INITS)
    if kind == "LORA" and not plain:
        raise UserError(
            f"{where}: init_lora_weights = {shown(init)}: this adapter was trained on weights from which a part was taken out "
            "when training began, so it does not fit the model itself; convert it where it was trained: PEFT's "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=the adapter as it was before training)"
        )
    return kind


@dataclass(frozen=True)
class Targets:
    """Which modules of a model PEFT adapts."""

    where: str
    target: str | list[str] | None
    exclude: str | list[str]
    layers: list[int] | None
    layers_pattern: list[str]

    def __contains__(self, module: object) -> bool:
        """Whether PEFT adapts the dense layer with this name, as `check_target_module_exists` decides it."""
        name = str(module)
        if _named(self.exclude, name):
            return False
        if self.target is None:  # chosen by PEFT from the kind of model: what it chose is in the file
            return True
        if isinstance(self.target, str) and self.target.lower() == "all-linear":
            return True
        if not _named(self.target, name):
            return False
        if not self.layers or isinstance(self.target, str):
            return True
        patterns = self.layers_pattern or [r"[^.]*"]
        starts = r".*?\." if not self.layers_pattern else r"(?:^|.*?\.)"
        found = next((match for p in patterns if (match := re.match(rf"{starts}{p}\.(\d+)\.", name))), None)
        return found is not None and int(found[1]) in self.layers


def _named(names: str | list[str], module: str) -> bool:
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def read_targets(described: Mapping[str, Any], where: Path) -> Targets:
    """UserError for names that are none, and for a pattern that is no regular expression."""
    layers = described.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers
    if layers is not None and not (isinstance(layers, list) and all(type(n) is int for n in layers)):
        raise UserError(f"{where}: layers_to_transform = {shown(layers)}: expected the numbers of blocks")
    target = described.get("target_modules")
    pattern = described.get("layers_pattern") or []
    for name, value in (
        ("target_modules", target),
        ("exclude_modules", described.get("exclude_modules")),
        ("layers_pattern", pattern),
    ):
        names = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(each, str) for each in names):
            raise UserError(f"{where}: {name} = {shown(value)}: expected names of modules, or a regular expression")
    if layers and isinstance(target, str):
        raise UserError(f"{where}: layers_to_transform with target_modules = {shown(target)}: PEFT takes it with a list only")
    targets = Targets(
        str(where), target, described.get("exclude_modules") or [], layers, [pattern] if isinstance(pattern, str) else pattern
    )
    try:
        "a.layer.0.b" in targets  # noqa: B015  the patterns are compiled
    except re.error as error:
        raise UserError(f"{where}: not a regular expression ({error}); expected what PEFT wrote there") from error
    return targets


@dataclass(frozen=True)
class Ranks:
    """Ranks and factors of a LoRA, of all layers or of those that a pattern names."""

    rank: int
    alpha: float
    rslora: bool
    ranks: dict[str, int]
    alphas: dict[str, float]

    def rank_of(self, module: str) -> int:
        """Columns of A in the module with this name."""
        return _of_pattern(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of A and B is multiplied by there."""
        rank = self.rank_of(module)
        return _of_pattern(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def _of_pattern(given: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((value for name, value in given.items() if re.match(rf"(.*\.)?({name})$", module)), default)


def read_ranks(described: Mapping[str, Any], where: Path) -> Ranks:
    """UserError for what is no rank, no factor, or no regular expression."""
    name = str(where)
    patterns = {}
    for field, kind, least in (("rank_pattern", 8, 1), ("alpha_pattern", 8.0, None)):
        given = described.get(field) or {}
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: {field} = {shown(given)}: expected an object, {{module: number}}")
        for module in given:
            try:
                re.compile(module)
            except re.error as error:
                raise UserError(f"{where}: {field}: {shown(module)} is no regular expression ({error})") from error
            number(given, module, kind, f"{name}: {field}", least=least)
        patterns[field] = dict(given)
    return Ranks(
        number(described, "r", 8, name, least=1),
        float(number(described, "lora_alpha", 8.0, name)),
        flag(described, "use_rslora", False, name),
        patterns["rank_pattern"],
        patterns["alpha_pattern"],
    )
