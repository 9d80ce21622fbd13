"""A model in memory, as it was read from a folder or file and as it can be written again."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, PreprocessConfig
from biomedclip_jax.interop._mapping import Report

Params = dict[str, Any]  # a nested dict of arrays, of the structure that `models.abstract_model` gives


@dataclass(frozen=True)
class Model:
    """A model as it stood in a folder. `params` are float32."""

    config: CLIPConfig
    preprocess: PreprocessConfig
    params: Params
    tokenizer: Path  # the folder with the tokenizer's files, or its one file
    report: Report = dataclasses.field(default_factory=Report)
    text_model: str = ""  # what open_clip calls BERT: a hub name, or a folder; "" where there is none
    custom_text: bool = False  # CLIP's own text tower, but under open_clip's "text." prefix
    adaptation: Adaptation = UNADAPTED  # what `params` have beside the model's own weights, such as a prefix
