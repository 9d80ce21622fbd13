"""What PEFT's adapter_config.json says: the same weights as PEFT itself merges, or an error that names field and value."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import load_open_clip, open_clip_model
from safetensors.numpy import load_file, save_file

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config_json, bert_entries
from biomedclip_jax.interop.formats.peft.folders import with_peft
from biomedclip_jax.interop.model import Model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as two towers of transformers; the text tower has three blocks."""
    folder = tmp_path_factory.mktemp("base")
    open_clip_model(folder / "open_clip", VISION, TEXT, bert={})
    model = read_model(folder / "open_clip")
    # an image tower with a form in transformers is not needed: the text tower alone gets adapters
    (folder / "text").mkdir()
    save_file(theirs(model), folder / "text" / "model.safetensors", metadata={"format": "pt"})
    (folder / "text" / "config.json").write_text(json.dumps(bert_config_json(model.config.text)))
    return folder


def theirs(model: Model) -> dict[str, np.ndarray]:
    """The text tower under transformers' names."""
    tower = {"text": model.params["text"]}
    return {name: np.ascontiguousarray(x) for name, x in from_params(tower, bert_entries(model.config.text)).items()}


def bert(pair: Path) -> Any:
    load_open_clip()  # for a torchvision that transformers can import
    import transformers

    return transformers.BertModel.from_pretrained(pair / "text", add_pooling_layer=False)


def adapter(pair: Path, folder: Path, **settings: Any) -> Path:
    """A folder that PEFT wrote, of a LoRA whose parameters have all moved."""
    import peft
    import torch

    torch.manual_seed(0)
    model = peft.get_peft_model(bert(pair), peft.LoraConfig(**(LORA | settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def same_as_peft(pair: Path, folder: Path) -> None:
    """Merged by PEFT and by us: equal to 1e-5, and not what it was."""
    import peft

    expected = peft.PeftModel.from_pretrained(bert(pair), folder).merge_and_unload().state_dict()
    base = read_model(pair / "open_clip")
    before, found = theirs(base), theirs(with_peft(base, folder))
    assert found.keys() <= expected.keys()
    assert max(np.abs(found[name] - expected[name].numpy()).max() for name in found) <= 1e-5
    assert max(np.abs(found[name] - before[name]).max() for name in found) > 0.01, "the adapter does something"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layer.0.attention.self.query": 2, "value": 6}},
        {"alpha_pattern": {"layer.1.attention.self.query": 2, "layer.2.*": 32}},
        {"alpha_pattern": {"value": 3}, "rank_pattern": {"^encoder.layer.0.*": 1}, "use_rslora": True},
        {"layers_to_transform": [0, 2], "layers_pattern": "layer"},
        {"layers_to_transform": 1},
        {"target_modules": r".*layer\.[12]\.(attention\.self\.key|intermediate\.dense)"},
        {"target_modules": "all-linear"},
        {"target_modules": ["dense", "key"], "exclude_modules": ["attention.output.dense"]},
        {"exclude_modules": r".*layer\.0\..*"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"lora_alpha": -4},
    ],
    ids=str,
)
def test_settings_that_are_used(settings: dict[str, Any], pair: Path, tmp_path: Path) -> None:
    same_as_peft(pair, adapter(pair, tmp_path / "peft", **settings))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))


def test_what_is_left_out_has_pefts_defaults(pair: Path, tmp_path: Path) -> None:
    """r and lora_alpha are 8 there; the other fields change nothing where they are not there."""
    adapter(pair, tmp_path / "peft", r=8, lora_alpha=8)
    same_as_peft(pair, tmp_path / "peft")
    for name in ("r", "lora_alpha"):
        edit(tmp_path / "peft", lambda c, name=name: c.pop(name))
        same_as_peft(pair, tmp_path / "peft")
    kept = {"peft_type": "LORA", "target_modules": ["query", "value"]}
    (tmp_path / "peft" / CONFIG).write_text(json.dumps(kept))
    same_as_peft(pair, tmp_path / "peft")


