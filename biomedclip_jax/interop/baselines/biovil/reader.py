"""BioViL and BioViL-T as released: hi-ml's image model in a `.pt` file, CXR-BERT in transformers' form beside it.

A folder with all the files of the release, as they are together on the Hugging Face hub:

    BioViL     microsoft/BiomedVLP-CXR-BERT-specialized:  biovil_image_resnet50_proj_size_128.pt
    BioViL-T   microsoft/BiomedVLP-BioViL-T:              biovil_t_image_model_proj_size_128.pt
    both       config.json, pytorch_model.bin (or model.safetensors), vocab.txt, tokenizer_config.json

Sources: PyPI hi-ml-multimodal 0.2.2, `health_multimodal/image` and `text`. What follows from them:

- An image is stretched to 0..255, one channel, short side 512 (bilinear), the middle 480 (BioViL-T 448) of it,
  values 0..1, not normalised. (hi-ml stretches 16-bit files and DICOM before they are reduced to 8 bits; here they
  come as `load_image` gives them.)
- Each position of the ResNet's last map is projected, the embedding is the mean (`_towers.py`). BioViL-T is read for a
  single image: its part for an earlier image is left out.
- Text: [CLS] of the last block through CXR-BERT's own head. Up to 512 tokens, where hi-ml refuses longer texts. Its
  engine takes "!", "?" and "." off the end of a prompt; the model itself does not, nor is it done here.
- No temperature is released; hi-ml compares cosines. It is 1 here, so probabilities of `classify` are close
  together, in the order of the cosines.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp

from biomedclip_jax.config import CLIPConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, norm, one, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.baselines.biovil._towers import BioViLImageConfig, CxrBertConfig
from biomedclip_jax.interop.baselines.resnet.mapping import BATCH_COUNTS, convolution, resnet_entries, torchvision_config
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config, bert_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import Parts, find_weights
from biomedclip_jax.models import abstract_model

IMAGE_FILES = ("biovil_image_resnet50_proj_size_128.pt", "biovil_t_image_model_proj_size_128.pt")

_RESNET = "image.encoder.encoder."
_TEXT_HEAD = "text.cls_projection_head."
_NO_EARLIER = "image.encoder.missing_previous_emb"
_RESIZED, _CROPPED, _CROPPED_TEMPORAL = 512, 480, 448

_IGNORED = BATCH_COUNTS | {
    f"{_RESNET}fc.*": "torchvision's classifier: BioViL reads the map before it",
    "image.encoder.vit_pooler.*": "compares with an earlier image: a single image does not pass through it",
    "text.cls.*": "BERT's pretraining heads",
    "text.bert.pooler.*": "BERT's pooler: CXR-BERT's head reads the last hidden state",
    "*.position_ids": "index buffer of older transformers versions",
}


def find_image_file(folder: Path) -> Path | None:
    """The image model of a BioViL or BioViL-T folder; None in any other folder. UserError where both are."""
    found = [folder / name for name in IMAGE_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: {' and '.join(IMAGE_FILES)}: two models; put each into a folder with its own text files")
    return found[0] if found else None


def read_biovil(folder: Path) -> Model:
    """BioViL or BioViL-T from its folder. UserError names what is missing, unknown or misshapen."""
    image_file = find_image_file(folder)
    assert image_file is not None, f"{folder}: no folder of BioViL"
    tensors = Parts({"image": read_unwrapped(image_file), "text": read_unwrapped(find_weights(folder), ("bert.",))})
    temporal = _NO_EARLIER in tensors
    preprocess = preprocess_config(temporal)
    head = f"{_TEXT_HEAD}dense_to_output.weight"
    if head not in tensors:
        name = head.removeprefix("text.")
        raise UserError(f"{folder}: no tensor {name}; expected the CXR-BERT released with {image_file.name}")
    text = bert_config(tensors, "text.bert.", folder, "CXR-BERT")
    resnet = torchvision_config(tensors, _RESNET, preprocess.image_size, "none", image_file)
    width = tensors.shape(head)[0]
    config = CLIPConfig(
        image=BioViLImageConfig(resnet, width, temporal),
        text=CxrBertConfig(**vars(dataclasses.replace(text, context_length=text.positions)), features=width),
        embed_width=width,
        image_head="none",
        text_head="none",
        init_logit_scale=0.0,
    )
    shapes = abstract_model(config)[1]
    del shapes["logit_scale"]
    params, report = to_params(tensors, _entries(config), shapes, _IGNORED, folder)
    params["logit_scale"] = jnp.float32(config.init_logit_scale)
    return Model(config, preprocess, params, folder, report)


def preprocess_config(temporal: bool) -> PreprocessConfig:
    """How BioViL makes pixels of an image. temporal: as BioViL-T does, which crops to 448 instead of 480 pixels."""
    size = _CROPPED_TEMPORAL if temporal else _CROPPED
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # pixels stay between 0 and 1
    return PreprocessConfig(size, mean, std, "bilinear", resize_size=_RESIZED, gray=True, stretch=True)


def _entries(config: CLIPConfig) -> list[Entry]:
    assert isinstance(config.image, BioViLImageConfig) and isinstance(config.text, CxrBertConfig)
    found = resnet_entries(config.image.resnet, _RESNET, "image/resnet/")
    if config.image.temporal:
        found.append(one("image/reduce/kernel", "image.encoder.backbone_to_vit.weight", "point"))
        found.append(one("image/no_earlier", _NO_EARLIER, "channels"))
    projector = "image.projector.model."
    return [
        *found,
        *convolution("image/fc1", f"{projector}0", f"{projector}1"),
        one("image/fc2/kernel", f"{projector}3.weight", "point"),
        one("image/fc2/bias", f"{projector}3.bias"),
        *bert_entries(config.text, "text.bert."),
        *dense("text/fc1", f"{_TEXT_HEAD}dense_to_hidden"),
        *norm("text/head_norm", f"{_TEXT_HEAD}LayerNorm"),
        *dense("text/fc2", f"{_TEXT_HEAD}dense_to_output"),
    ]
