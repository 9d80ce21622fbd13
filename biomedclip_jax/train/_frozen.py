"""What no stage of a run trains: how it is stored, and why it is not in checkpoints.

Parameters that a pretrained tower or model brings and that are never trained are made again when a run goes on.
Beside a checkpoint stands their fingerprint, so that other weights under the same name are noticed.
"""

from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.fingerprint import fingerprint
from biomedclip_jax.interop.formats.adapter_folder import rounded
from biomedclip_jax.models.adapters import is_adapter
from biomedclip_jax.train.optimizer import Flat, Optimizer

POSITIONS = "image/position"  # changes with the image size, also where it is not trained


def stored(params: dict[str, Any], config: TrainConfig, optimizer: Optimizer) -> dict[str, Any]:
    """The parameters as the state has them: those that no stage trains in `ComputeConfig.frozen_dtype`."""
    trained = set(optimizer.all_trained())
    flat = flatten_dict(params, sep="/")
    still = {path: leaf for path, leaf in flat.items() if path not in trained}
    return unflatten_dict(flat | rounded(still, config.compute.frozen_dtype), sep="/")


def sources(config: TrainConfig) -> dict[str, str]:
    """{beginning of a parameter path: folder or hub address} of the pretrained weights that a run starts from."""
    given = {"": config.model_init, "image/": config.image_init, "text/": config.text_init}
    return {beginning: source for beginning, source in given.items() if source is not None}


def made_again(paths: list[str], config: TrainConfig, optimizer: Optimizer) -> list[str]:
    """The `paths` that checkpoints leave out: parameters that are pretrained and that no stage trains."""
    trained, pretrained = set(optimizer.all_trained()), tuple(sources(config))
    still = [path for path in paths if path not in trained and not is_adapter(path) and path != POSITIONS]
    # what answers questions may be made anew beside a pretrained model, from word vectors and from what the images are like
    still = [path for path in still if not path.startswith("answering/")]
    return [path for path in still if pretrained and path.startswith(pretrained)]


def without_frozen(params: dict[str, Any], config: TrainConfig, optimizer: Optimizer) -> dict[str, Any]:
    """The parameters as a checkpoint has them; all of them where nothing is left out."""
    flat = flatten_dict(params, sep="/")
    left_out = set(made_again(list(flat), config, optimizer))
    return unflatten_dict({path: leaf for path, leaf in flat.items() if path not in left_out}, sep="/")


def frozen_fingerprint(params: dict[str, Any], config: TrainConfig, optimizer: Optimizer) -> str | None:
    """The fingerprint of the parameters that are not in checkpoints; None where checkpoints have all of them."""
    flat: Flat = flatten_dict(params, sep="/")
    paths = made_again(list(flat), config, optimizer)
    return fingerprint({path: flat[path] for path in paths}) if paths else None


def check_frozen(found: str | None, expected: str, config: TrainConfig) -> None:
    """UserError if the fingerprint `found` of the pretrained weights is not that of those the run began with."""
    if found != expected:
        names = ", ".join(sources(config).values())
        raise UserError(
            f"{names}: these are not the weights that this run began with (fingerprint {found}, expected {expected}), and its "
            "checkpoints do not have what it never trains; bring them back, or choose another --workdir"
        )
