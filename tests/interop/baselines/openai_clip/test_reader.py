"""OpenAI's CLIP and PubMedCLIP by their own files, against open_clip's reading of the same state dict."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.reference import load_open_clip, randomise, randomise_batch_norm

import biomedclip_jax as bc
from biomedclip_jax.config import ClipTextConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model

BPE = "bpe_simple_vocab_16e6.txt.gz"
NUMBERS = ("input_resolution", "context_length", "vocab_size")
TEXT = {"context_length": 16, "vocab_size": 200, "width": 128, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16}
RESNET = {"image_size": 96, "layers": [1, 2, 1, 2], "width": 16}


def reference_model(vision: dict[str, Any], text: dict[str, Any] = TEXT, embed_dim: int = 64) -> Any:
    """An OpenAI CLIP in open_clip's words, with random weights."""
    open_clip = load_open_clip()
    import torch

    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim, vision, text, quick_gelu=True)
    randomise(model)
    randomise_batch_norm(model)
    return model.eval()


def add_tokenizer(folder: Path) -> None:
    shutil.copyfile(Path(load_open_clip().__file__).parent / BPE, folder / BPE)


def state_of(model: Any) -> dict[str, Any]:
    return {name: t for name, t in model.state_dict().items() if name != "attn_mask"}


def save_archive(state: dict[str, Any], path: Path) -> None:
    """A TorchScript archive with this state dict and, as OpenAI's has them, three numbers."""
    import torch

    root = torch.nn.Module()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(last, tensor)
    for name in NUMBERS:
        root.register_buffer(name, torch.tensor(77))

    torch.jit.save(torch.jit.script(root), path)


def inputs(size: int, length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(3, size, size, 3)) + 2 * rng.normal(size=(3, 1, 1, 3))).astype(np.float32)
    tokens = rng.integers(1, vocabulary - 2, (3, length))
    for row, used in enumerate((length, 7, 2)):
        tokens[row, 0] = vocabulary - 2
        tokens[row, used - 1] = vocabulary - 1
        tokens[row, used:] = 0
    return images, tokens


def compare(path: Path, reference: Any, size: int) -> float:
    """The largest difference of a number of the unit embeddings; checked to be at most 1e-5."""
    import torch

    model = read_model(path)
    text = model.config.text
    assert isinstance(text, ClipTextConfig)
    clip = nnx.merge(abstract_model(model.config)[0], model.params)
    images, tokens = inputs(size, text.context_length, text.vocab_size)
    with torch.no_grad():
        image = reference.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2), normalize=True).numpy()
        sentence = reference.encode_text(torch.from_numpy(tokens), normalize=True).numpy()
    difference = max(np.abs(clip.encode_image(images) - image).max(), np.abs(clip.encode_text(tokens) - sentence).max())
    assert difference <= 1e-5
    assert np.ptp(image, axis=0).max() > 1e-3 and np.ptp(sentence, axis=0).max() > 1e-3, "the reference tells them apart"
    assert float(model.params["logit_scale"]) == reference.logit_scale.item()
    return float(difference)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["ViT", "ResNet"])
@pytest.mark.parametrize("form", ["archive", "state dict", "PubMedCLIP"])
def test_each_form_of_the_file(vision: dict[str, Any], form: str, tmp_path: Path) -> None:
    import torch

    reference = reference_model(vision)
    # released in half precision, as what is read from it in float32
    state = {name: t.half() if t.is_floating_point() and "bn" not in name else t for name, t in state_of(reference).items()}
    reference.load_state_dict(state, strict=False)
    add_tokenizer(tmp_path)
    if form == "archive":
        save_archive(state, tmp_path / "ViT-B-32.pt")
    elif form == "state dict":
        torch.save(state | {name: torch.tensor(77) for name in NUMBERS}, tmp_path / "ViT-B-32.pt")
    else:
        best = {"best_epoch": 3, "best_loss": np.float64(0.5), "optimizer_state_dict": {"state": {0: torch.ones(2)}}}
        torch.save(best | {"state_dict": state}, tmp_path / "ViT-B-32.pt")
    compare(tmp_path / "ViT-B-32.pt", reference, vision["image_size"])
    model = read_model(tmp_path)  # the one weight file of its folder
    assert isinstance(model.config.image, ViTConfig if vision is VIT else ResNetConfig)
    if form != "PubMedCLIP":
        assert set(NUMBERS) <= model.report.ignored.keys()
    assert sorted([*model.report.used, *model.report.ignored]) == sorted([*state, *(NUMBERS if form != "PubMedCLIP" else ())])
    assert model.preprocess.image_size == vision["image_size"] and model.preprocess.resize_mode == "shortest"


