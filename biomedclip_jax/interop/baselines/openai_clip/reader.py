"""OpenAI's CLIP by its own files (ViT-B-32.pt, RN50.pt ...), and models fine-tuned from it under the same names.

The file is a TorchScript archive, or the state dict of one, in half precision; PubMedCLIP's `.pth`
(sarahESL/PubMedCLIP: PubMedCLIP_ViT32, _RN50, _RN50x4) has the same names under "state_dict". All sizes are in the
shapes, heads are 64 wide, GELU is CLIP's quick one.

Sources: openai/CLIP `clip/model.py: build_model`, `clip/clip.py: _transform`; sarahESL/PubMedCLIP
`PubMedCLIP/main/train.py`. PubMedCLIP trained on images of 250 pixels with ImageNet's mean; it is published for,
and here gets, CLIP's preprocessing.
"""

from pathlib import Path

from biomedclip_jax.config import CLIPConfig, ClipTextConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import to_params
from biomedclip_jax.interop.baselines.resnet.mapping import clip_resnet_config
from biomedclip_jax.interop.formats.open_clip import mapping as open_clip
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.models import abstract_model

_HEAD_WIDTH = 64


def is_openai_clip(tensors: TensorFile) -> bool:
    """Whether a weight file is a CLIP of OpenAI's, by its names."""
    return "visual.conv1.weight" in tensors and "token_embedding.weight" in tensors


def read_openai_clip(tensors: TensorFile, path: Path, tokenizer: Path) -> Model:
    """The model in `tensors`, which were read from `path`. UserError names what is missing, unknown or misshapen."""
    image = clip_vit_config(tensors, path) if "visual.proj" in tensors else clip_resnet_config(tensors, "visual.", path)
    width, embed_width = _matrix(tensors, "text_projection", path)
    config = CLIPConfig(
        image=image,
        text=ClipTextConfig(
            vocab_size=_matrix(tensors, "token_embedding.weight", path)[0],
            context_length=_matrix(tensors, "positional_embedding", path)[0],
            width=width,
            depth=_depth(tensors, "transformer.resblocks."),
            heads=width // _HEAD_WIDTH,
            mlp_width=_matrix(tensors, "transformer.resblocks.0.mlp.c_fc.weight", path)[0],
            activation="quick_gelu",
        ),
        embed_width=embed_width,
        image_head_bias=not isinstance(image, ViTConfig),
        text_head="linear",
    )
    table = open_clip.entries(config, timm=False, text_prefix="")
    params, report = to_params(tensors, table, abstract_model(config)[1], open_clip.IGNORED, path)
    return Model(config, PreprocessConfig(image.image_size), params, tokenizer, report)


def clip_vit_config(tensors: TensorFile, path: Path) -> ViTConfig:
    """CLIP's own ViT with quick GELU: sizes from the tensors `visual.*`."""
    kernel = "visual.conv1.weight"
    positions = _matrix(tensors, "visual.positional_embedding", path)[0]
    width, _, patch_size, _ = tensors.shape(kernel)
    return ViTConfig(
        image_size=patch_size * round((positions - 1) ** 0.5),
        patch_size=patch_size,
        width=width,
        depth=_depth(tensors, "visual.transformer.resblocks."),
        heads=width // _HEAD_WIDTH,
        mlp_width=_matrix(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", path)[0],
        patch_bias=False,
        norm_pre=True,
        activation="quick_gelu",
        layer_norm_eps=1e-5,
    )


def _matrix(tensors: TensorFile, name: str, path: Path) -> tuple[int, int]:
    if name not in tensors or len(tensors.shape(name)) != 2:
        found = f"of shape {tensors.shape(name)}" if name in tensors else "missing"
        raise UserError(f"{path}: {name} is {found}; expected a matrix, as in the CLIP that OpenAI released")
    rows, columns = tensors.shape(name)
    return rows, columns


def _depth(tensors: TensorFile, prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})
