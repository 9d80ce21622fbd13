"""open_clip's names of the tensors in its checkpoints.

Sources: open_clip `transformer.py: VisionTransformer, TextTransformer`, `timm_model.py`, `hf_model.py`; timm
`vision_transformer.py: VisionTransformer`.
"""

import dataclasses

from biomedclip_jax.config import BertConfig, CLIPConfig, TextConfig, ViTConfig
from biomedclip_jax.interop._mapping import Entry, dense, norm, one, stacked
from biomedclip_jax.interop.baselines.resnet.mapping import BATCH_COUNTS, resnet_entries
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.huggingface.mapping import bert_entries

# Keys that carry nothing: buffers of older versions, and arithmetic that the file repeats.
IGNORED = BATCH_COUNTS | {
    "*.position_ids": "index buffer of older transformers versions",
    "*.token_type_ids": "index buffer of older transformers versions",
    "text.transformer.pooler.*": "BERT's pooler: this model reads the last hidden state",
    "attn_mask": "causal mask, a constant",
    "text.attn_mask": "causal mask, a constant",
    "input_resolution": "a number of the original OpenAI files, known from the config",
    "context_length": "a number of the original OpenAI files, known from the config",
    "vocab_size": "a number of the original OpenAI files, known from the config",
}

OWN_HEAD = "visual.trunk.head.weight"


def entries(config: CLIPConfig, *, timm: bool, text_prefix: str) -> list[Entry]:
    """Every parameter of the model under open_clip's names.

    timm: the image tower is a timm trunk, else CLIP's own ViT or ResNet. text_prefix: "text." in a CustomTextCLIP (always
    with BERT), "" in a plain CLIP.
    """
    if isinstance(config.image, ResNetConfig):
        image = resnet_entries(config.image, "visual.")
    else:
        image = timm_entries(config.vit, "visual.trunk.") if timm else clip_vision_entries(config.vit)
    return [*image, *_text_entries(config.text, text_prefix), *head_entries(config, timm=timm, text_prefix=text_prefix)]


def with_own_head(table: list[Entry]) -> list[Entry]:
    """The table where the projection is timm's own classifier. Such a model is written with open_clip's projection."""
    named = {"visual.head.proj.weight": OWN_HEAD, "visual.head.proj.bias": "visual.trunk.head.bias"}
    return [dataclasses.replace(e, names=tuple(tuple(named.get(n, n) for n in row) for row in e.names)) for e in table]


def head_entries(config: CLIPConfig, *, timm: bool, text_prefix: str, prefix: str = "") -> list[Entry]:
    """Both projections, the temperature and the bias of a sigmoid model; `prefix` stands before each name."""
    text = _text_head_entries(config, f"{prefix}{text_prefix}")
    numbers = ["logit_scale"] if config.init_logit_bias is None else ["logit_scale", "logit_bias"]
    return [
        *_image_head_entries(config, timm, f"{prefix}visual."),
        *text,
        *(one(name, f"{prefix}{name}") for name in numbers),
    ]


