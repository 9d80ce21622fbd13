"""A whole training step with fused attention, its kernels in Pallas' interpreter, is the one with the plain form."""

import dataclasses

import pytest
from helpers import tiny
from helpers.interpreted_kernels import interpreted
from helpers.tiny_step import Way, assert_same, result

from biomedclip_jax.config import CLIPConfig

pytestmark = pytest.mark.usefixtures(interpreted.__name__)


def with_heads(model: CLIPConfig, heads: int) -> CLIPConfig:
    return dataclasses.replace(
        model,
        image=dataclasses.replace(model.image, heads=heads),  # type: ignore[type-var]
        text=dataclasses.replace(model.text, heads=heads, attention_dropout=0.2),  # type: ignore[type-var]
    )


MODEL = with_heads(tiny.MODEL, 2)  # 16 numbers wide: the narrowest that there is a kernel for


@pytest.mark.parametrize(
    "way",
    [Way(microbatches=2), Way(devices=2, remat="dots"), Way(devices=4, fsdp=2), Way(devices=1, remat="full")],
    ids=["eight devices", "remat", "split", "all again"],
)
def test_loss_and_gradient_are_those_of_the_plain_form(way: Way) -> None:
    way = dataclasses.replace(way, model=MODEL)
    assert_same(result(dataclasses.replace(way, attention="fused")), result(way.plain))
