"""CLEFT's checkpoints against its own composition: DINOv2 with registers, GPT-2 and LLaMA by transformers, adapters by PEFT."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.cleft_reference import LENGTHS, PAD, captions, reference_model, their_texts, with_context, write

import biomedclip_jax as bc
from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, GPTConfig, IA3Config, LlamaConfig, LoRAConfig, PrefixConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._lightning import LightningFile
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.cleft._mapping import KNOWN, VIT, entries
from biomedclip_jax.interop.formats.cleft.checkpoint import read_cleft, read_context, write_cleft
from biomedclip_jax.interop.write import Format, write_model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.adapters import is_adapter, merged
from biomedclip_jax.prompts.layout import prepended
from biomedclip_jax.prompts.learned import encode_prompts

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers for it


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = reference_model("lora")
    return model, write(model, tmp_path_factory.mktemp("cleft"), old_names=True)


def test_images(first_stage: tuple[Any, Path]) -> None:
    import torch

    theirs, path = first_stage
    model = read_model(path)
    pixels = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        tokens = theirs.img_encoder_q.model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        assert tokens.shape[1] == 261
        normed = theirs.img_encoder_q.model.norm(tokens)[:, 0]
        expected = [theirs.img_encoder_q.global_embed(x) for x in (tokens.mean(dim=1), normed)]
        expected = [torch.nn.functional.normalize(x, dim=-1).numpy() for x in expected]

    def found(config: CLIPConfig) -> np.ndarray:
        clip = nnx.merge(abstract_model(config, adaptation=model.adaptation)[0], model.params)
        return np.asarray(jax.jit(lambda x: clip.encode_image(x))(pixels))

    assert np.abs(found(model.config) - expected[0]).max() <= 1e-5
    without = dataclasses.replace(model.config, image=dataclasses.replace(model.config.image, pool="cls"))
    assert np.abs(found(without) - expected[1]).max() <= 1e-5
    assert float(model.params["logit_scale"]) == 2.5


def test_texts_end_to_end(first_stage: tuple[Any, Path]) -> None:
    theirs, path = first_stage
    clip = bc.from_pretrained(path.parent)
    assert clip.adaptation.text == LoRAConfig(8, 32.0, 0.1, ("attention/qkv",))
    tokens = captions()
    texts = [" ".join(f"w{i}" for i in row[:n]) for row, n in zip(tokens, LENGTHS, strict=True)]
    expected = their_texts(theirs, tokens)
    found = clip.encode_texts(texts)
    assert np.abs(found - expected).max() <= 1e-5
    params = merged(clip.config, clip.adaptation, clip.params)
    found = nnx.merge(abstract_model(clip.config)[0], params).encode_text(tokens)
    assert np.abs(np.asarray(found) - expected).max() <= 1e-5
    still = jax.tree.map(lambda x: x, clip.params)  # the control: without what LoRA learned it is another model
    still["text"]["blocks"]["attention"]["qkv"]["lora_b"] *= 0
    other = nnx.merge(clip.graph, still).encode_text(tokens)
    assert np.abs(np.asarray(other) - expected).max() > 1e-2


PARTS = ("attention/query", "attention/value")


@pytest.mark.parametrize(
    ("llm_type", "kind", "adapter"),
    [
        ("gpt", "lora", LoRAConfig()),
        ("gpt", "ia3", IA3Config()),
        ("gpt", "prefix", PrefixConfig()),
        ("gpt", None, None),
        ("llama", "lora", LoRAConfig(targets=PARTS)),
        ("llama", "ia3", IA3Config(PARTS, ())),
        ("llama", "prefix", PrefixConfig()),
        ("llama", None, None),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_other_adapters_and_names(tmp_path: Path, llm_type: str, kind: str | None, adapter: Any) -> None:
    import torch

    theirs = reference_model(kind, llm_type)
    if kind == "ia3":
        for parameter in theirs.parameters():  # as CLEFT trains; rotary frequencies are none, and stay as they are
            parameter.data = parameter.data.to(torch.bfloat16)
    path = write(theirs, tmp_path, llm_type=llm_type)
    theirs.float()
    model = read_model(path)
    assert isinstance(model.config.text, LlamaConfig if llm_type == "llama" else GPTConfig)
    assert model.adaptation == Adaptation(text=adapter)
    graph, _ = abstract_model(model.config, adaptation=model.adaptation)
    found = jax.jit(lambda x: nnx.merge(graph, model.params).encode_text(x))(captions())
    assert np.abs(np.asarray(found) - their_texts(theirs, captions())).max() <= 1e-5
    names = set(theirs.state_dict())
    assert set(model.report.used) | set(model.report.ignored) == names
    assert not set(model.report.used) & set(model.report.ignored)
    write_cleft(model, tmp_path / "again.ckpt", like=path)
    assert_same_tensors(tmp_path / "again.ckpt", path)
    if llm_type == "llama":  # and without the original: as PEFT 0.6.2 would name them
        write_model(model, tmp_path / "cleft", "cleft")
        again = read_model(tmp_path / "cleft")
        assert again.config == model.config
        assert LightningFile(tmp_path / "cleft" / "cleft.ckpt").hyper_parameters["llm_type"] == "llama"
        assert set(LightningFile(tmp_path / "cleft" / "cleft.ckpt")) == {n.replace(".base_layer.", ".") for n in names}
        before, after = flatten_dict(model.params, sep="/"), flatten_dict(again.params, sep="/")
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[path], after[path]) for path in before if path != "image/position")


def assert_same_tensors(one: Path, other: Path) -> None:
    """Names, precision and bits."""
    import torch

    a, b = LightningFile(one), LightningFile(other)
    assert set(a) == set(b) and a.hyper_parameters == b.hyper_parameters
    for name in a:
        assert a.tensor(name).dtype == b.tensor(name).dtype and torch.equal(a.tensor(name), b.tensor(name)), name


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")  # as CLEFT does
@pytest.mark.parametrize("llm_type", ["gpt", "llama"])
def test_second_stage(tmp_path: Path, llm_type: str) -> None:
    theirs = with_context(reference_model("lora", llm_type))
    path = write(theirs, tmp_path, llm_type=llm_type)
    table = {"gpt": "transformer.wpe", "llama": "model.embed_tokens"}[llm_type]
    assert f"text_encoder_q.model.base_model.base_model.model.{table}.weight" in theirs.state_dict()
    model, context = read_cleft(path), read_context(path)
    assert context.shape == (30, 64)
    assert model.report.ignored["text_encoder_q.model.prompt_encoder.default.embedding.weight"].startswith("learned context")
    assert np.array_equal(context, theirs.text_encoder_q.model.prompt_encoder.default.embedding.weight.detach().numpy())
    layout = prepended(captions(), 30, PAD)
    found = jax.jit(
        lambda x: encode_prompts(abstract_model(model.config, adaptation=model.adaptation)[0], model.params, layout, x)
    )(context)
    assert np.abs(np.asarray(found) - their_texts(theirs, captions())).max() <= 1e-5
    write_cleft(model, tmp_path / "again.ckpt", like=path)
    assert_same_tensors(tmp_path / "again.ckpt", path)


def test_a_round_trip_without_the_original(first_stage: tuple[Any, Path]) -> None:
    """Every tensor that means something comes back bit by bit; the positions of 518 pixels as a table that does the same."""
    theirs, path = first_stage
    model = read_model(path)
    names = write_cleft(model, path.parent / "again" / "cleft.ckpt")
    for name in ("tokenizer.json", "config.json"):
        (path.parent / "again" / name).write_bytes((path.parent / name).read_bytes())
    assert set(names) == set(LightningFile(path))
    again = read_model(path.parent / "again" / "cleft.ckpt")
    assert (again.config, again.preprocess) == (model.config, model.preprocess)
    before, after = flatten_dict(model.params, sep="/"), flatten_dict(again.params, sep="/")
    positions = [leaves.pop("image/position") for leaves in (before, after)]
    assert before.keys() == after.keys() and all(np.array_equal(before[p], after[p]) for p in before)
    assert np.abs(positions[0] - positions[1]).max() <= 1e-5 * np.abs(positions[0]).max()
    written = LightningFile(path.parent / "again" / "cleft.ckpt")
    assert written.shape("img_encoder_q.model.pos_embed") == (1, 1370, 128)
    assert written.hyper_parameters["peft"] == "lora" and written.hyper_parameters["pool_feat"]
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in theirs.state_dict().items()}
    for name in model.report.used:
        assert name.endswith("pos_embed") or np.array_equal(written[name], state[name].numpy()), name


def test_positions_that_were_trained_come_back(first_stage: tuple[Any, Path]) -> None:
    """Written beside the original's: the whole table changes as little as it may, and resized it is what was trained."""
    _, path = first_stage
    model = read_model(path)
    moved = np.asarray(model.params["image"]["position"]) + np.random.default_rng(0).normal(0, 0.01, (257, 128)).astype("f4")
    image = {**model.params["image"], "position": jax.numpy.asarray(moved)}
    trained = dataclasses.replace(model, params=model.params | {"image": image})
    write_cleft(trained, path.parent / "trained.ckpt", like=path)
    found = read_model(path.parent / "trained.ckpt").params["image"]["position"]
    (path.parent / "trained.ckpt").unlink()
    assert np.abs(np.asarray(found) - moved).max() <= 1e-5