def timm_entries(config: ViTConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A ViT under timm's names; `prefix` stands before each of them."""
    c, p = config, prefix
    block = f"{p}blocks.{{}}."
    found = [one(f"{path}patch/kernel", f"{p}patch_embed.proj.weight", "patch")]
    if c.patch_bias:
        found.append(one(f"{path}patch/bias", f"{p}patch_embed.proj.bias"))
    if c.class_token:
        found.append(one(f"{path}class_token", f"{p}cls_token", "batch2"))
    if c.registers:
        found.append(one(f"{path}registers", f"{p}reg_token", "batch1"))
    found.append(one(f"{path}position", f"{p}pos_embed", "batch1"))
    if c.norm_pre:
        found += norm(f"{path}norm_pre", f"{p}norm_pre")
    found += norm(f"{path}norm", f"{p}fc_norm" if c.norm_after_pool else f"{p}norm")
    for ours, theirs in (("norm1", "norm1"), ("norm2", "norm2")):
        found += norm(f"{path}blocks/{ours}", block + theirs, c.depth)
    for ours, theirs in (
        ("attention/qkv", "attn.qkv"),
        ("attention/out", "attn.proj"),
        ("mlp/fc1", "mlp.fc1"),
        ("mlp/fc2", "mlp.fc2"),
    ):
        found += dense(f"{path}blocks/{ours}", block + theirs, c.depth)
    if c.layer_scale:
        found += [stacked(f"{path}blocks/scale{i}", c.depth, f"{block}ls{i}.gamma") for i in (1, 2)]
    if c.pool == "map":
        found += _attention_pool(f"{path}pool/", f"{p}attn_pool.")
    return found


def _attention_pool(path: str, prefix: str) -> list[Entry]:
    kernel, bias = dense(f"{path}qkv", (f"{prefix}q", f"{prefix}kv"))
    return [
        one(f"{path}query", f"{prefix}latent", "batch2"),
        *(dataclasses.replace(entry, shares=(1, 2)) for entry in (kernel, bias)),
        *dense(f"{path}out", f"{prefix}proj"),
        *norm(f"{path}norm", f"{prefix}norm"),
        *dense(f"{path}mlp/fc1", f"{prefix}mlp.fc1"),
        *dense(f"{path}mlp/fc2", f"{prefix}mlp.fc2"),
    ]


def clip_vision_entries(c: ViTConfig) -> list[Entry]:
    """CLIP's own ViT under OpenAI's names; its projection is among the heads."""
    found = [
        one("image/patch/kernel", "visual.conv1.weight", "patch"),
        one("image/class_token", "visual.class_embedding"),
        one("image/position", "visual.positional_embedding"),
        *norm("image/norm", "visual.ln_post"),
        *_resblocks("image/", "visual.transformer.", c.depth),
    ]
    if c.norm_pre:
        found += norm("image/norm_pre", "visual.ln_pre")
    if c.layer_scale:
        names = "visual.transformer.resblocks.{}.ls_"
        found += [stacked(f"image/blocks/scale{i}", c.depth, f"{names}{i}.gamma") for i in (1, 2)]
    return found


def _image_head_entries(config: CLIPConfig, timm: bool, prefix: str) -> list[Entry]:
    if isinstance(config.image, ResNetConfig):
        return dense("image_head/proj", f"{prefix}attnpool.c_proj")
    if not timm:
        return [one("image_head/proj/kernel", f"{prefix}proj")]
    if config.image_head == "linear":
        return dense("image_head/proj", f"{prefix}head.proj", bias=config.image_head_bias)
    if config.image_head == "mlp":
        second = dense("image_head/fc2", f"{prefix}head.mlp.fc2", bias=config.image_head_bias)
        return [*dense("image_head/fc1", f"{prefix}head.mlp.fc1"), *second]
    return []


def _text_head_entries(config: CLIPConfig, prefix: str) -> list[Entry]:
    bert = isinstance(config.text, BertConfig)
    if config.text_head == "mlp":
        return [*dense("text_head/fc1", f"{prefix}proj.0", bias=False), *dense("text_head/fc2", f"{prefix}proj.2", bias=False)]
    if config.text_head == "linear" and bert:
        return dense("text_head/proj", f"{prefix}proj", bias=False)
    if config.text_head == "linear" and config.text_head_bias:
        return dense("text_head/proj", f"{prefix}text_projection")
    if config.text_head == "linear":
        return [one("text_head/proj/kernel", f"{prefix}text_projection")]
    return []


def _text_entries(config: TextConfig, prefix: str) -> list[Entry]:
    if isinstance(config, BertConfig):
        return bert_entries(config, f"{prefix}transformer.")
    return [
        one("text/word", f"{prefix}token_embedding.weight"),
        one("text/position", f"{prefix}positional_embedding"),
        *norm("text/norm", f"{prefix}ln_final"),
        *_resblocks("text/", f"{prefix}transformer.", config.depth),
    ]


def _resblocks(path: str, prefix: str, depth: int) -> list[Entry]:
    block = f"{prefix}resblocks.{{}}."
    return [
        *norm(f"{path}blocks/norm1", block + "ln_1", depth),
        *norm(f"{path}blocks/norm2", block + "ln_2", depth),
        stacked(f"{path}blocks/attention/qkv/kernel", depth, block + "attn.in_proj_weight", form="linear"),
        stacked(f"{path}blocks/attention/qkv/bias", depth, block + "attn.in_proj_bias"),
        *dense(f"{path}blocks/attention/out", block + "attn.out_proj", depth),
        *dense(f"{path}blocks/mlp/fc1", block + "mlp.c_fc", depth),
        *dense(f"{path}blocks/mlp/fc2", block + "mlp.c_proj", depth),
    ]
