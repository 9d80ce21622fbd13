"""transformers' `preprocessor_config.json` of a CLIP or ViT, read and written.

What it says is what `CLIPImageProcessor` does: resize one side or both, perhaps crop the middle, normalise.
UserError for all else: a file that is silent about a step makes other pixels, and nobody would see it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.formats.huggingface.mapping import read_json

FILE = "preprocessor_config.json"

_RESAMPLING = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # Pillow's numbers


def preprocessor_json(config: PreprocessConfig) -> dict[str, Any]:
    """The content of the file. UserError names the fields of `config` that it cannot say."""
    fits = {
        "resize_mode": config.resize_mode in ("shortest", "squash"),
        "gray": not config.gray,
        "stretch": not config.stretch,
        "square_size": config.square_size is None,
        "otsu_crop": not config.otsu_crop,
    }
    wrong = [f"{field} = {getattr(config, field)!r}" for field, well in fits.items() if not well]
    if wrong:
        raise UserError(
            f"this preprocessing has no form in transformers ({', '.join(wrong)}): its CLIPImageProcessor does no more than "
            "resize, crop the middle and normalise; train without it, and make the image files so instead"
        )
    size = config.image_size
    crops = config.resize_mode == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.resize_size or size} if crops else {"height": size, "width": size},
        "resample": _RESAMPLING[config.interpolation],
        "do_center_crop": crops,
        "crop_size": {"height": size, "width": size},
        "do_convert_rgb": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def read_preprocessor(path: Path, image_size: int) -> PreprocessConfig:
    """How a preprocessor_config.json makes pixels; without one, as transformers does by default.

    UserError names a field with no counterpart here.
    """
    given = read_json(path) if path.is_file() else {}
    for field in ("do_resize", "do_rescale", "do_normalize"):
        if given.get(field, True) is not True:
            raise UserError(f"{path}: {field} = {given[field]!r} is not supported; supported: true")
    names = {number: name for name, number in _RESAMPLING.items()}
    resample = given.get("resample", _RESAMPLING["bicubic"])
    if resample not in names:
        raise UserError(f"{path}: resample = {resample!r} is not supported; supported: {', '.join(map(str, names))}")
    size, crop = given.get("size", image_size), given.get("crop_size", image_size)
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    crops = given.get("do_center_crop", True) is True
    square = {"height": image_size, "width": image_size}
    if (crop not in (image_size, square) and crops) or (shortest is None and size != square) or (shortest and not crops):
        raise UserError(
            f"{path}: size = {size!r}, crop_size = {crop!r}, do_center_crop = {crops}: expected {square}, or a shortest_edge "
            f"and a crop to {square}: the image tower takes {image_size} pixels a side"
        )
    resize: dict[str, Any] = {"resize_mode": "squash"} if shortest is None else {}
    if shortest not in (None, image_size):
        resize = {"resize_size": shortest}
    colours = {ours: tuple(given[theirs]) for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in given}
    return PreprocessConfig(image_size=image_size, interpolation=names[resample], **resize, **colours)  # type: ignore[arg-type]
