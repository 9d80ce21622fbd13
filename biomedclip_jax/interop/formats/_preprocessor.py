"""transformers' `preprocessor_config.json` of a CLIP or ViT, read and written.

What it says is what `CLIPImageProcessor` does: resize one side or both, perhaps crop the middle, normalise. Every
field is used, known to change nothing, or refused: a step that is passed over makes other pixels, and nobody would
see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedclip_jax.config import OPENAI_MEAN, OPENAI_STD, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.formats.huggingface.mapping import read_json
from biomedclip_jax.support.fields import Fields, choice, flag, number, shown

FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # transformers 5 may write what images and texts become into one file

_RESAMPLING = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # Pillow's numbers


@dataclass(frozen=True)
class _Rule:
    """What one of transformers' classes does where the file says nothing."""

    squashes: bool
    crops: bool
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HALF = (0.5, 0.5, 0.5)
_RULES = {  # by the first part of the class's name; others pad, crop or scale in a way of their own
    "CLIP": _Rule(squashes=False, crops=True, resample="bicubic", mean=OPENAI_MEAN, std=OPENAI_STD),
    "Bit": _Rule(squashes=False, crops=True, resample="bicubic", mean=OPENAI_MEAN, std=OPENAI_STD),
    "ViT": _Rule(squashes=True, crops=False, resample="bilinear", mean=_HALF, std=_HALF),
    "Siglip": _Rule(squashes=True, crops=False, resample="bicubic", mean=_HALF, std=_HALF),
}
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
_FIELDS = Fields(
    used=(
        *("image_processor_type", "feature_extractor_type", "size", "do_center_crop", "crop_size", "resample"),
        *("rescale_factor", "image_mean", "image_std", "default_to_square"),
    ),
    harmless={
        **dict.fromkeys(("processor_class", "_valid_processor_keys", "_valid_kwargs_names", "use_fast", "backend"), "a note"),
        **dict.fromkeys(("return_tensors", "device", "disable_grouping", "input_data_format"), "how a call is made"),
        "do_convert_rgb": "images have three colours here in any case",
    },
    only={
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), (True,)),
        **dict.fromkeys(("do_pad", "rescale_offset", "use_square_size", "do_thumbnail", "do_align_long_axis"), (False, None)),
        **dict.fromkeys(("pad_size", "crop_pct", "size_divisor", "max_size", "do_flip_channel_order"), (None,)),
        "data_format": ("channels_first", None),
    },
)


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
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def read_preprocessor(folder: Path, image_size: int) -> PreprocessConfig:
    """How the files of a folder say that pixels are made; without one, as transformers' CLIP does by default.

    processor_config.json, where it describes the images too, counts before preprocessor_config.json, as in transformers.
    image_size: side of the tower's images in pixels. UserError names a field with no counterpart here.
    """
    path = folder / PROCESSOR_FILE
    whole = read_json(path) if path.is_file() else {}
    where, given = f"{path}: image_processor", whole.get("image_processor")
    if given is None:
        path = folder / FILE
        where, given = str(path), read_json(path) if path.is_file() else {}
    _FIELDS.check(given, where)
    given = {name: value for name, value in given.items() if value is not None}  # null: the class's own
    rule = _rule(given, where)
    factor = number(given, "rescale_factor", 1 / 255, where)
    if abs(255 * factor - 1) > 1e-5:
        raise UserError(f"{where}: rescale_factor = {factor!r} is not supported; supported: 1/255, {1 / 255!r}")
    names = {number: name for name, number in _RESAMPLING.items()}
    interpolation: Any = choice(given, "resample", _RESAMPLING[rule.resample], names, where)
    mean, std = (
        _colours(given, field, default, where) for field, default in (("image_mean", rule.mean), ("image_std", rule.std))
    )
    resize = _resize(given, rule, image_size, where)
    try:
        return PreprocessConfig(image_size=image_size, interpolation=interpolation, mean=mean, std=std, **resize)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _rule(given: Mapping[str, Any], where: str) -> "_Rule":
    """What the class that a file names does by itself; CLIP's, if it names none."""
    field = next((name for name in ("image_processor_type", "feature_extractor_type") if name in given), None)
    if field is None:
        return _RULES["CLIP"]
    known = {f"{name}{ending}": rule for name, rule in _RULES.items() for ending in _ENDINGS}
    return choice(given, field, None, known, where)  # type: ignore[no-any-return]


def _colours(given: Mapping[str, Any], field: str, default: tuple[float, float, float], where: str) -> Any:
    value = given.get(field, default)
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise UserError(f"{where}: {field} = {shown(value)}: expected three numbers, one a colour channel")
    return tuple(number({field: each}, field, 0.0, where) for each in value)


def _resize(given: Mapping[str, Any], rule: "_Rule", image_size: int, where: str) -> dict[str, Any]:
    """The fields of PreprocessConfig that say how images get their size."""
    square = {"height": image_size, "width": image_size}
    default = square if rule.squashes else {"shortest_edge": image_size}
    size, crop = given.get("size", default), given.get("crop_size", image_size)
    crops = flag(given, "do_center_crop", rule.crops, where)
    if isinstance(size, int) and not isinstance(size, bool):
        squashes = flag(given, "default_to_square", rule.squashes, where)
        size = {"height": size, "width": size} if squashes else {"shortest_edge": size}
    well = not crops or crop in (image_size, square)
    if well and size == square:
        return {"resize_mode": "squash"}
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) and len(size) == 1 else None
    if well and crops and shortest is not None:
        shortest = number({"size": shortest}, "size", 1, where, least=1)
        return {} if shortest == image_size else {"resize_size": shortest}
    raise UserError(
        f"{where}: size = {shown(size)}, crop_size = {shown(crop)}, do_center_crop = {crops}: expected {square}, or a "
        f"shortest_edge and a crop to {square}: the image tower takes {image_size} pixels a side"
    )
