"""README.md of a model folder: how open_clip and transformers load the model, as code that runs as it stands there.

Embeddings take what no config of transformers says: how tokens are pooled, the projections, and unit length.
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.config import BertConfig, CLIPConfig, GPTConfig, LlamaConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry
from biomedclip_jax.interop.formats import _preprocessor as preprocessor

FILE = "README.md"
HEADS = "heads.safetensors"

# open_clip builds BERT from a hub name or a folder, and takes a relative one from where it was started
_MOVING = """# After this folder was moved

biomedclip_jax reads it wherever it is.

## open_clip

It builds the text tower from the folder that two fields of `open_clip_config.json` name, `hf_model_name` and
`hf_tokenizer_name` under `model_cfg`, `text_cfg`: a folder of the machine on which this was written. Give both the name
of this folder, by hand or with this:

```python
import json
from pathlib import Path

import open_clip

folder = Path("FOLDER").resolve()  # where it is now
path = folder / "open_clip_config.json"
content = json.loads(path.read_text())
content["model_cfg"]["text_cfg"] |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
path.write_text(json.dumps(content, indent=2))

model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False).eval()
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
```

## transformers

"""
_CONVERT = """It takes the two towers from a folder each, which this command makes of this one. The folder that it writes
names no other place and may be moved.

```bash
biomedclip convert FOLDER PAIR --format huggingface
```

"""
_NO_TOWERS = "It has no form for this model: use open_clip or biomedclip_jax.\n"
_PAIR = """# Two towers for transformers

`vision` and `text` are for transformers' `AutoModel`, `heads.safetensors` has the projections into the space of both
and the temperature. No file here names another place: the folder may be moved. biomedclip_jax reads it whole.

"""
_ADAPTED = """This model also has adapters beside its weights, in `adapters.safetensors`, which only biomedclip_jax applies: the
towers alone, loaded with `AutoModel`, are not this model.
"""


def moved_folder(config: CLIPConfig, heads: Sequence[Entry] | None, preprocess: PreprocessConfig) -> str:
    """Of an open_clip folder whose config names a folder of this machine.

    heads: the projections of its pair of towers; None: it has no such form.
    """
    return _MOVING + (_NO_TOWERS if heads is None else _CONVERT + _code(config, heads, preprocess, True, "PAIR"))


def tower_pair(
    config: CLIPConfig, heads: Sequence[Entry], preprocess: PreprocessConfig, text: Path, *, adapted: bool = False
) -> str:
    """Of a pair of towers; heads: its projections; text: the folder that has the tokenizer's files by now."""
    as_class = not isinstance(config.text, BertConfig) and (text / "tokenizer.json").is_file()
    return _PAIR + (_ADAPTED if adapted else _code(config, heads, preprocess, not as_class, "FOLDER"))


def _code(config: CLIPConfig, heads: Sequence[Entry], preprocess: PreprocessConfig, auto: bool, name: str) -> str:
    """auto: AutoTokenizer reads the tokenizer as it is; it would take apart that of a language model in tokenizer.json."""
    tokenizer = "AutoTokenizer" if auto else "PreTrainedTokenizerFast"
    image, text = config.vit, config.text
    try:
        preprocessor.preprocessor_json(preprocess)
        processor = True
    except UserError:
        processor = False
    imported = ("AutoImageProcessor",) if processor else ()
    lines = [
        *("from pathlib import Path", "", "import torch", "from safetensors.torch import load_file"),
        f"from transformers import {', '.join(sorted((*imported, 'AutoModel', tokenizer)))}",
        "",
        f'folder = Path("{name}")  # with vision, text and {HEADS}, where it is now',
        'vision = AutoModel.from_pretrained(folder / "vision").eval()',
        'text = AutoModel.from_pretrained(folder / "text").eval()',
        f'tokenizer = {tokenizer}.from_pretrained(folder / "text")',
        *(() if isinstance(text, BertConfig) else _padding(text.pad_id)),
        *(('processor = AutoImageProcessor.from_pretrained(folder / "vision")',) if processor else ()),
        f'heads = load_file(folder / "{HEADS}")',
        *("", "", "def dense(x, name):"),
        '    return torch.nn.functional.linear(x, heads[f"{name}.weight"], heads.get(f"{name}.bias"))',
        *("", "", "@torch.no_grad()", "def encode_image(pixels):"),
        f"    # float32 [B, 3, {image.image_size}, {image.image_size}], normalised"
        + (', as processor(images, return_tensors="pt")["pixel_values"]' if processor else ""),
        *_pooled_image(config),
        *_projected("image", heads),
        *("", "", "@torch.no_grad()", "def encode_text(texts):"),
        f'    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length={text.context_length}, '
        'return_tensors="pt")',
        *_pooled_text(config),
        *_projected("text", heads),
    ]
    return "\n".join(["```python", *lines, "```", ""])


def _padding(pad_id: int) -> tuple[str, ...]:
    return f"tokenizer.pad_token = tokenizer.convert_ids_to_tokens({pad_id})", 'tokenizer.padding_side = "right"'


def _pooled_image(config: CLIPConfig) -> list[str]:
    image = config.vit
    if image.pool == "mean_prenorm":
        return ["    x = vision(pixels, output_hidden_states=True).hidden_states[-1].mean(dim=1)"]
    tokens = "[:, 0]" if image.pool == "cls" else f"[:, {image.prefix_tokens} :].mean(dim=1)"
    return [f"    x = vision(pixels).last_hidden_state{tokens}"]


def _pooled_text(config: CLIPConfig) -> list[str]:
    text = config.text
    if isinstance(text, GPTConfig | LlamaConfig):
        state = '    x = text(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state'
        lengths = '    lengths = tokens["attention_mask"].sum(dim=1)'
        last = "(lengths - 1).clamp(min=0)"
        if text.pool == "first_eos":  # a text without padding has no such token, and CLEFT takes its first
            last = "torch.where(lengths < x.shape[1], lengths, 0)"
        return [state, lengths, f"    x = x[torch.arange(len(x)), {last}]"]
    assert isinstance(text, BertConfig)
    if text.pool == "cls_pooler":
        return ["    x = text(**tokens).pooler_output"]
    state = "    x = text(**tokens).last_hidden_state"
    if text.pool == "cls":
        return [f"{state}[:, 0]"]
    mask = '    mask = tokens["attention_mask"][:, :, None]'
    if text.pool == "max":
        return [state, mask, '    x = x.masked_fill(mask == 0, float("-inf")).amax(dim=1)']
    return [state, mask, "    x = (x * mask).sum(dim=1) / mask.sum(dim=1)"]


def _projected(side: str, heads: Sequence[Entry]) -> list[str]:
    kernels = {e.path: e.names[0][0] for e in heads if e.path.startswith(f"{side}_head/") and e.path.endswith("/kernel")}
    layers = [kernels[path].removeprefix("heads.").removesuffix(".weight") for path in sorted(kernels)]
    lines = [f'    x = dense(x, "{layer}")' for layer in layers]
    if len(lines) == 2:
        lines.insert(1, "    x = torch.nn.functional.gelu(x)")
    return [*lines, "    return torch.nn.functional.normalize(x, dim=-1)"]