def test_from_a_picture_and_a_sentence(tmp_path: Path) -> None:
    """The whole way, with CLIP's own vocabulary; without it the message says where to fetch it."""
    open_clip = load_open_clip()
    import torch
    from PIL import Image

    reference = reference_model(RESNET, TEXT | {"context_length": 77, "vocab_size": 49_408})
    torch.save(state_of(reference), tmp_path / "RN50.pt")
    with pytest.raises(UserError, match=rf"RN50\.pt: no tokenizer beside it; fetch {BPE} from https://github\.com/openai/CLIP"):
        bc.from_pretrained(tmp_path / "RN50.pt")
    add_tokenizer(tmp_path)
    clip = bc.from_pretrained(tmp_path / "RN50.pt")
    images = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 180, 3), np.uint8))]
    texts = ["this is a photo of brain MRI", "Lymph node metastasis, 5µm " * 30]
    transform = open_clip.image_transform(96, is_train=False)
    with torch.no_grad():
        image = reference.encode_image(transform(images[0])[None], normalize=True).numpy()
        text = reference.encode_text(open_clip.tokenizer.SimpleTokenizer()(texts), normalize=True).numpy()
    assert np.abs(clip.encode_images(images) - image).max() <= 1e-5
    assert np.abs(clip.encode_texts(texts) - text).max() <= 1e-5


@pytest.mark.parametrize("format", ["open_clip", "open_clip-bin"])
def test_a_resnet_is_written_for_open_clip_and_read_again(format: Any, tmp_path: Path) -> None:
    open_clip = load_open_clip()
    import torch

    reference = reference_model(RESNET, TEXT | {"vocab_size": 49_408})
    torch.save(state_of(reference), tmp_path / "RN50.pt")
    add_tokenizer(tmp_path)
    model = read_model(tmp_path / "RN50.pt")
    write_model(model, tmp_path / "out", format)
    again = read_model(tmp_path / "out")
    assert again.config == model.config
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, model.params))
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    counts = {name for name in reference.state_dict() if name.endswith("num_batches_tracked")}
    for name in reference.state_dict().keys() - counts:
        assert torch.equal(loaded.state_dict()[name], reference.state_dict()[name]), name
    assert isinstance(open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}"), open_clip.tokenizer.SimpleTokenizer)
    compare(tmp_path / "out", loaded, 96)
    with pytest.raises(UserError, match="the image tower of this model is a ResNet"):
        write_model(model, tmp_path / "other", "huggingface")
    assert not (tmp_path / "other").exists()


def test_another_number_of_heads_has_a_place_in_open_clips_config(tmp_path: Path) -> None:
    import torch

    torch.save(state_of(reference_model(RESNET)), tmp_path / "RN50.pt")
    add_tokenizer(tmp_path)
    model = read_model(tmp_path / "RN50.pt")
    image = model.config.image
    assert isinstance(image, ResNetConfig) and image.heads == 8
    changed = dataclasses.replace(model, config=dataclasses.replace(model.config, image=dataclasses.replace(image, heads=4)))
    write_model(changed, tmp_path / "out")
    assert read_model(tmp_path / "out").config == changed.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"visual.layer9.weight": s["logit_scale"]}), r"1 unknown tensors: visual\.layer9\.weight"),
        (lambda s: s.pop("visual.layer2.1.bn2.running_var"), r"1 tensors are missing: visual\.layer2\.1\.bn2\.running_var"),
        (lambda s: s.pop("text_projection"), "text_projection is missing"),
        (lambda s: s.pop("visual.attnpool.positional_embedding"), r"no tensor visual\.attnpool\.positional_embedding"),
        (lambda s: s.pop("token_embedding.weight"), "not a weight file that explains itself"),
    ],
)
def test_each_tensor_is_accounted_for(change: Any, message: str, tmp_path: Path) -> None:
    import torch

    state = state_of(reference_model(RESNET))
    change(state)
    torch.save(state, tmp_path / "RN50.pt")
    add_tokenizer(tmp_path)
    with pytest.raises(UserError, match=message):
        read_model(tmp_path / "RN50.pt")


def test_two_weight_files_in_a_folder(tmp_path: Path) -> None:
    import torch

    state = state_of(reference_model(VIT))
    for name in ("ViT-B-32.pt", "ViT-B-16.pt"):
        torch.save(state, tmp_path / name)
    add_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"2 weight files and no description of a model \(ViT-B-16.pt, ViT-B-32.pt\); name one"):
        read_model(tmp_path)
    read_model(tmp_path / "ViT-B-16.pt")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(UserError, match="expected a folder, or a weight file ending in"):
        read_model(tmp_path / "notes.md")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters"), [("ViT-B-32", 151_277_313), ("RN50", 102_007_137)])
def test_at_full_size(name: str, parameters: int, tmp_path: Path) -> None:
    open_clip = load_open_clip()
    import torch

    config = open_clip.get_model_config(f"{name}-quickgelu")
    reference = reference_model(config["vision_cfg"], config["text_cfg"], config["embed_dim"])
    torch.save(state_of(reference), tmp_path / f"{name}.pt")
    add_tokenizer(tmp_path)
    shown = compare(tmp_path / f"{name}.pt", reference, 224)
    print(f"{name}: {shown:.2e}")
    learned = {p: x for p, x in flatten_dict(read_model(tmp_path).params, sep="/").items() if not p.endswith(("/mean", "/var"))}
    assert sum(x.size for x in learned.values()) == parameters == sum(p.numel() for p in reference.parameters())
