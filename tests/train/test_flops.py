"""Floating-point work: by hand for known models, and as XLA counts it in the compiled gradient."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import (
    Adaptation,
    BertConfig,
    Classification,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    GPTConfig,
    LlamaConfig,
    LoRAConfig,
    PreprocessConfig,
    Softmax,
    Stage,
    TrainConfig,
    ViTConfig,
)
from biomedclip_jax.models import abstract_model
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train.flops import flops_per_pair, tower_work
from biomedclip_jax.train.step import loss_and_gradient
from biomedclip_jax.train.text_buckets import Bucket


@pytest.mark.parametrize(("patch_keep", "expected"), [(1.0, 243e9), (0.5, 190e9)])
def test_work_of_the_released_model(patch_keep: float, expected: float) -> None:
    """The numbers worked out by hand for ViT-B/16 at 224 px and BERT-base at 256 tokens, 3 x forward."""
    work = flops_per_pair(CLIPConfig(), Stage(8, steps=1, patch_keep=patch_keep))
    assert work == pytest.approx(expected, rel=0.015)


def test_work_follows_text_length() -> None:
    short = dataclasses.replace(CLIPConfig(), text=BertConfig(context_length=128))
    stage = Stage(8, steps=1)
    assert 0.6 < flops_per_pair(short, stage) / flops_per_pair(CLIPConfig(), stage) < 0.75


@pytest.mark.parametrize("text", [GPTConfig(), LlamaConfig(), LlamaConfig(key_value_heads=8)])
def test_work_of_causal_towers(text: GPTConfig | LlamaConfig) -> None:
    """Two operations a weight and token, and 4·N²·D for the attention, counted here on the shapes of the parameters."""
    model = CLIPConfig(text=text, text_head="linear")
    blocks = flatten_dict(abstract_model(model)[1]["text"]["blocks"], sep="/")
    weights = sum(leaf.size for path, leaf in blocks.items() if path.endswith("kernel"))
    tokens = text.context_length
    forward = 2 * tokens * weights + 4 * tokens**2 * text.width * text.depth
    image = flops_per_pair(CLIPConfig(), stage := Stage(8, steps=1)) - 3 * 12 * (256 * 24 * 768**2 + 4 * 256**2 * 768)
    assert flops_per_pair(model, stage) == pytest.approx(image + 3 * forward)


# a tower that leans on matrix products as large ones do, and GPT-2's rather than BERT's, whose embeddings' norm is in `norm`
SMALL = CLIPConfig(
    image=ViTConfig(image_size=48, patch_size=8, width=96, depth=2, heads=2, mlp_width=384),
    text=GPTConfig(
        vocab_size=50,
        context_length=32,
        positions=32,
        width=96,
        depth=2,
        heads=2,
        mlp_width=384,
        dropout=0.0,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        pad_id=0,
    ),
    embed_width=16,
    text_head="linear",
)
WITH_LORA = Adaptation(text=LoRAConfig(rank=4, dropout=0.0))


@pytest.mark.parametrize(
    "trainable",
    [
        ("*",),
        ("image", "*lora*", "*_head", "logit_scale"),
        ("image/patch", "text/word"),
        ("*/norm", "*_head", "logit_scale"),
    ],
    ids=["all", "cleft", "below the blocks", "above the blocks"],
)
def test_work_is_what_the_compiled_gradient_does(trainable: tuple[str, ...]) -> None:
    """XLA's own count of the real gradient, without loops, which it would count once. It has the elementwise work besides."""
    stage = Stage(8, steps=1, trainable=trainable)
    config = TrainConfig(
        name="x",
        data=DataConfig(train="x"),
        stages=(stage,),
        model=SMALL,
        adaptation=WITH_LORA,
        preprocess=PreprocessConfig(48),
        compute=ComputeConfig(unroll=2),
    )
    batch = {
        "images": np.zeros((8, 48, 48, 3), np.float32),
        "tokens": np.ones((8, 32), np.int32),
        "index": np.arange(8, dtype=np.uint32),
    }
    gradient = jax.jit(loss_and_gradient(config, stage, make_mesh(jax.devices()[:1])))
    quickly: Any = {"xla_backend_optimization_level": 0}
    counted: Any = gradient.lower(abstract_model(SMALL, adaptation=WITH_LORA)[1], batch).compile(quickly).cost_analysis()
    done = counted["flops"] / 8
    counted_besides = 0.0
    if "*lora*" in trainable:  # by convention all blocks have a gradient of their input; the first needs none of what is below
        shapes = flatten_dict(abstract_model(SMALL, adaptation=WITH_LORA)[1], sep="/")
        counted_besides = 2 * 32 * shapes["text/blocks/attention/qkv/kernel"].size / SMALL.text.depth
    assert 1 <= done / (flops_per_pair(SMALL, stage, adaptation=WITH_LORA) - counted_besides) < 1.1


def test_work_of_frozen_towers_by_hand() -> None:
    """CLEFT's first stage: an image tower that learns whole, and a language model that passes gradients on to its LoRA."""
    model, lora_only = CLIPConfig(text=GPTConfig(), text_head="linear"), Adaptation(text=LoRAConfig(rank=8))
    work = tower_work(model, Stage(8, steps=1, trainable=("image", "*lora*")), adaptation=lora_only)
    assert work["image"].backward == pytest.approx(2 * work["image"].forward)
    matrices, lora = 2 * 64 * 32 * 12 * 2560**2, 2 * 64 * 32 * (2560 * 8 + 8 * 7680)
    attention = 4 * 64**2 * 2560 * 32
    assert work["text"].forward == pytest.approx(matrices + lora + attention)
    assert work["text"].backward == pytest.approx(matrices + 2 * lora + 2 * attention)
    still = tower_work(model, Stage(8, steps=1, trainable=("*_head", "logit_scale")), adaptation=lora_only)
    assert [w.backward for w in still.values()] == [0, 0] and still["text"].forward == work["text"].forward
    buckets = Bucket(rows=3, length=32, microbatches=1), Bucket(rows=1, length=64, microbatches=1)
    shorter = tower_work(model, Stage(8, steps=1, trainable=("*lora*",)), buckets, adaptation=lora_only)["text"].forward
    assert shorter == pytest.approx((matrices + lora) * 5 / 8 + attention * 7 / 16)
    # learned context stands below the blocks; all classes once a step, or the class of each image
    prompted = Stage(8, steps=1, loss=Softmax(text="label"), trainable=("context",))
    learned = Adaptation(text=LoRAConfig(rank=8), context=30)
    each = tower_work(model, prompted, prompts=(4, 64), adaptation=learned)["text"]
    assert each.forward == work["text"].forward and each.backward == pytest.approx(matrices + lora + 2 * attention)
    all_four = tower_work(model, dataclasses.replace(prompted, loss=Classification()), (), (4, 64), learned)["text"]
    assert all_four == pytest.approx((each.forward / 2, each.backward / 2))
    assert tower_work(model, prompted, adaptation=learned)["text"] == (0, 0)
    # BERT's `norm` is that of its embeddings: what is trained there needs the gradient of every block
    bert = tower_work(CLIPConfig(), Stage(8, steps=1, trainable=("text/norm",)))["text"]
    assert bert.forward < bert.backward < 1.1 * bert.forward
