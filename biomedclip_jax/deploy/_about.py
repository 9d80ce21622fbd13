"""What lies beside the files of a tower: model.json, the tokenizer, and a README.md with code that runs."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biomedclip_jax.config import PreprocessConfig, to_json
from biomedclip_jax.config.towers import reads_padding
from biomedclip_jax.data.text import Tokenizer, cleaner
from biomedclip_jax.files import write_text
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import copy_tokenizer

PLATFORMS = ("cpu", "cuda", "tpu")  # that StableHLO programs are made for
_PLAIN = {"gray": False, "stretch": False, "square_size": None, "otsu_crop": False, "resize_size": None}


def write_about(model: Model, folder: Path, form: str) -> None:
    """Write the three into the folder. form: "onnx" or "stablehlo"."""
    text = model.config.text
    copy_tokenizer(model, folder)
    tokenizer = Tokenizer(model.tokenizer, text.context_length, text.pad_id, text.vocab_size)
    length = text.context_length if reads_padding(text) or (form == "stablehlo" and whole_context(text)) else None
    tokenizer.save(folder / "tokenizer.json", length)
    about = {
        "logit_scale": float(model.params["logit_scale"]),
        "logit_bias": float(model.params["logit_bias"]) if "logit_bias" in model.params else None,
        "embed_width": model.config.embed_width,
        "image": json.loads(to_json(model.preprocess)),
        "text": {"context_length": text.context_length, "pad_id": text.pad_id, "padded_to_context_length": length is not None},
    }
    write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(folder / "README.md", _readme(model, form))


def whole_context(text: Any) -> bool:
    """Whether the program of a text tower needs texts of one length: JAX decides by it while it reads the program."""
    return reads_padding(text) or getattr(text, "pool", "") == "first_eos"


def image_code(config: PreprocessConfig) -> list[str] | None:
    """Lines of Python that make `pixels`, float32 [S, S, 3], of a file; None where it takes more than a few."""
    if any(getattr(config, name) != value for name, value in _PLAIN.items()) or config.resize_mode not in (
        "shortest",
        "squash",
    ):
        return None
    s, by = config.image_size, config.interpolation.upper()
    lines = [
        'image = Image.open("photo.jpg")',
        'assert image.mode[0] not in "IF", "more than 8 bits: bring it to 8 first"',
    ]
    if config.resize_mode == "squash":
        lines.append(f'image = image.resize(({s}, {s}), Image.Resampling.{by}).convert("RGB")')
    else:
        lines += [
            "w, h = image.size",
            f"w, h = ({s}, int({s} * h / w)) if w <= h else (int({s} * w / h), {s})",
            f"left, top = round((w - {s}) / 2), round((h - {s}) / 2)",
            f"image = image.resize((w, h), Image.Resampling.{by})",
            f'image = image.crop((left, top, left + {s}, top + {s})).convert("RGB")',
        ]
    lines.append(f"mean, std = np.float32({list(config.mean)}), np.float32({list(config.std)})")
    return [*lines, "pixels = (np.asarray(image, np.float32) / 255 - mean) / std"]


_HEAD = {
    "onnx": """# Two towers as ONNX files

`image.onnx` takes `pixels`, float32 [batch, 3, {size}, {size}], `text.onnx` takes `tokens`, int64 [batch, length]; both
give `embedding`, float32 [batch, {width}], of unit length. Batch and length are dynamic, length up to {context}.
""",
    "stablehlo": """# Two towers as StableHLO programs

`image.stablehlo` takes the weights and pixels, float32 [batch, {size}, {size}, 3], `text.stablehlo` the weights and tokens,
int32 [batch, {length}]; both give embeddings, float32 [batch, {width}], of unit length. The batch is dynamic{dynamic}. They
were made by jax {jax} and jaxlib {jaxlib} for {platforms}. jax promises that they run with a jaxlib that was built up to six
months after this one, or up to three weeks before it
(https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees). Nothing else is needed.
""",
}


def _readme(model: Model, form: str) -> str:
    import jax

    config, pixels = model.config, image_code(model.preprocess)
    head = _HEAD[form].format(
        size=config.image.image_size,
        width=config.embed_width,
        context=config.text.context_length,
        length=config.text.context_length if whole_context(config.text) else "length",
        dynamic="" if whole_context(config.text) else f", and so is length, up to {config.text.context_length}",
        jax=jax.__version__,
        jaxlib=version("jaxlib"),
        platforms=", ".join(PLATFORMS),
    )
    scale = ['scale = np.exp(about["logit_scale"])', 'scores = scale * image @ text.T + (about["logit_bias"] or 0)']
    if form == "onnx":
        imports = ["import json", "", "import numpy as np", "import onnxruntime", *_used(pixels)]
        made = [
            'image = onnxruntime.InferenceSession("image.onnx").run(None, {"pixels": pixels.transpose(2, 0, 1)[None]})[0]',
            'text = onnxruntime.InferenceSession("text.onnx").run(None, {"tokens": tokens})[0]',
        ]
        kind = "np.int64"
    else:
        imports = ["import json", "", "import numpy as np", *_used(pixels)]
        imports[-1:] = ["from jax import export", *imports[-1:], "from safetensors.numpy import load_file"]
        made = [
            'weights = load_file("weights.safetensors")',
            'encode_image = export.deserialize(bytearray(open("image.stablehlo", "rb").read()))',
            'encode_text = export.deserialize(bytearray(open("text.stablehlo", "rb").read()))',
            "image = np.asarray(encode_image.call(weights, pixels[None]))",
            "text = np.asarray(encode_text.call(weights, tokens))",
        ]
        kind = "np.int32"
    clean = cleaner(model.tokenizer)
    tokens = [
        f"texts = {json.dumps([clean(text) for text in _EXAMPLES], ensure_ascii=False)}",
        f'tokens = np.array([e.ids for e in Tokenizer.from_file("tokenizer.json").encode_batch(texts)], {kind})',
    ]
    shown = pixels or [f"pixels = np.zeros(({config.image.image_size}, {config.image.image_size}, 3), np.float32)  # see below"]
    code = [*imports, "from tokenizers import Tokenizer", "", 'about = json.load(open("model.json"))']
    code += [*shown, *tokens, *made, *scale, "print(scores)"]
    note = (
        _DEEP
        if pixels
        else "\nWhat an image becomes is in model.json, under image, and takes more than a few lines: "
        "`biomedclip_jax.Processor` does it.\n"
    )
    cleaned = clean(_UNCLEAN)
    if cleaned != _UNCLEAN:
        note += f"\nTexts are written otherwise before they become tokens: {_UNCLEAN!r} is {cleaned!r}.\n"
    return "\n".join([head, "```python", *code, "```", note, _CLEAN])


_EXAMPLES = ("this is a photo of chest X-ray", "this is a photo of brain MRI")
_UNCLEAN = "A chest X-ray, PA view."
_CLEAN = """`biomedclip_jax` also repairs broken Unicode, resolves HTML entities and collapses whitespace (open_clip's cleaning)
before a text becomes tokens; do so where there is any.
"""


_DEEP = """
The lines above are for images of 8 bits. Pillow alone makes deeper ones (16-bit PNG and TIFF) white or black, and does not
read DICOM: `biomedclip_jax.data.images.load.load_image` makes of them the 8-bit images that the model is used with.
"""


def _used(pixels: list[str] | None) -> list[str]:
    return ["from PIL import Image"] if pixels else []