def test_a_field_that_is_not_known_and_asks_for_nothing(pair: Path, plain: Path) -> None:
    """The next PEFT writes its new settings as null where they are not used."""
    edit(plain, lambda c: c.update(new_in_peft_9=None))
    with_peft(read_model(pair / "open_clip"), plain)


def test_an_adapter_of_a_pooler_that_is_not_there(pair: Path, plain: Path) -> None:
    """BertModel has one, so "all-linear" adapts it; this model reads the last hidden state, and says so."""
    base = read_model(pair / "open_clip")
    expected = theirs(with_peft(base, plain))
    pooler = {
        f"base_model.model.pooler.dense.lora_{n}.weight": np.ones(s, np.float32) for n, s in (("A", (4, 64)), ("B", (64, 4)))
    }
    tensors_of(plain, lambda t: t.update(pooler))
    edit(plain, lambda c: c.update(target_modules=["query", "value", "pooler.dense"]))
    found = with_peft(base, plain)
    assert all(np.array_equal(expected[name], x) for name, x in theirs(found).items())
    assert found.report.ignored.keys() - base.report.ignored.keys() == pooler.keys()


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True")
def test_fan_in_fan_out_goes_by_the_layer(pair: Path, tmp_path: Path) -> None:
    adapter(pair, tmp_path / "peft")
    edit(tmp_path / "peft", lambda c: c.update(fan_in_fan_out=True))
    same_as_peft(pair, tmp_path / "peft")


REFUSED = {
    "init_lora_weights": ("pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "next_years"),
    "bias": ("all", "lora_only"),
    "use_dora": (True,),
    "lora_bias": (True,),
    "use_qalora": (True,),
    "use_bdlora": ({"nblocks": 2},),
    "modules_to_save": (["classifier"],),
    "trainable_token_indices": ([5], {"word_embeddings": [5]}),
    "target_parameters": (["weight"],),
    "layer_replication": ([[0, 2], [0, 2]],),
    "megatron_config": ({"a": 1},),
    "alora_invocation_tokens": ([1],),
    "arrow_config": ({"top_k": 1},),
    "kasa_config": ({"beta": 1},),
    "monteclora_config": ({"a": 1},),
    "velora_config": ({"a": 1},),
    "peft_type": ("LOHA", None),
    "r": ("4", 0, 2.5, None),
    "lora_alpha": ("x", None),
    "use_rslora": ("yes",),
    "rank_pattern": ([1], {"query": "2"}, {"(": 4}),
    "alpha_pattern": ({"query": None},),
    "layers_to_transform": ("1", [True]),
    "target_modules": (3, "(", [1]),
    "exclude_modules": (3,),
    "lora_dropout": (2.0,),
    "new_in_peft_9": (1, False, {}),
}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A LoRA of the text tower's queries and values, without PEFT."""
    folder = tmp_path / "plain"
    folder.mkdir()
    layers = [f"base_model.model.encoder.layer.{n}.attention.self.{m}" for n in range(3) for m in ("query", "value")]
    random = np.random.default_rng(0)
    tensors = {f"{layer}.lora_A.weight": random.normal(size=(4, 64)).astype(np.float32) for layer in layers}
    tensors |= {f"{layer}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32) for layer in layers}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(LORA | {"peft_type": "LORA"}))
    return folder


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values], ids=str)
def test_settings_that_are_refused(name: str, value: Any, pair: Path, plain: Path) -> None:
    """One line with the file and the field."""
    base = read_model(pair / "open_clip")
    with_peft(base, plain)
    edit(plain, lambda c: c.update({name: value}))
    with pytest.raises(UserError) as caught:
        with_peft(base, plain)
    message = str(caught.value)
    assert str(plain / CONFIG) in message and "\n" not in message
    field = "dropout" if name == "lora_dropout" else name
    assert field in message or "regular expression" in message


