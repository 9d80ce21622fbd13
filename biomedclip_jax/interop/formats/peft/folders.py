"""PEFT's adapters of a whole model: a folder of PEFT's own for each tower, `image/` and `text/`, or the one folder alone."""

import dataclasses
from pathlib import Path

from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import AdapterConfig, CLIPConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.formats.adapter_folder import Adapter
from biomedclip_jax.interop.formats.huggingface.mapping import read_json
from biomedclip_jax.interop.formats.peft._read import read_peft, unread_tensors
from biomedclip_jax.interop.formats.peft._settings import CONFIG_FILE, check_fields
from biomedclip_jax.interop.formats.peft._write import write_peft
from biomedclip_jax.interop.formats.peft.names import Flat
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models.adapters import is_adapter, merged

_TOWERS = ("image", "text")


def is_peft(folder: Path) -> bool:
    """Whether PEFT's files are in the folder, or in those of the towers."""
    return any((folder / name / CONFIG_FILE).is_file() for name in ("", *_TOWERS))


def with_peft(base: Model, folder: Path) -> Model:
    """The base model with PEFT's adapters merged into its weights (a prefix stays beside them).

    PEFT does not keep which weights an adapter belongs to: a base of the same sizes is taken for the right one.
    Raises UserError where an adapter fits neither tower, or a single one fits both, and as `read_peft` does.
    """
    adaptation, leaves = base.adaptation, flatten_dict(base.params, sep="/")
    ignored = dict(base.report.ignored)
    for tower, (adapter, own) in _read(folder, base.config).items():
        adaptation = dataclasses.replace(adaptation, **{tower: adapter})
        where = folder / tower if (folder / tower / CONFIG_FILE).is_file() else folder
        unread = unread_tensors(where, getattr(base.config, tower))
        ignored |= dict.fromkeys(unread, "adapter of a pooler: this model reads the last hidden state")
        leaves |= {f"{tower}/{path}": leaf for path, leaf in own.items()}
    adaptation.check_fits(base.config)
    params = merged(base.config, adaptation, unflatten_dict(leaves, sep="/"))
    report = dataclasses.replace(base.report, ignored=ignored)
    return dataclasses.replace(base, adaptation=adaptation.unmergeable, params=params, report=report)


def _read(folder: Path, config: CLIPConfig) -> dict[str, tuple[AdapterConfig, Flat]]:
    """What is in the folders of the towers, or of the one tower that a folder without them fits."""
    folders = {tower: folder / tower for tower in _TOWERS if (folder / tower / CONFIG_FILE).is_file()}
    if folders:
        return {tower: read_peft(own, getattr(config, tower)) for tower, own in folders.items()}
    check_fields(read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)  # what fits no tower is said once
    fitting, reasons = {}, []
    for tower in _TOWERS:
        try:
            fitting[tower] = read_peft(folder, getattr(config, tower))
        except UserError as error:
            reasons.append(f"{tower}: {error}")
    if len(fitting) > 1:
        raise UserError(f"{folder}: fits both towers; give a folder that holds it as image/ or as text/")
    if not fitting:
        raise UserError(f"{folder}: fits neither tower of this model ({'; '.join(reasons)})")
    return fitting


def write_peft_folders(adapter: Adapter, folder: Path) -> list[str]:
    """Write what a run's adapters have learned as PEFT's folders, `image/` and `text/`; the folder must not be there yet.

    Returns the paths of learned parameters that PEFT's folders cannot hold: projections, temperature, word embeddings.
    UserError where there is no adapter, or one that PEFT has not.
    """
    adapters = {tower: getattr(adapter.adaptation, tower) for tower in _TOWERS}
    own = {tower: found for tower, found in adapters.items() if found is not None}
    if not own:
        raise UserError("this model has no adapters; expected the adapter/ folder of a run")

    def write(partial: Path) -> None:
        for tower, found in own.items():
            start = f"{tower}/"
            leaves = {p.removeprefix(start): x for p, x in adapter.parameters.items() if p.startswith(start) and is_adapter(p)}
            source = adapter.sources.get(start, "").removeprefix("hf-hub:")
            write_peft(getattr(adapter.config, tower), found, leaves, partial / tower, source)

    write_folder(folder, write)
    return [path for path in adapter.parameters if not is_adapter(path)]
