"""An adapter folder as a run writes it, for a model folder, without a run."""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import Adaptation, LoRAConfig
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.fingerprint import fingerprint
from biomedclip_jax.interop.formats.adapter_folder import Adapter, write_adapter
from biomedclip_jax.models import init_params
from biomedclip_jax.models.adapters import is_adapter


def make_adapter(base: Path, folder: Path, seed: int = 0) -> Path:
    """LoRA on the image tower of `base`, with random weights that change what it sees."""
    model = read_model(base)
    lora = LoRAConfig(rank=2, targets=("attention/query", "attention/value"))
    adaptation = Adaptation(image=lora)
    rng = np.random.default_rng(seed)
    leaves = flatten_dict(init_params(model.config, seed, adaptation), sep="/")
    own = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves.items() if is_adapter(path)}
    base = fingerprint(flatten_dict(model.params, sep="/"))
    write_adapter(Adapter(model.config, adaptation, model.preprocess, own, base), folder)
    return folder
