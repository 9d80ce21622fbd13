"""METER against a reconstruction in PyTorch, its masks and order, dropout that belongs to the example, and its towers."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers import tiny
from helpers.reference import open_clip_model
from helpers.tiny_step import QUICKLY
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, ComputeConfig, GPTConfig, LlamaConfig, MeterConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.baselines.pmc_clip.reader import PmcClipTextConfig
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.open_clip import mapping as open_clip
from biomedclip_jax.models import abstract_model, init_params, layers, transformer
from biomedclip_jax.models import bert as bert_module
from biomedclip_jax.models.answering import meter as meter_module
from biomedclip_jax.sharding import BATCH, as_varying, gather_leaves, make_mesh, shard_axes, shard_specs, sum_over_devices

METER = MeterConfig(answers=("yes", "no", "left"), question_length=8, layers=2, width=32, heads=4, mlp_width=48)
MODEL = dataclasses.replace(tiny.MODEL, answering=METER)
LABELS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]], bool)


def random_params(model: CLIPConfig) -> dict[str, Any]:
    """Random everywhere, so that biases and norms matter, and each token, too."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), jnp.float32), init_params(model, 0))


def run(function: Any, *arguments: Any) -> Any:
    """function(*arguments), compiled quickly."""
    return jax.jit(function).lower(*arguments).compile(QUICKLY)(*arguments)


def made(params: dict[str, Any], model: CLIPConfig = MODEL, **compute: Any) -> Any:
    """The model of these parameters, inside a traced function, too."""
    return nnx.merge(abstract_model(model, ComputeConfig(**compute))[0], params)


def assert_alike(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Relative 1e-4 in each tensor. A key bias moves all scores of a query alike: its true gradient is zero."""
    assert found.keys() == expected.keys()
    largest = max(np.abs(g).max() for g in expected.values())
    for path, gradient in expected.items():
        floor = 1e-4 * largest if path.endswith(("key/bias", "key.bias")) else 0
        assert np.abs(found[path] - gradient).max() <= 1e-4 * max(np.abs(gradient).max(), floor), path


# --- against PyTorch --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model folder with METER's towers, CLIP's ViT and a BERT, and the same in open_clip."""
    folder = tmp_path_factory.mktemp("towers")
    vision = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 48}
    text = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 12}
    return folder, open_clip_model(folder, vision, text, bert={"num_hidden_layers": 2}, quick_gelu=True)


