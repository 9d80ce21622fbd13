"""Everything that can be configured, as frozen dataclasses that check themselves.

In comes a Python file of `configs/`, with flags of the command line (`files.py`, `overrides.py`), or what `interop`
found in a model folder; out goes a `TrainConfig` or `CLIPConfig`, or one line of `UserError` that names the field.
Nothing downstream checks again. Every field says below itself what it does, and `biomedclip train CONFIG --help`
prints that. Read `run.py` first: a run from above, then `training.py` (stages, optimizer), `losses.py`, `data.py`,
`model.py` and `towers.py`.
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
from biomedclip_jax.config.answering import AnsweringConfig, MeterConfig, QCRConfig, Vision
from biomedclip_jax.config.data import (
    DEFAULT_TEMPLATE,
    AugmentConfig,
    DataConfig,
    Mix,
)
from biomedclip_jax.config.files import from_json, to_json
from biomedclip_jax.config.losses import (
    AnswerLoss,
    Answers,
    Classification,
    ClassLoss,
    Loss,
    MultiLabel,
    PairLoss,
    QuestionTypes,
    Sigmoid,
    Softmax,
)
from biomedclip_jax.config.model import (
    CLIPConfig,
    HeadKind,
    Interpolation,
    PreprocessConfig,
    ResizeMode,
)
from biomedclip_jax.config.pixels import OPENAI_MEAN, OPENAI_STD
from biomedclip_jax.config.run import (
    RunConfig,
    TrainConfig,
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
    reads_padding,
)
from biomedclip_jax.config.training import (
    AttentionForm,
    ComputeConfig,
    Gather,
    OptimizerConfig,
    Remat,
    Rule,
    Schedule,
    ShardingConfig,
    Stage,
    check_stage,
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
    "AnswerLoss",
    "AnsweringConfig",
    "Answers",
    "AttentionForm",
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
    "MeterConfig",
    "Mix",
    "MultiLabel",
    "OptimizerConfig",
    "OwnTower",
    "PairLoss",
    "PrefixConfig",
    "PreprocessConfig",
    "QCRConfig",
    "QuestionTypes",
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
    "Vision",
    "check_stage",
    "from_json",
    "reads_padding",
    "to_json",
]
