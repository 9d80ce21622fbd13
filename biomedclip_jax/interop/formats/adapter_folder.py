"""What a run with adapters has learned, in a small folder of its own, and the model that it makes of its base.

    biomedclip_adapter.json         the configs of base and adapters, and which base they belong to, by fingerprint
    biomedclip_adapter.safetensors  every parameter that is not the base's, under our names: adapters, heads,
                                    temperature

The base is a model folder, or the pretrained towers that the run began with. PEFT's own folders: `peft/`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import Adaptation, CLIPConfig, PreprocessConfig, to_json
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop import initial
from biomedclip_jax.interop._mapping import Report
from biomedclip_jax.interop.fingerprint import fingerprint
from biomedclip_jax.interop.formats.huggingface.mapping import read_json
from biomedclip_jax.interop.formats.tower_pair import saved_adaptation, saved_config
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.interop.tensor_files import read_weights, write_safetensors
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.adapters import merged

CONFIG_FILE = "biomedclip_adapter.json"
_WEIGHTS = "biomedclip_adapter.safetensors"
_ROUNDED = ("kernel", "word")  # large, and read by matrix products and look-ups alone

Flat = dict[str, Any]


def rounded(leaves: Mapping[str, Any], dtype: str) -> Flat:
    """Frozen parameters {path: array} as a run has them: kernels and word embeddings in `dtype`, the rest as it is."""
    return {p: x.astype(dtype) if p.rpartition("/")[2] in _ROUNDED else x for p, x in leaves.items()}


@dataclass(frozen=True)
class Adapter:
    """What a run has learned beside its base model.

    config: of the base. adaptation: what was added to it. parameters: float32 {path: array}.
    base: fingerprint of the other parameters, which a run may have rounded to `frozen_dtype`. sources: where they come
    from, {beginning of a path: folder or hub address}. tokenizer: where the tokenizer comes from.
    """

    config: CLIPConfig
    adaptation: Adaptation
    preprocess: PreprocessConfig
    parameters: Flat
    base: str
    frozen_dtype: str = "float32"
    sources: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""


def write_adapter(adapter: Adapter, folder: Path, *, replace: bool = False) -> None:
    """Write the folder, whole or not at all. UserError if it is there already (unless `replace`)."""
    content = {name: json.loads(to_json(getattr(adapter, name))) for name in ("config", "adaptation", "preprocess")}
    content |= {name: getattr(adapter, name) for name in ("base", "frozen_dtype", "sources", "tokenizer")}
    content["parameters"] = {path: list(leaf.shape) for path, leaf in adapter.parameters.items()}

    def write(partial: Path) -> None:
        (partial / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        write_safetensors(partial / _WEIGHTS, {path: np.asarray(x, np.float32) for path, x in adapter.parameters.items()})

    write_folder(folder, write, replace=replace)


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder that `write_adapter` wrote. UserError for another one, and for missing or misshapen tensors."""
    path = folder / CONFIG_FILE
    content = read_json(path)
    try:
        config, preprocess = (saved_config(content[name]) for name in ("config", "preprocess"))
        adaptation = saved_adaptation(content, "config")
        rest = {name: content[name] for name in ("base", "frozen_dtype", "sources", "tokenizer")}
        wanted = content["parameters"].items()
    except (KeyError, TypeError, StopIteration, AttributeError) as error:
        raise UserError(f"{path}: not an adapter as biomedclip writes it ({error}); write the folder again") from error
    tensors = read_weights(folder / _WEIGHTS)
    shapes: dict[str, Any] = flatten_dict(abstract_model(config, adaptation=adaptation)[1], sep="/")
    for name, shape in wanted:
        if (
            name not in tensors
            or tensors.shape(name) != tuple(shape)
            or name not in shapes
            or shapes[name].shape != tuple(shape)
        ):
            raise UserError(f"{folder / _WEIGHTS}: {name} is missing or has another shape; {path} asks for {tuple(shape)}")
    return Adapter(config, adaptation, preprocess, {name: jnp.asarray(tensors[name]) for name, _ in wanted}, **rest)


def with_adapter(base: Model, adapter: Adapter, source: object) -> Model:
    """The base model with an adapter merged into its weights (a prefix stays beside them). source: what to call the base.

    UserError if it is not the base that the adapter was trained on.
    """
    return _joined(flatten_dict(base.params, sep="/"), adapter, base.tokenizer, base.text_model, base.report, source)


def read_adapted(folder: Path, read_model: Callable[[Path], Model]) -> Model:
    """The model of an adapter folder, on the base that it names itself. UserError if that is gone or has changed.

    read_model: `detect.read_model`, which reads the base.
    """
    adapter = read_adapter(folder)

    def load(source: str) -> Model:
        return read_model(local_folder(source))

    leaves: Flat = {}
    text_model, report = "", Report()
    for beginning, source in adapter.sources.items():
        if not beginning:
            whole = load(source)
            leaves, text_model, report = flatten_dict(whole.params, sep="/"), whole.text_model, whole.report
        elif beginning == "image/":
            leaves |= flatten_dict({"image": initial.starting_image_tower(source, adapter.config.vit, load)}, sep="/")
        else:
            leaves |= flatten_dict({"text": initial.starting_text_tower(source, adapter.config.text, load, {})}, sep="/")
    tokenizer = local_folder(adapter.tokenizer, weights=False)
    return _joined(leaves, adapter, tokenizer, text_model, report, ", ".join(adapter.sources.values()) or folder)


def _joined(leaves: Flat, adapter: Adapter, tokenizer: Path, text_model: str, report: Report, source: object) -> Model:
    paths = flatten_dict(abstract_model(adapter.config, adaptation=adapter.adaptation)[1], sep="/")
    missing = [path for path in paths if path not in adapter.parameters and path not in leaves]
    still = {path: leaves[path] for path in paths if path not in adapter.parameters and path in leaves}
    still = rounded(still, adapter.frozen_dtype)
    if missing or (found := fingerprint(still)) != adapter.base:
        why = f"it has no {missing[0]}" if missing else f"fingerprint {found}, expected {adapter.base}"
        raise UserError(
            f"{source}: not the base that this adapter was trained on ({why}); give the one it names, or train again"
        )
    leaves = {path: jnp.asarray(adapter.parameters.get(path, still.get(path)), jnp.float32) for path in paths}
    params = merged(adapter.config, adapter.adaptation, unflatten_dict(leaves, sep="/"))
    left = adapter.adaptation.unmergeable
    return Model(adapter.config, adapter.preprocess, params, tokenizer, report, text_model, adaptation=left)
