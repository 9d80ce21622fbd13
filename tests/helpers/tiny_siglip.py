"""A SigLIP of transformers with random weights, and tokenizers of its two kinds with self-made vocabularies."""

import json
import struct
from pathlib import Path
from typing import Any

from helpers.reference import load_open_clip

TOWER = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}
WORDS = ("photo", "chest", "ray", "brain", "of", "a", "an", "x", "image", "lung", "an_image")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = ["<unk>", "</s>", *(f"▁{word}" for word in WORDS), "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS[1:])]


def siglip(folder: Path, *, image_size: int = 32, seed: int = 0, **text: Any) -> Any:
    """transformers' SiglipModel, in eval mode; written into the folder with a tokenizer of SigLIP's first kind."""
    load_open_clip()
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(seed)
    config = SiglipConfig(
        text_config=TOWER | {"vocab_size": 120, "max_position_embeddings": 16} | text,
        vision_config=TOWER | {"image_size": image_size, "patch_size": 8},
    )
    model = SiglipModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.1 if parameter.ndim < 2 else 0.05))
        model.logit_scale.fill_(4.765)  # near the released ones, above CLIP's limit
        model.logit_bias.fill_(-16.5)
    model.save_pretrained(folder)
    write_spiece(folder)
    processor = {"image_processor_type": "SiglipImageProcessor", "size": {"height": image_size, "width": image_size}}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "do_convert_rgb": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model.eval()


def _field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([number << 3, value])
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def write_spiece(folder: Path, *, model_type: int = 1) -> None:
    """spiece.model, a protocol buffer as sentencepiece writes it, and SigLIP's tokenizer_config.json."""
    content = b""
    for piece in PIECES:
        kind = {"<unk>": 2, "</s>": 3}.get(piece, 1)
        score = 0.0 if kind > 1 else -2.0 if len(piece) > 2 else -8.0
        content += _field(1, _field(1, piece.encode()) + _field(2, score) + _field(3, kind))
    content += _field(2, _field(3, model_type)) + _field(3, _field(1, b"identity"))
    (folder / "spiece.model").write_bytes(content)
    _write_config(
        folder, "SiglipTokenizer", {"0": "<unk>", "1": "</s>"}, eos_token="</s>", pad_token="</s>", do_lower_case=True
    )


def write_gemma(folder: Path) -> None:
    """tokenizer.json with byte pairs and the special tokens of Gemma, of which SigLIP 2 uses the end token alone."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    (folder / "spiece.model").unlink(missing_ok=True)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, "▁", *LETTERS, *LETTERS.upper()[:26], "ch", "che"])}
    model = BPE(vocabulary, [("c", "h"), ("ch", "e")], unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    tokens = {str(i): token for i, token in enumerate(special)}
    _write_config(folder, "GemmaTokenizerFast", tokens, eos_token="<eos>", pad_token="<pad>", bos_token="<bos>", **ends)


def _write_config(folder: Path, kind: str, tokens: dict[str, str], **more: Any) -> None:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    added = {number: {"content": token} | flags for number, token in tokens.items()}
    content = {"tokenizer_class": kind, "unk_token": "<unk>", "added_tokens_decoder": added, "model_max_length": 64, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
