"""Everything that can be configured, as frozen dataclasses that check themselves.

A config is built in Python (`configs/*.py`) or read from a model folder by `biomedclip_jax.interop`. A wrong value raises
`UserError` when the object is made, so nothing downstream has to check again.
"""

from biomedclip_jax.config.adapters import (
    UNADAPTED,
    AdaLoRAConfig,
    Adaptation,
    AdapterConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
)
from biomedclip_jax.config.data import (
    DEFAULT_TEMPLATE,
    AugmentConfig,
    DataConfig,
    Mix,
)
from biomedclip_jax.config.losses import (
    Classification,
    ClassLoss,
    Loss,
    MultiLabel,
    PairLoss,
    Sigmoid,
    Softmax,
)
from biomedclip_jax.config.model import (
    OPENAI_MEAN,
    OPENAI_STD,
    CLIPConfig,
    HeadKind,
    Interpolation,
    PreprocessConfig,
    ResizeMode,
)
from biomedclip_jax.config.run import (
    RunConfig,
    TrainConfig,
)
from biomedclip_jax.config.saved import (
    from_json,
    to_json,
)
from biomedclip_jax.config.towers import (
    Activation,
    BertConfig,
    BertPool,
    CausalPool,
    ClipTextConfig,
    GPTConfig,
    ImageConfig,
    ImagePool,
    LlamaConfig,
    OwnTower,
    TextConfig,
    ViTConfig,
)
from biomedclip_jax.config.training import (
    ComputeConfig,
    Gather,
    OptimizerConfig,
    Remat,
    Rule,
    Schedule,
    ShardingConfig,
    Stage,
)

__all__ = [
    "DEFAULT_TEMPLATE",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "UNADAPTED",
    "Activation",
    "AdaLoRAConfig",
    "Adaptation",
    "AdapterConfig",
    "AugmentConfig",
    "BertConfig",
    "BertPool",
    "CLIPConfig",
    "CausalPool",
    "ClassLoss",
    "Classification",
    "ClipTextConfig",
    "ComputeConfig",
    "DataConfig",
    "GPTConfig",
    "Gather",
    "HeadKind",
    "IA3Config",
    "ImageConfig",
    "ImagePool",
    "Interpolation",
    "LlamaConfig",
    "LoRAConfig",
    "Loss",
    "Mix",
    "MultiLabel",
    "OptimizerConfig",
    "OwnTower",
    "PairLoss",
    "PrefixConfig",
    "PreprocessConfig",
    "Remat",
    "ResizeMode",
    "Rule",
    "RunConfig",
    "Schedule",
    "ShardingConfig",
    "Sigmoid",
    "Softmax",
    "Stage",
    "TextConfig",
    "TrainConfig",
    "ViTConfig",
    "from_json",
    "to_json",
]
