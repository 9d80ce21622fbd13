"""Our towers against open_clip's on the same random weights: embeddings, logits, gradients, and the way back."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model, write_vocabulary

import biomedclip_jax as bc
from biomedclip_jax.config import Sigmoid, Softmax
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.open_clip import mapping as open_clip
from biomedclip_jax.interop.formats.open_clip.timm import timm_name
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.losses import pair_loss
from biomedclip_jax.models import abstract_model, logits

BIOMEDCLIP_TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 40}


@dataclass(frozen=True)
class Variant:
    """An open_clip config. `size`: image side; bert: sizes of its BERT, None for CLIP's own text tower."""

    vision: dict[str, Any]
    text: dict[str, Any] = field(default_factory=lambda: BIOMEDCLIP_TEXT)
    bert: dict[str, Any] | None = field(default_factory=dict)
    size: int = 64
    model: dict[str, Any] = field(default_factory=dict)


def clip_vision(**changes: Any) -> dict[str, Any]:
    return {"layers": 3, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64} | changes


CLIP_TEXT = {"context_length": 24, "vocab_size": 200, "width": 64, "heads": 4, "layers": 3}
SIGLIP_TEXT = CLIP_TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
ROBERTA = {"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 42, "type_vocab_size": 1}
TINY = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}

VARIANTS = {
    "biomedclip, ViT-Ti": Variant(TINY, size=224),
    "patch 32, MLP image head": Variant(
        {"timm_model_name": "vit_small_patch32_224", "timm_pool": "token", "timm_proj": "mlp", "image_size": 224},
        BIOMEDCLIP_TEXT | {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"},
        size=224,
    ),
    "384 px, image head bias, mean pooling": Variant(
        {"timm_model_name": "vit_tiny_patch16_384", "timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": True},
        BIOMEDCLIP_TEXT | {"hf_pooler_type": "cls_pooler"},
        size=384,
    ),
    "no projections, fc_norm": Variant(
        {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg", "timm_proj": "none"},
        BIOMEDCLIP_TEXT | {"hf_proj_type": None},
        {"hidden_size": 192, "num_attention_heads": 3},
        size=224,
    ),
    "CLIP, quick GELU": Variant(clip_vision(), CLIP_TEXT, None, model={"quick_gelu": True}),
    "CLIP, mean pooling, LayerScale, no ln_pre": Variant(
        clip_vision(pool_type="avg", ls_init_value=0.5, no_ln_pre=True, norm_kwargs={"eps": 1e-6}), CLIP_TEXT, None
    ),
    "CLIP vision, BERT text, tanh GELU": Variant(
        clip_vision(final_ln_after_pool=True, pool_type="avg", act_kwargs={"approximate": "tanh"})
    ),
    "CLIP text with its own prefix, projection bias": Variant(
        clip_vision(), CLIP_TEXT | {"proj_bias": True}, None, model={"custom_text": True}
    ),
    "ViT-L shape, few layers": Variant(clip_vision(width=1024, layers=2, head_width=64, patch_size=14, image_size=56), size=56),
    "RoBERTa, whose captions are as long as there are positions": Variant(
        clip_vision(layers=1), BIOMEDCLIP_TEXT | {"hf_pooler_type": "mean_pooler"}, ROBERTA
    ),
    "SigLIP's loss with a bias": Variant(clip_vision(), CLIP_TEXT, None, model={"init_logit_bias": -10.0}),
    "SigLIP": Variant(
        {"timm_model_name": "vit_base_patch32_siglip_256", "timm_pool": "map", "timm_proj": "none", "image_size": 256},
        SIGLIP_TEXT | {"act_kwargs": {"approximate": "tanh"}},
        None,
        size=256,
        model={"init_logit_bias": -10, "custom_text": True},
    ),
    "MetaCLIP 2's text": Variant(clip_vision(), CLIP_TEXT | {"pool_type": "eos", "eos_id": 199}, None),
    "CLIPA's text": Variant(clip_vision(), SIGLIP_TEXT | {"proj_bias": False}, None),
    "timm's CLIP ViT": Variant(
        {"timm_model_name": "vit_medium_patch32_clip_224", "timm_pool": "token", "timm_proj": "linear"}, size=224
    ),
}


@dataclass
class Case:
    folder: Path
    reference: Any
    model: Model
    images: np.ndarray
    tokens: np.ndarray


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variant: Variant = request.param
    folder = tmp_path_factory.mktemp("model")
    plain = variant.vision.get("timm_proj") == "none"  # the embedding is as wide as the tower
    embed_dim = (768 if "siglip" in variant.vision["timm_model_name"] else 192) if plain else 32
    reference = open_clip_model(folder, variant.vision, variant.text, embed_dim=embed_dim, bert=variant.bert, **variant.model)
    rng = np.random.default_rng(0)
    # images differ in colour: of plain noise a mean-pooling tower sees five times the same
    images = rng.normal(size=(5, variant.size, variant.size, 3)) + 2 * rng.normal(size=(5, 1, 1, 3))
    images = images.astype(np.float32)
    length = variant.text["context_length"]
    tokens = rng.integers(5, 199, (5, length))
    for row, used in enumerate((length, 12, 7, 3, 2)):  # the last is an empty caption: only [CLS] and [SEP]
        tokens[row, 0] = 2
        tokens[row, used - 1] = 199 if variant.bert is None else 3
        tokens[row, used:] = (variant.bert or {}).get("pad_token_id", 0)
    return Case(folder, reference, read_model(folder), images, tokens)


@dataclass
class Computed:
    """What our model makes of the images and captions of a case."""

    image: jax.Array
    text: jax.Array
    loss: jax.Array
    gradient: dict[str, Any]


@pytest.fixture(scope="module")
def ours(case: Case) -> Computed:
    """In one program: each of its own would take seconds to compile."""
    graph, _ = abstract_model(case.model.config)
    sigmoid = case.model.config.init_logit_bias is not None

    def loss(params: dict[str, Any]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        clip = nnx.merge(graph, params)
        image, text = clip.encode_image(case.images), clip.encode_text(case.tokens)
        numbers = {name: params[name] for name in ("logit_scale", "logit_bias") if name in params}
        return pair_loss(Sigmoid() if sigmoid else Softmax(), image, text, numbers), (image, text)

    (value, (image, text)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(case.model.params)
    return Computed(image, text, value, gradient)


def reference_embeddings(case: Case) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.no_grad():
        image = case.reference.encode_image(torch.from_numpy(case.images).permute(0, 3, 1, 2), normalize=True)
        return image.numpy(), case.reference.encode_text(torch.from_numpy(case.tokens), normalize=True).numpy()


def test_embeddings_and_logits(case: Case, ours: Computed) -> None:
    expected_image, expected_text = reference_embeddings(case)
    assert np.abs(ours.image - expected_image).max() <= 1e-5
    assert np.abs(ours.text - expected_text).max() <= 1e-5
    scale = case.model.params["logit_scale"]
    expected = np.exp(float(scale)) * expected_image @ expected_text.T
    assert np.abs(logits(ours.image, ours.text, scale) - expected).max() <= 1e-3
    assert np.abs(expected_image[0] - expected_image[1]).max() > 1e-3, "the reference tells images apart"


def test_trimmed_padding_changes_nothing(case: Case) -> None:
    graph, _ = abstract_model(case.model.config)
    clip = nnx.merge(graph, case.model.params)
    rows = case.tokens[1:]
    assert np.abs(clip.encode_text(rows) - clip.encode_text(rows[:, :12])).max() <= 1e-6


def test_gradients(case: Case, ours: Computed) -> None:
    import torch

    # in float64: torch's own float32 gradients of LayerNorm biases are 2e-4 off where a tower pools 576 tokens
    reference = copy.deepcopy(case.reference).double()
    image = reference.encode_image(torch.from_numpy(case.images).permute(0, 3, 1, 2).double(), normalize=True)
    text = reference.encode_text(torch.from_numpy(case.tokens), normalize=True)
    losses = load_open_clip().loss
    if case.model.config.init_logit_bias is not None:
        expected = losses.SigLipLoss()(image, text, reference.logit_scale.exp(), reference.logit_bias)
    else:
        expected = losses.ClipLoss()(image, text, reference.logit_scale.exp())
    expected.backward()
    assert abs(float(ours.loss) - expected.item()) <= 1e-5 * expected.item()

    image_config = case.model.config.image
    found = from_params(
        ours.gradient,
        open_clip.entries(
            case.model.config,
            timm=timm_name(image_config) is not None,
            text_prefix="text." if hasattr(reference, "text") else "",
        ),
    )
    theirs = {name: p.grad.numpy() for name, p in reference.named_parameters() if p.grad is not None}
    assert found.keys() == theirs.keys()
    largest = max(np.abs(g).max() for g in theirs.values())
    for name, grad in theirs.items():
        # a key bias shifts all scores of a query alike: its true gradient is zero, and only rounding is there to compare
        floor = 1e-4 * largest if "key.bias" in name else 0
        assert np.abs(found[name] - grad).max() <= 1e-4 * max(np.abs(grad).max(), floor), name


def test_round_trip_is_bit_equal(case: Case, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_model(case.model, tmp_path / "out")
    before = load_file(case.folder / "open_clip_model.safetensors")
    after = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.shape == after[name].shape and np.array_equal(tensor, after[name]), name


def test_what_we_write_loads_in_open_clip(case: Case, tmp_path: Path) -> None:
    import torch

    write_model(case.model, tmp_path / "out", "open_clip-bin")
    loaded = load_open_clip().create_model(f"local-dir:{tmp_path / 'out'}", pretrained_text=False).eval()
    expected_image, expected_text = reference_embeddings(case)
    with torch.no_grad():
        image = loaded.encode_image(torch.from_numpy(case.images).permute(0, 3, 1, 2), normalize=True).numpy()
        text = loaded.encode_text(torch.from_numpy(case.tokens), normalize=True).numpy()
    assert np.array_equal(image, expected_image) and np.array_equal(text, expected_text)


def test_the_bias_of_a_sigmoid_model(tmp_path: Path) -> None:
    """It is read as it was trained, not as it began, and open_clip finds it in what we write."""
    theirs = open_clip_model(tmp_path / "in", TINY, BIOMEDCLIP_TEXT, bert={}, init_logit_bias=-10.0)
    model = read_model(tmp_path / "in")
    trained = theirs.logit_bias.item()
    assert model.config.init_logit_bias == -10.0 != trained == float(model.params["logit_bias"])
    write_model(model, tmp_path / "out", "open_clip-bin")
    loaded = load_open_clip().create_model(f"local-dir:{tmp_path / 'out'}", pretrained_text=False)
    assert loaded.logit_bias.item() == trained
    plain = open_clip_model(tmp_path / "plain", TINY, BIOMEDCLIP_TEXT, bert={})
    assert plain.logit_bias is None and "logit_bias" not in read_model(tmp_path / "plain").params


def test_max_pooling_against_the_formula(tmp_path: Path) -> None:
    """open_clip's own max pooler fails on its integer mask, so it is compared with the masked maximum itself."""
    import torch

    reference = open_clip_model(tmp_path, TINY, BIOMEDCLIP_TEXT | {"hf_pooler_type": "max_pooler"}, bert={})
    model = read_model(tmp_path)
    tokens = np.array([[2, 9, 8, 7, 3, 0, 0, 0], [2, 5, 3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        mask = torch.from_numpy(tokens != 0)
        hidden = reference.text.transformer(torch.from_numpy(tokens), attention_mask=mask.long()).last_hidden_state
        pooled = hidden.masked_fill(~mask[..., None], -torch.inf).max(1).values
        expected = torch.nn.functional.normalize(reference.text.proj(pooled), dim=-1).numpy()
    graph, _ = abstract_model(model.config)
    assert np.abs(nnx.merge(graph, model.params).encode_text(jnp.asarray(tokens)) - expected).max() <= 1e-5


def test_both_spellings_and_old_buffers(tmp_path: Path) -> None:
    """The first BiomedCLIP files: `proj` and `pooler_type` in the config, position_ids and a pooler in the weights."""
    from safetensors.numpy import load_file, save_file

    open_clip_model(tmp_path, TINY, BIOMEDCLIP_TEXT, bert={})
    new = read_model(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    text = config["model_cfg"]["text_cfg"]
    text["proj"], text["pooler_type"] = text.pop("hf_proj_type"), text.pop("hf_pooler_type")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "open_clip_model.safetensors")
    tensors["text.transformer.embeddings.position_ids"] = np.arange(512)[None]
    tensors["text.transformer.pooler.dense.weight"] = np.zeros((64, 64), np.float32)
    tensors["text.transformer.pooler.dense.bias"] = np.zeros(64, np.float32)
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    old = read_model(tmp_path)
    assert old.config == new.config
    assert sorted(old.report.ignored) == [
        "text.transformer.embeddings.position_ids",
        "text.transformer.pooler.dense.bias",
        "text.transformer.pooler.dense.weight",
    ]
    assert all(map(np.array_equal, jax.tree.leaves(old.params), jax.tree.leaves(new.params)))


def test_timms_own_classifier_as_projection(tmp_path: Path) -> None:
    """MobileCLIP2-L-14's: read from `visual.trunk.head`, written as open_clip's projection, which computes the same."""
    import torch

    vision = {"timm_model_name": "vit_medium_patch32_clip_224", "timm_pool": "token", "timm_proj": None, "image_size": 224}
    theirs = open_clip_model(tmp_path / "in", vision, CLIP_TEXT | {"no_causal_mask": True}, custom_text=True)
    model = read_model(tmp_path / "in")
    write_model(model, tmp_path / "out")
    loaded = load_open_clip().create_model(f"local-dir:{tmp_path / 'out'}").eval()
    images, tokens = torch.randn(2, 3, 224, 224), torch.randint(1, 200, (2, 24))
    graph, _ = abstract_model(model.config)
    ours = nnx.merge(graph, model.params)
    with torch.no_grad():
        image, text = theirs.encode_image(images, normalize=True), theirs.encode_text(tokens, normalize=True)
        assert (loaded.encode_image(images, normalize=True) - image).abs().max() <= 1e-6
    assert np.abs(ours.encode_image(images.permute(0, 2, 3, 1).numpy()) - image.numpy()).max() <= 1e-5
    assert np.abs(ours.encode_text(tokens.numpy()) - text.numpy()).max() <= 1e-5


def test_clipas_texts_lose_their_end_token(tmp_path: Path) -> None:
    open_clip = load_open_clip()
    text = SIGLIP_TEXT | {"proj_bias": False, "hf_tokenizer_name": "tokenizer", "tokenizer_kwargs": {"strip_sep_token": True}}
    open_clip_model(tmp_path / "in", clip_vision(), text)
    write_vocabulary(tmp_path / "in")
    texts = ["the lung", "", "a photo of cells " * 20]
    reference = open_clip.tokenizer.HFTokenizer(str(tmp_path / "in"), context_length=24, strip_sep_token=True)(texts)
    ours = bc.from_pretrained(tmp_path / "in").processor.tokens(texts)
    assert np.array_equal(ours, reference.numpy()) and 3 not in ours
    with pytest.raises(UserError, match="strip_sep_token"):
        write_model(read_model(tmp_path / "in"), tmp_path / "out", "huggingface")
    write_model(read_model(tmp_path / "in"), tmp_path / "again")
    assert np.array_equal(bc.from_pretrained(tmp_path / "again").processor.tokens(texts), ours)