def message(function: Any) -> str:
    with pytest.raises(UserError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(path: Path, place: Path, settings: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """A copy of a checkpoint with other tensors (None: without it), dots written as two underscores."""
    import torch

    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= settings or {}
    for name, tensor in tensors.items():
        content["state_dict"].pop(name.replace("__", "."), None)
        if tensor is not None:
            content["state_dict"][name.replace("__", ".")] = tensor
    place.mkdir(exist_ok=True)
    torch.save(content, place / "cleft.ckpt")
    for name in ("tokenizer.json", "config.json"):
        (place / name).write_bytes((path.parent / name).read_bytes())
    return place / "cleft.ckpt"


def test_what_cannot_be_read_is_named(first_stage: tuple[Any, Path], tmp_path: Path) -> None:
    import torch

    _, path = first_stage
    copy = lambda *a, **k: changed(path, tmp_path, *a, **k)  # noqa: E731
    found = message(lambda: read_model(copy(text_encoder_q__global_embed__head__0__weight=torch.zeros(2))))
    assert "text_encoder_q.global_embed has two layers and BatchNorm" in found
    assert "llm_type = 'bert' is not supported" in message(lambda: read_model(copy({"llm_type": "bert"})))
    assert "no tensor img_encoder_q.model.register_tokens" in message(
        lambda: read_model(copy(img_encoder_q__model__register_tokens=None))
    )
    assert "1 unknown tensors: extra" in message(lambda: read_model(copy(extra=torch.zeros(2))))
    lost = {"text_encoder_q__model__base_model__model__transformer__h__1__attn__c_attn__lora_A__default__weight": None}
    assert "1 tensors are missing" in message(lambda: read_model(copy(**lost)))
    other = {"text_encoder_q__model__word_embeddings__weight": torch.zeros(60, 64)}
    assert "differs from the token embeddings" in message(lambda: read_model(copy(**other)))
    assert "no learned context" in message(lambda: read_context(path))
    whole = copy()
    (tmp_path / "config.json").unlink()
    assert "nothing in it tells the heads of this GPT-2 (width 64, depth 3)" in message(lambda: read_model(whole))
    (tmp_path / "tokenizer.json").unlink()
    assert "no tokenizer beside it" in message(lambda: read_model(whole))
    assert "no tensor" in message(lambda: read_context(write_other(tmp_path)))


def write_other(folder: Path) -> Path:
    import torch

    torch.save({"state_dict": {"a": torch.zeros(2)}}, folder / "other.ckpt")
    return folder / "other.ckpt"


def test_what_cannot_be_written_is_named(first_stage: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = first_stage
    model = read_model(path)
    goal = tmp_path / "new.ckpt"

    def refused(**changes: Any) -> str:
        return message(lambda: write_cleft(dataclasses.replace(model, **changes), goal))

    text = dataclasses.replace(model.config.text, pool="last_token")
    assert "CLEFT has no such model (text)" in refused(config=dataclasses.replace(model.config, text=text))
    assert "CLEFT has no such model (adaptation.text)" in refused(adaptation=Adaptation(text=LoRAConfig(alpha=16.0)))
    assert "CLEFT has no such model (adaptation.text)" in refused(
        adaptation=Adaptation(text=LoRAConfig(targets=("attention/query",)))
    )
    other = dataclasses.replace(model, preprocess=dataclasses.replace(model.preprocess, otsu_crop=False))
    assert "CLEFT has no such model (preprocess)" in message(lambda: write_cleft(other, goal))
    assert "CLEFT has no such model (preprocess)" in message(lambda: write_model(other, tmp_path / "folder", "cleft"))
    params = merged(model.config, model.adaptation, model.params)
    plain = dataclasses.replace(model, adaptation=UNADAPTED, params=params)
    assert "another model than the one to be written" in message(lambda: write_cleft(plain, goal, like=path))
    assert not list(tmp_path.iterdir())


def test_released_sizes() -> None:
    """BioMedLM and ViT-B/14 at their full size: what is trained, and a name for each of their parameters."""
    assert KNOWN[2560, 32] == GPTConfig()
    assert {width: known.heads for (width, _), known in KNOWN.items()} == {2560: 20, 768: 12, 1024: 16, 1280: 20, 1600: 25}
    assert not any(known.inverse_layer_scale for (width, _), known in KNOWN.items() if width != 2560)
    heads: dict[str, Any] = {"image_head_bias": True, "text_head": "linear", "text_head_bias": True}
    whole = CLIPConfig(image=VIT, text=dataclasses.replace(GPTConfig(), pool="first_eos"), **heads)
    for adapter, trained in ((LoRAConfig(), 2_621_440), (IA3Config(), 573_440), (PrefixConfig(), 3_276_800)):
        shapes = flatten_dict(abstract_model(whole, adaptation=Adaptation(text=adapter))[1], sep="/")
        assert {entry.path for entry in entries(whole, adapter)} == shapes.keys()
        assert sum(leaf.size for path, leaf in shapes.items() if is_adapter(path)) == trained
        assert sum(leaf.size for path, leaf in shapes.items() if path.startswith("text_head")) == 1_311_232
    names = {name for entry in entries(whole, adapter) for row in entry.names for name in row}
    text = "text_encoder_q.model.base_model.model.transformer."
    released = {f"{text}h.31.attn.c_attn.weight", f"{text}ln_f.bias", "img_encoder_q.model.register_tokens", "logit_scale"}
    assert released <= names


@pytest.mark.parametrize("format", ["cleft", "huggingface"])
def test_as_a_model_folder(first_stage: tuple[Any, Path], tmp_path: Path, format: Format) -> None:
    model = read_model(first_stage[1])
    write_model(model, tmp_path / "model", format)
    again = read_model(tmp_path / "model")
    assert (again.config, again.preprocess) == (model.config, model.preprocess)
    before, after = flatten_dict(model.params, sep="/"), flatten_dict(again.params, sep="/")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before if path != "image/position")