@pytest.mark.parametrize("drop_last_block", [False, True])
def test_scores_and_gradients_from_pixels_and_tokens_on(clip_folder: tuple[Path, Any], drop_last_block: bool) -> None:
    import torch
    from helpers.meter_reference import TorchMeter, gradients, loss, put

    folder, reference = clip_folder
    towers = read_model(folder)
    config = dataclasses.replace(towers.config, answering=dataclasses.replace(METER, drop_last_block=drop_last_block))
    params = towers.params | {"answering": random_params(config)["answering"]}
    rng = np.random.default_rng(1)
    images = rng.normal(size=(5, 48, 48, 3)).astype(np.float32)
    tokens = rng.integers(5, 199, (5, 12))
    tokens[:, 0] = 2
    tokens[np.arange(12) >= np.array([[12], [9], [5], [3], [2]])] = 0

    def ours(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        clip = made(params, config)
        terms = clip.answering.terms(clip, images, tokens, jnp.asarray(LABELS), None)
        return terms.mean(), clip.answering.scores(clip, images, tokens)

    (value, scores), gradient = run(jax.value_and_grad(ours, has_aux=True), params)

    reference = copy.deepcopy(reference).double()
    theirs = TorchMeter(config.answering, 64, 64, class_token=True)
    put(params["answering"], theirs)
    theirs.double()
    visual, seen = reference.visual, torch.from_numpy(tokens != 0)
    image = visual._embeds(torch.from_numpy(images).permute(0, 3, 1, 2).double())
    for block in visual.transformer.resblocks[: -1 if drop_last_block else None]:
        image = block(image)
    text = reference.text.transformer(torch.from_numpy(tokens), attention_mask=seen.long()).last_hidden_state
    expected = theirs(text, seen, visual.ln_post(image))
    loss(expected, torch.from_numpy(LABELS).double()).backward()

    assert np.abs(np.asarray(scores) - expected.detach().numpy()).max() <= 1e-5
    assert abs(float(value) - loss(expected, torch.from_numpy(LABELS).double()).item()) <= 1e-5
    found = flatten_dict(gradient["answering"], sep="/")
    assert_alike({path: np.asarray(g) for path, g in found.items()}, gradients(theirs, list(found)))
    entries = open_clip.entries(towers.config, timm=False, text_prefix="text.")
    of_towers = from_params({name: g for name, g in gradient.items() if name != "answering"}, entries)
    reached = {name: p.grad.numpy() for name, p in reference.named_parameters() if p.grad is not None}
    assert_alike({name: g for name, g in of_towers.items() if name in reached}, reached)
    unreached = {name for name in of_towers if name not in reached}
    assert all(np.abs(of_towers[name]).max() == 0 for name in unreached)
    last = {name for name in unreached if "resblocks.2" in name}
    assert bool(last) == drop_last_block
    assert all("proj" in name for name in unreached - last - {"logit_scale"}), "both heads and nothing else"


def states() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of five questions of 2 to 8 tokens and images of 5 tokens: text, which of it is real, image."""
    rng = np.random.default_rng(2)
    text, image = (jnp.asarray(rng.normal(size=(5, n, 32)), jnp.float32) for n in (8, 5))
    return text, jnp.arange(8) < jnp.array([[8], [2], [5], [3], [7]]), image


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return random_params(MODEL)


@pytest.fixture(scope="module")
def scores_of(params: dict[str, Any]) -> Any:
    """(text, seen, image, keys or None) -> scores, compiled once a length."""
    return jax.jit(lambda *given: made(params).answering.scores_of_states(*given))


def test_an_image_tower_without_class_token_is_read_by_the_mean_of_its_patches(params: dict[str, Any]) -> None:
    import torch
    from helpers.meter_reference import TorchMeter, gradients, loss, put

    image = dataclasses.replace(MODEL.image, class_token=False, pool="mean")
    config = dataclasses.replace(MODEL, image=image)
    graph, shapes = abstract_model(config)
    assert jax.tree.map(jnp.shape, params["answering"]) == jax.tree.map(lambda x: x.shape, shapes["answering"])
    given, towers = states(), random_params(config)

    def ours(answering: dict[str, Any], text: jax.Array, image: jax.Array) -> jax.Array:
        meter = nnx.merge(graph, towers | {"answering": answering}).answering
        scores = meter.scores_of_states(text, given[1], image)
        return (jax.nn.softplus(scores) - scores * LABELS).sum() / len(LABELS)

    value, (gradient, *into) = run(jax.value_and_grad(ours, argnums=(0, 1, 2)), params["answering"], given[0], given[2])
    theirs = TorchMeter(METER, 32, 32, class_token=False)
    put(params["answering"], theirs)
    theirs.double()
    text, seen, image = (torch.tensor(np.asarray(x)) for x in given)
    text, image = (x.double().requires_grad_() for x in (text, image))
    expected = loss(theirs(text, seen, image), torch.from_numpy(LABELS).double())
    expected.backward()
    assert abs(float(value) - expected.item()) <= 1e-5
    found = {path: np.asarray(g) for path, g in flatten_dict(gradient, sep="/").items()}
    assert_alike(found, gradients(theirs, list(found)))
    assert_alike(dict(zip("ab", map(np.asarray, into), strict=True)), {"a": text.grad.numpy(), "b": image.grad.numpy()})


def test_each_stream_looks_at_the_other_as_it_comes_into_the_layer(params: dict[str, Any], scores_of: Any) -> None:
    import torch
    from helpers.meter_reference import TorchMeter, put

    theirs = TorchMeter(METER, 32, 32, class_token=True)
    put(params["answering"], theirs)
    given = states()
    found, tensors = np.asarray(scores_of(*given)), [torch.tensor(np.asarray(x)) for x in given]
    with torch.no_grad():
        assert np.abs(theirs(*tensors).numpy() - found).max() <= 1e-5
        theirs.one_after_another = True
        assert np.abs(theirs(*tensors).numpy() - found).max() > 1e-2


# --- masks and dropout ------------------------------------------------------------------------------------------------


def test_padding_is_looked_at_by_nobody_and_each_image_token_is(scores_of: Any) -> None:
    text, seen, image = states()
    found = np.asarray(scores_of(text, seen, image))
    assert np.array_equal(scores_of(jnp.where(seen[..., None], text, 100), seen, image), found)
    for token in range(5):
        other = image.at[:, token].add(1)
        assert (np.abs(scores_of(text, seen, other) - found).max(axis=1) > 1e-4).all(), token


def test_a_padded_question_has_the_scores_of_the_question_with_dropout_too(params: dict[str, Any]) -> None:
    rows = tiny.batch(5)
    tokens = np.where(np.arange(8) < 5, rows["tokens"], 0).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 5)
    both = jax.jit(lambda tokens, keys: (lambda clip: clip.answering.scores(clip, rows["images"], tokens, keys))(made(params)))
    plain, dropped = both(tokens, None), both(tokens, keys)
    assert np.abs(both(tokens[:, :5], None) - plain).max() <= 1e-5
    assert np.abs(both(tokens[:, :5], keys) - dropped).max() <= 1e-5
    assert np.abs(dropped - plain).max() > 1e-2


def test_dropout_belongs_to_the_example(scores_of: Any) -> None:
    given, keys = states(), jax.random.split(jax.random.key(0), 5)
    dropped = scores_of(*given, keys)
    assert np.abs(scores_of(*(x[::-1] for x in given), keys[::-1]) - dropped[::-1]).max() <= 1e-5
    assert np.abs(scores_of(*given, keys[::-1]) - dropped).max() > 1e-2


def test_no_two_uses_of_dropout_share_a_key_and_site(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the text tower and of the layers: 2 attentions and 3 sums for each modality and layer."""
    used: list[tuple[Any, ...]] = []

    def recorded(owner: str, function: Any, site: int | None = None) -> Any:
        def dropout(x: Any, rate: float, keys: Any, number: int) -> Any:
            if keys is not None and rate:
                where = owner, rate, number if site is None else site
                jax.debug.callback(lambda data: used.append((*where, *data.tolist())), jax.random.key_data(keys[0]))
            return function(x, rate, keys, number)

        return dropout

    for owner, module in (("tower", transformer), ("tower", bert_module), ("meter", meter_module)):
        monkeypatch.setattr(module, "dropout", recorded(owner, layers.dropout))
        if module is not bert_module:
            monkeypatch.setattr(module, "attention_dropout", recorded(owner, layers.attention_dropout, site=0))
    rows, keys = tiny.batch(2), jax.random.split(jax.random.key(0), 2)

    def scores(params: dict[str, Any]) -> jax.Array:
        clip = made(params)
        return clip.answering.scores(clip, rows["images"], rows["tokens"], keys)

    run(scores, params).block_until_ready()
    jax.effects_barrier()
    counts = {owner: sum(each == owner for each, *_ in used) for owner in ("tower", "meter")}
    assert counts == {"tower": 1 + 3 * tiny.MODEL.text.depth, "meter": 10 * METER.layers}
    assert all(rate == 0.1 for _, rate, *_ in used)
    assert len({tuple(key) for _, _, *key in used}) == len(used)


# --- sizes, and what a model without it is ----------------------------------------------------------------------------


def test_sizes() -> None:
    """9,451,776 parameters in a layer of one modality, twelve of them."""
    model = dataclasses.replace(CLIPConfig(), answering=MeterConfig(answers=("yes", "no")))
    shapes = abstract_model(model)[1]["answering"]
    blocks = sum(leaf.size for leaf in jax.tree.leaves(shapes["blocks"]))
    assert blocks == 113_421_312 == 12 * 9_451_776
    others = 4 * (768 * 768 + 768) + 2 * 768 + (1536 * 1536 + 1536) + 2 * 1536 + (1536 * 2 + 2)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == blocks + others


def test_kernels_start_small_and_biases_at_zero_and_the_towers_are_as_without_it() -> None:
    params, without = init_params(MODEL, 3), init_params(tiny.MODEL, 3)
    answering = params.pop("answering")
    assert jax.tree.all(jax.tree.map(np.array_equal, params, without))
    flat = flatten_dict(answering, sep="/")
    assert all((leaf == 0).all() for path, leaf in flat.items() if path.endswith("bias"))
    assert all((leaf == 1).all() for path, leaf in flat.items() if path.endswith("scale"))
    drawn = {path: float(leaf.std()) for path, leaf in flat.items() if path.endswith("kernel") and leaf.size > 1000}
    assert all(abs(deviation - 0.02) < 0.002 for deviation in drawn.values()), drawn
    stacked = flat["blocks/text/self_attention/query/kernel"]
    assert np.abs(stacked[0] - stacked[1]).max() > 0.01


def test_how_it_computes_does_not_change_what(params: dict[str, Any]) -> None:
    def gradient(**compute: Any) -> Any:
        def total(answering: dict[str, Any]) -> jax.Array:
            return made(params | {"answering": answering}, **compute).answering.scores_of_states(*states()).sum()

        return flatten_dict(run(jax.grad(total), params["answering"]), sep="/")

    plain = gradient()
    for path, g in gradient(remat="full", unroll=2).items():
        assert np.abs(g - plain[path]).max() <= 1e-5 * max(1.0, float(np.abs(plain[path]).max())), path


def test_bfloat16_gives_float32_scores_near_the_exact_ones(params: dict[str, Any]) -> None:
    rows = tiny.batch(4)

    def scores(**compute: Any) -> jax.Array:
        clip = made(params, **compute)
        return clip.answering.scores(clip, rows["images"], rows["tokens"])

    exact, half = run(scores), run(lambda: scores(dtype="bfloat16"))
    assert half.dtype == jnp.float32 and 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()


def test_terms_are_counted_for_all(params: dict[str, Any]) -> None:
    counted = made(params).answering.counted(jnp.asarray(LABELS))
    assert counted.shape == (5, 1) and counted.dtype == bool and counted.all()


# --- split over devices -----------------------------------------------------------------------------------------------


def test_split_weights_give_the_same_gradient_with_the_last_block_left_out() -> None:
    """The towers' blocks are gathered one by one, the rest at once."""
    config = dataclasses.replace(MODEL, answering=dataclasses.replace(METER, drop_last_block=True))
    params, rows = random_params(config), tiny.batch(8)
    labels, keys = np.resize(LABELS, (8, 3)), np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 8)))
    batch = {"images": rows["images"], "tokens": rows["tokens"], "labels": labels, "keys": keys}
    mesh = make_mesh(fsdp=2)
    axes = shard_axes(params, mesh)
    later = {tower: axes[tower]["blocks"] for tower in ("image", "text")}
    gathers = [lambda block, a=a: gather_leaves(block, a, first=1) for a in later.values()]

    def share(graph: Any, params: dict[str, Any], batch: dict[str, Any]) -> jax.Array:
        clip, keys = nnx.merge(graph, params), jax.random.wrap_key_data(batch["keys"])
        return clip.answering.terms(clip, batch["images"], batch["tokens"], batch["labels"], keys).sum()

    def on_device(params: dict[str, Any], batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        def whole(params: dict[str, Any]) -> jax.Array:
            blocks = {tower: {"blocks": params[tower]["blocks"]} for tower in later}
            rest = {k: {n: v for n, v in x.items() if n != "blocks"} if k in later else x for k, x in params.items()}
            where = {k: {n: v for n, v in x.items() if n != "blocks"} if k in later else x for k, x in axes.items()}
            full = gather_leaves(rest, where)
            graph = abstract_model(config, ComputeConfig(), *gathers)[0]
            return share(graph, full | {k: full[k] | blocks[k] for k in later}, batch)

        value, gradient = jax.value_and_grad(whole)(as_varying(params, axes))
        return sum_over_devices(value, gradient, axes)

    specs = shard_specs(params, axes)
    split = jax.shard_map(on_device, mesh=mesh, in_specs=(specs, BATCH), out_specs=(P(), specs))
    value, gradient = run(split, params, batch)
    graph, _ = abstract_model(config)
    expected, plain = run(jax.value_and_grad(lambda p, b: share(graph, p, b)), params, batch)
    assert axes["answering"]["blocks"]["text"]["fc1"]["kernel"] == 2, "split, but not over layers"
    assert abs(float(value) - float(expected)) <= 1e-5 * float(expected)
    found, wanted = flatten_dict(gradient, sep="/"), flatten_dict(plain, sep="/")
    largest = max(float(np.abs(g).max()) for g in wanted.values())
    for path, g in wanted.items():
        assert np.abs(np.asarray(found[path]) - g).max() <= 1e-5 * max(float(np.abs(g).max()), 1e-2 * largest), path
    last = np.asarray(found["image/blocks/mlp/fc1/kernel"])
    assert np.abs(last[:-1]).max() > 0 and np.abs(last[-1]).max() == 0


# --- what the towers give ---------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 40, "context_length": 8, "width": 16, "depth": 2, "heads": 4, "mlp_width": 32}
GPT = GPTConfig(**SIZES, positions=16, pad_id=7)
LLAMA = LlamaConfig(**SIZES, positions=16, key_value_heads=2, pad_id=7)
CLIP_TEXT = ClipTextConfig(**SIZES)
BERT = BertConfig(**SIZES, positions=8)
# the last id ends a text of CLIP's; one text is full, one short, one has nothing between its start and its end
TOKENS = np.array([[2, 4, 5, 6, 8, 9, 3, 39], [2, 4, 5, 39, 0, 0, 0, 0], [2, 39, 0, 0, 0, 0, 0, 0]], np.int32)
TEXTS = [
    BERT,
    dataclasses.replace(BERT, pool="max"),
    CLIP_TEXT,
    dataclasses.replace(CLIP_TEXT, pool="eos", eos_id=39),
    dataclasses.replace(CLIP_TEXT, pool="last", causal=False),
    GPT,
    dataclasses.replace(GPT, pool="first_eos"),
    LLAMA,
    dataclasses.replace(LLAMA, pool="first_eos"),
]


@pytest.mark.parametrize("config", TEXTS, ids=lambda c: f"{type(c).__name__} {c.pool}")
def test_the_states_of_all_tokens_are_those_that_a_text_tower_pools(config: Any) -> None:
    """And none of them, nor which belong to a text, depends on padding that is cut off."""
    model = dataclasses.replace(tiny.MODEL, text=config)
    tower = made(random_params(model), model).text
    causal = isinstance(config, GPTConfig | LlamaConfig)
    tokens = np.where(TOKENS == 0, 7, TOKENS) if causal else TOKENS
    whole, seen, features, (cut, cut_seen) = run(
        lambda: (*tower.token_states(tokens), tower(tokens), tower.token_states(tokens[1:, :5]))
    )
    lengths = {"last": [8, 8, 8], "first_eos": [8, 5, 3]}.get(config.pool, [8, 4, 2])
    assert np.asarray(seen).sum(axis=1).tolist() == lengths
    assert np.array_equal(seen, np.arange(8) < np.array(lengths)[:, None])
    if config.pool == "max":
        pooled = np.where(np.asarray(seen)[..., None], whole, -np.inf).max(axis=1)
    else:
        index = {"cls": [0, 0, 0], "last": [7, 7, 7], "first_eos": [0, 4, 2]}.get(config.pool, [7, 3, 1])
        pooled = np.asarray(whole)[np.arange(3), index]
    assert np.abs(pooled - features).max() <= 1e-6
    kept = np.asarray(cut_seen)
    assert np.array_equal(kept, np.asarray(seen)[1:, : kept.shape[1]]) and kept.sum() == sum(lengths[1:])
    assert np.abs(np.asarray(cut) - np.asarray(whole)[1:, : kept.shape[1]])[kept].max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "pooled"),
    [
        ({}, lambda x: x[:, 0]),
        ({"class_token": False, "pool": "mean"}, lambda x: x.mean(axis=1)),
        ({"registers": 2, "pool": "mean", "norm_pre": True}, lambda x: x[:, 3:].mean(axis=1)),
        ({"pool": "map"}, None),
        ({"pool": "mean", "norm_after_pool": True}, None),
        ({"pool": "mean_prenorm"}, None),
    ],
)
def test_the_states_of_all_tokens_of_an_image(changes: dict[str, Any], pooled: Any) -> None:
    """With the last block left out, they are those of the tower that has one block less. The norm is the last one always."""
    config = dataclasses.replace(tiny.MODEL.image, **changes)
    model = dataclasses.replace(tiny.MODEL, image=config)
    params, images = random_params(model), tiny.batch(3)["images"]
    tower = made(params, model).image
    short = dataclasses.replace(model, image=dataclasses.replace(config, depth=1))
    less = params | {"image": params["image"] | {"blocks": jax.tree.map(lambda x: x[:1], params["image"]["blocks"])}}
    whole, features, left, expected = run(
        lambda: (
            tower.token_states(images),
            tower(images),
            tower.token_states(images, drop_last_block=True),
            made(less, short).image.token_states(images),
        )
    )
    assert whole.shape == (3, config.prefix_tokens + 4, 32)
    assert np.abs(left - expected).max() <= 1e-6 < 1e-3 < np.abs(left - whole).max()
    if pooled is not None:
        assert np.abs(pooled(whole) - features).max() <= 1e-5
    norm = params["image"]["norm"]
    unit = (np.asarray(whole) - norm["bias"]) / norm["scale"]
    assert np.abs(unit.mean(axis=-1)).max() <= 1e-4 and np.abs(unit.std(axis=-1) - 1).max() <= 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": ResNetConfig(image_size=32)},
            r"^the image tower of this model is a ResNet, whose tokens METER cannot use: expected a vision transformer",
        ),
        (
            {"text": PmcClipTextConfig()},
            r"^the text tower of this model is a PmcClipText, whose tokens METER cannot use: expected a BERT",
        ),
        (
            {"answering": dataclasses.replace(METER, question_length=9)},
            r"^MeterConfig\.question_length = 9: expected at most the text tower's context_length = 8",
        ),
        ({"answering": MeterConfig(question_length=8)}, r"^MeterConfig\.answers = \(\): expected at least one answer"),
    ],
)
def test_what_it_cannot_be_put_upon_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        abstract_model(dataclasses.replace(MODEL, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answers": ("yes", "no", "yes")},
            r"^MeterConfig\.answers: 'yes' is there more than once: expected each",
        ),
        ({"answers": "yes"}, r"^MeterConfig\.answers = 'yes': expected a tuple of texts"),
        ({"heads": 5}, r"^MeterConfig\.width = 32: expected a multiple of heads = 5$"),
        ({"dropout": 1.0}, r"^MeterConfig\.dropout = 1\.0: expected at least 0 and below 1$"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(METER, **changes)