def test_a_residual_init_says_what_to_do(pair: Path, plain: Path) -> None:
    edit(plain, lambda c: c.update(init_lora_weights="pissa"))
    with pytest.raises(UserError, match=r"init_lora_weights = 'pissa': .*path_initial_model_for_weight_conversion"):
        with_peft(read_model(pair / "open_clip"), plain)


def tensors_of(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


LAYER = "base_model.model.encoder.layer.1.attention.self.query"
A = f"{LAYER}.lora_A.weight"
CHANGES: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "a block without": (lambda t: [t.pop(A), t.pop(A.replace("_A", "_B"))], "attention/query of block 1 has nothing"),
    "half": (lambda t: t.pop(A), "attention/query of block 1 has lora_B"),
    "another rank": (
        lambda t: t.update({A: t[A][:2], A.replace("_A", "_B"): t[A.replace("_A", "_B")][:, :2]}),
        "another rank than r = 4",
    ),
    "ranks that disagree": (lambda t: t.update({A: t[A][:2]}), r"lora_A \(2, 64\)"),
    "NaN": (lambda t: t[A].__setitem__((0, 0), np.nan), "NaN"),
    "quantised": (lambda t: t.update({A: t[A].astype(np.int8)}), r"lora_A.weight \(int8\)"),
    "a module that is not named": (
        lambda t: t.update({A.replace("query", "key"): t[A], A.replace("query", "key").replace("_A", "_B"): t[A].T.copy()}),
        "is not of a module that adapter_config.json names",
    ),
    "two models": (
        lambda t: t.update({n.replace("model.encoder", "model.bert.encoder"): x for n, x in t.items()}),
        r"several models \(.*bert.encoder.layer",
    ),
    "twice": (lambda t: t.update({A.replace("_A", "_A.default"): t[A] + 1}), "is there twice"),
    "a head": (lambda t: t.update({"base_model.model.classifier.weight": np.ones((2, 64), np.float32)}), "classifier.weight"),
    "a fourth block": (lambda t: t.update({A.replace("layer.1", "layer.3"): t[A]}), "layer.3"),
    "nothing": (lambda t: t.clear(), "no tensor here"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_belong_to_the_settings(change: str, pair: Path, plain: Path) -> None:
    tensors_of(plain, CHANGES[change][0])
    with pytest.raises(UserError, match=CHANGES[change][1]):
        with_peft(read_model(pair / "open_clip"), plain)


def test_prefixes(pair: Path, tmp_path: Path) -> None:
    base = read_model(pair / "open_clip")
    tmp_path.joinpath(WEIGHTS).touch()
    save_file({"prompt_embeddings": np.ones((5, 3 * 2 * 64), np.float32)}, tmp_path / WEIGHTS)
    settings = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5, "num_layers": 3, "token_dim": 64}

    def read(**changes: Any) -> Model:
        shutil.rmtree(tmp_path / "of", ignore_errors=True)
        (tmp_path / "of" / "text").mkdir(parents=True)
        shutil.copy(tmp_path / WEIGHTS, tmp_path / "of" / "text")
        kept = {name: value for name, value in (settings | changes).items() if value != "gone"}
        (tmp_path / "of" / "text" / CONFIG).write_text(json.dumps(kept))
        return with_peft(base, tmp_path / "of")

    assert read().adaptation.text is not None
    for changes, message in [
        ({"prefix_projection": True}, "prefix_projection = True is not supported"),
        ({"num_virtual_tokens": "gone"}, "num_virtual_tokens = 0: expected"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens = None"),
        ({"num_attention_heads": 3}, "num_attention_heads = 3, but this model has 4"),
        ({"num_virtual_tokens": 4}, r"prompt_embeddings of shape \(4, 384\)"),
    ]:
        with pytest.raises(UserError, match=message):
            read(**changes)
