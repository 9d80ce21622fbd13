"""Images reach the devices as uint8; nothing that is computed from them differs by a bit from what float32 ones gave."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import QUICKLY, ROWS, Result, Way, batch_of, kept, parameters
from train.test_step_answers import METER, QCR, TOWERS, Answers

from biomedclip_jax.config import ComputeConfig, PreprocessConfig
from biomedclip_jax.config.pixels import OPENAI_MEAN, OPENAI_STD
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.sharding import put_batch
from biomedclip_jax.train._gradient import loss_and_gradient
from biomedclip_jax.train.microbatches import normaliser, put_training_batch

COLOURS = {
    "OpenAI": (OPENAI_MEAN, OPENAI_STD),
    "SigLIP": ((0.5,) * 3, (0.5,) * 3),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "BioViL": ((0.0,) * 3, (1.0,) * 3),
    "MedCLIP": ((0.5862785803043838,) * 3, (0.27950088968644304,) * 3),
}
VALUES = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def bits(values: object) -> np.ndarray:
    return np.asarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize("name", COLOURS)
def test_compiled_normalisation_has_the_bits_of_the_hosts(name: str) -> None:
    config = PreprocessConfig(mean=COLOURS[name][0], std=COLOURS[name][1])
    expected = bits(normalised(VALUES, config))
    np.testing.assert_array_equal(bits(jax.jit(normaliser(config))(VALUES)), expected)

    def divided(images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) / 255 - jnp.array(config.mean)) / jnp.array(config.std)

    assert (bits(jax.jit(divided)(VALUES)) != expected).any(), "or the arithmetic itself would do, without a table"


@pytest.mark.parametrize("name", COLOURS)
def test_what_a_tpu_computes_rounds_to_the_same_bfloat16(name: str) -> None:
    """One value of a channel aside, where mean and deviation are 0.5; in float32 the last bits differ."""
    config = PreprocessConfig(mean=COLOURS[name][0], std=COLOURS[name][1])
    expected = normalised(VALUES, config)
    exported = jax.export.export(jax.jit(normaliser(config)), platforms=["tpu"])(VALUES)
    assert "gather" not in exported.mlir_module(), "which a TPU does number by number"
    mean, std = (np.float64(np.float32(values)) for values in COLOURS[name])
    slope, start = np.float32(1 / (255 * std)), np.float32(-mean / std)
    computed = VALUES.astype(np.float32) * slope + start
    assert np.abs(computed - expected).max() <= 5e-7
    rounded = [np.asarray(jnp.asarray(each, jnp.bfloat16), np.float32) for each in (computed, expected)]
    assert (rounded[0] != rounded[1]).sum(axis=0).max() <= (1 if name == "SigLIP" else 0)


def test_float_images_are_normalised_already() -> None:
    images = tiny.batch(2)["images"]
    np.testing.assert_array_equal(normaliser(PreprocessConfig())(jnp.asarray(images)), images)


ALIKE = {"the whole batch at once": Way(devices=1), "microbatches on two devices": Way(devices=2, microbatches=4)}
ANSWERING = {
    "METER": Way(devices=1, microbatches=2, loss=Answers(), model=METER, trainable=TOWERS),
    "QCR": Way(devices=1, loss=Answers(), model=QCR, trainable=("image", "answering/open")),
}


WAITING = {
    "whole batch": Way(devices=1),
    "eight devices": Way(microbatches=8),
    "split parameters and remat": Way(devices=4, fsdp=2, microbatches=4, remat="full"),
    "METER": ANSWERING["METER"],
}


@pytest.mark.parametrize("name", WAITING)
def test_images_that_wait_on_the_host_change_nothing_but_rounding(name: str) -> None:
    """The same numbers are normalised; XLA fuses what follows in another way, as with another microbatch or remat."""
    way = WAITING[name]
    images = np.random.default_rng(5).integers(0, 256, (ROWS, 16, 16, 3), np.uint8)
    found = []
    for place in ("device", "host"):
        batch = put_training_batch(batch_of(way) | {"images": images}, way.mesh(), ComputeConfig(images_in=place))
        kinds = {name: array.sharding.memory_kind for name, array in batch.items()}
        assert kinds.pop("images") == ("pinned_host" if place == "host" else "device") and set(kinds.values()) == {"device"}
        found.append(computed(way, batch))
    same_but_for_rounding(*found)


def of_both(way: Way) -> list[Result]:
    """Loss and gradients of uint8 images, and of the float ones that the host would make of them."""
    images = np.random.default_rng(5).integers(0, 256, (ROWS, 16, 16, 3), np.uint8)
    both = (images, normalised(images, way.config().preprocess))
    return [computed(way, put_batch(batch_of(way) | {"images": each}, way.mesh())) for each in both]


def computed(way: Way, batch: dict[str, jax.Array]) -> Result:
    run: Any = jax.jit(loss_and_gradient(way.config(), way.stage(), way.mesh()))
    compiled = run.lower(kept(way, parameters(way.model)), batch).compile(QUICKLY)
    placed = jax.device_put(kept(way, parameters(way.model)), compiled.input_shardings[0][0])
    loss, gradients = compiled(placed, batch)
    return float(loss), {path: np.asarray(leaf) for path, leaf in gradients.items()}


def same_but_for_rounding(ours: Result, expected: Result) -> None:
    assert abs(ours[0] - expected[0]) <= 2e-7 * expected[0]
    largest = max(np.abs(leaf).max() for leaf in expected[1].values())
    assert all(np.abs(ours[1][path] - leaf).max() <= 1e-6 * largest for path, leaf in expected[1].items())


@pytest.mark.parametrize("name", ALIKE)
def test_loss_and_gradients_have_the_bits_that_float_images_give(name: str) -> None:
    ours, expected = of_both(ALIKE[name])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(bits(a), bits(b)), ours, expected)
    assert len(ours[1]) > 3 and all(leaf.any() for leaf in ours[1].values())


@pytest.mark.parametrize("name", ANSWERING)
def test_what_answers_questions_gives_the_same_loss(name: str) -> None:
    """Its gradients agree to rounding: XLA fuses other parts of this program in another way, and so rounds them otherwise."""
    ours, expected = of_both(ANSWERING[name])
    assert ours[0] == expected[0]
    same_but_for_rounding(ours, expected)
