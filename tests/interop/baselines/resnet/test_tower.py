"""ResNet towers against open_clip's ModifiedResNet and torchvision's ResNet on the same random weights."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.reference import load_open_clip, randomise, randomise_batch_norm

from biomedclip_jax.config import CLIPConfig, ComputeConfig, DataConfig, Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import to_params
from biomedclip_jax.interop.baselines.resnet.mapping import BATCH_COUNTS, resnet_entries
from biomedclip_jax.interop.baselines.resnet.tower import ResNet, ResNetConfig

PLAIN = ResNetConfig(image_size=96, blocks=(2, 1, 3, 2), stem_width=64, style="torchvision", pool="mean")


def modified_resnet(config: ResNetConfig) -> Any:
    load_open_clip()
    from open_clip.modified_resnet import ModifiedResNet

    reference = ModifiedResNet(list(config.blocks), 40, config.heads, config.image_size, config.stem_width)
    randomise(reference)
    randomise_batch_norm(reference)
    return reference.eval()


def plain_resnet(config: ResNetConfig) -> Any:
    load_open_clip()
    from torchvision.models.resnet import Bottleneck, ResNet

    reference = ResNet(Bottleneck, list(config.blocks))
    randomise(reference)
    randomise_batch_norm(reference)
    return reference.eval()


def params_of(config: ResNetConfig, reference: Any) -> tuple[Any, Any]:
    """Our tower with the weights of the reference: `(graph, params)`."""
    tensors = {name: t.numpy() for name, t in reference.state_dict().items()}
    graph, state = nnx.split(nnx.eval_shape(lambda: ResNet(config, ComputeConfig(), nnx.Rngs(0))))
    ignored = BATCH_COUNTS | {"fc.*": "classifier", "attnpool.c_proj.*": "the head"}
    shapes = {"image": nnx.to_pure_dict(state)}
    params, _ = to_params(tensors, resnet_entries(config, ""), shapes, ignored, "reference")
    return graph, params["image"]


def features(config: ResNetConfig, reference: Any, x: np.ndarray) -> jax.Array:
    graph, params = params_of(config, reference)
    return jax.jit(lambda params, x: nnx.merge(graph, params)(x))(params, x)


def images(size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(3, size, size, 3)) + 2 * rng.normal(size=(3, 1, 1, 3))).astype(np.float32)


def relative(ours: Any, expected: np.ndarray) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("blocks", [(1, 2, 3, 2), (1, 1, 1, 1)])
def test_clips_resnet(blocks: tuple[int, ...]) -> None:
    import torch

    config = ResNetConfig(image_size=96, blocks=blocks, stem_width=16, heads=8)
    reference = modified_resnet(config)
    head = reference.attnpool.c_proj
    x = images(96)
    with torch.no_grad():
        expected = reference(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
        ours = features(config, reference, x)
        assert ours.shape == (3, config.width) == (3, 512)
        assert relative(head(torch.from_numpy(np.array(ours))).numpy(), expected) <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-3, "the reference tells images apart"


@pytest.mark.parametrize("size", [96, 64])
def test_torchvisions_resnet_pooled_and_unpooled(size: int) -> None:
    import torch

    reference = plain_resnet(PLAIN)
    reference.fc = torch.nn.Identity()
    x = images(size)
    places = []
    reference.layer4.register_forward_hook(lambda _, __, y: places.append(y.permute(0, 2, 3, 1).numpy()))
    with torch.no_grad():
        pooled = reference(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert relative(features(PLAIN, reference, x), pooled) <= 1e-5
    unpooled = ResNetConfig(image_size=size, blocks=PLAIN.blocks, style="torchvision", pool="none")
    ours = features(unpooled, reference, x)
    assert ours.shape == (3, size // 32, size // 32, 2048)
    assert relative(ours, places[0]) <= 1e-5


def test_gradients_are_those_of_a_frozen_batch_norm() -> None:
    """Kernels, scales and biases learn, the running statistics do not: as in torch with the towers in eval mode."""
    import torch

    config = ResNetConfig(image_size=64, blocks=(1, 2, 3, 2), stem_width=16, heads=8)
    reference = modified_resnet(config)
    graph, params = params_of(config, reference)
    pool = reference.attnpool
    pool.c_proj = torch.nn.Linear(config.width, config.width)  # in the place of the head: nothing
    with torch.no_grad():
        pool.c_proj.weight.copy_(torch.eye(config.width))
        pool.c_proj.bias.zero_()
    x = images(64)
    weights = np.random.default_rng(1).normal(size=(3, config.width)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p: (nnx.merge(graph, p)(x) * weights).sum()))(params)
    (reference(torch.from_numpy(x).permute(0, 3, 1, 2)) * torch.from_numpy(weights)).sum().backward()

    def conv(module: Any) -> np.ndarray:
        return module.weight.grad.permute(2, 3, 1, 0).numpy()

    for ours, theirs in (
        (gradient["stem1"]["kernel"], conv(reference.conv1)),
        (gradient["stem1"]["scale"], reference.bn1.weight.grad.numpy()),
        (gradient["stage2"]["first"]["shortcut"]["kernel"], conv(reference.layer2[0].downsample[1])),
        (gradient["stage2"]["first"]["conv3"]["bias"], reference.layer2[0].bn3.bias.grad.numpy()),
        (gradient["stage3"]["blocks"]["conv2"]["kernel"][1], conv(reference.layer3[2].conv2)),
        (gradient["attention_pool"]["position"], pool.positional_embedding.grad.numpy()),
    ):
        assert relative(ours, theirs) <= 1e-4
    statistics = [x for path, x in flatten_dict(gradient, sep="/").items() if path.endswith(("/mean", "/var"))]
    assert len(statistics) == 2 * (3 + 3 * 4 + 3 * 3 + 4) and not any(np.any(x) for x in statistics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (3, 4, 6)}, "ResNetConfig.blocks"),
        ({"image_size": 100}, "ResNetConfig.image_size"),
        ({"heads": 30}, "ResNetConfig.heads"),
        ({"pool": "max"}, "ResNetConfig.pool"),
    ],
)
def test_a_wrong_size_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ResNetConfig(**changes)


def test_training_says_that_it_wants_a_vision_transformer() -> None:
    model = CLIPConfig(image=ResNetConfig(), image_head_bias=True)
    with pytest.raises(UserError, match="the image tower of this model is a ResNet; only a vision transformer"):
        TrainConfig("run", DataConfig("pairs.csv"), (Stage(steps=1, batch_size=2),), model)
