"""Everything that can be configured, as frozen dataclasses that check themselves.

A config is built in Python (`configs/*.py`) or read from a model folder by `biomedclip_jax.interop`. A wrong value raises
`UserError` when the object is made, so nothing downstream has to check again.
"""

from biomedclip_jax.config.model import (
    OPENAI_MEAN,
    OPENAI_STD,
    Activation,
    BertConfig,
    BertPool,
    CLIPConfig,
    ClipTextConfig,
    HeadKind,
    ImagePool,
    Interpolation,
    PreprocessConfig,
    ResizeMode,
    ViTConfig,
)
from biomedclip_jax.config.run import (
    DEFAULT_TEMPLATE,
    DataConfig,
    Mix,
    TrainConfig,
)
from biomedclip_jax.config.saved import (
    from_json,
    to_json,
)
from biomedclip_jax.config.training import (
    AugmentConfig,
    ComputeConfig,
    Gather,
    Objective,
    OptimizerConfig,
    Remat,
    Schedule,
    ShardingConfig,
    Stage,
)

__all__ = [
    "DEFAULT_TEMPLATE",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "Activation",
    "AugmentConfig",
    "BertConfig",
    "BertPool",
    "CLIPConfig",
    "ClipTextConfig",
    "ComputeConfig",
    "DataConfig",
    "Gather",
    "HeadKind",
    "ImagePool",
    "Interpolation",
    "Mix",
    "Objective",
    "OptimizerConfig",
    "PreprocessConfig",
    "Remat",
    "ResizeMode",
    "Schedule",
    "ShardingConfig",
    "Stage",
    "TrainConfig",
    "ViTConfig",
    "from_json",
    "to_json",
]
