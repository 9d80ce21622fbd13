"""The Swin tower against transformers' SwinModel on the same random weights."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, randomise

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import to_params
from biomedclip_jax.interop.baselines.medclip._swin import Swin, SwinConfig, relative_positions, shifted_mask
from biomedclip_jax.interop.baselines.medclip.reader import swin_entries

SMALL = SwinConfig(image_size=64, patch_size=2, first_width=16, depths=(4,), heads=(2,), window=8, mlp_ratio=2)


def reference_tower(config: SwinConfig) -> Any:
    load_open_clip()
    import torch
    import transformers

    model = transformers.SwinModel(
        transformers.SwinConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.first_width,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=config.window,
            mlp_ratio=float(config.mlp_ratio),
        )
    )
    randomise(model)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.data += torch.randn(parameter.shape, generator=generator)  # as large as the scores
    return model.eval()


def saved(model: Any, folder: Any) -> dict[str, np.ndarray]:
    """The tensors of a transformers model under the names that they have on disk."""
    from safetensors.numpy import load_file

    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    "config",
    [
        SMALL,  # 32 places a side: four times four windows
        SwinConfig(
            image_size=56, first_width=8, depths=(2, 2), heads=(1, 2)
        ),  # 14 and 7 places: four windows, then one, as in Swin-T
    ],
)
def test_tower(config: SwinConfig, tmp_path: Any) -> None:
    reference = reference_tower(config)
    import torch

    graph, state = nnx.split(Swin(config, ComputeConfig(), nnx.Rngs(0)))
    tensors = saved(reference, tmp_path)
    params, report = to_params(tensors, swin_entries(config), {"image": nnx.to_pure_dict(state)}, {}, "reference")
    assert set(report.used) == tensors.keys()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, config.image_size, config.image_size, 3)).astype(np.float32)
    ours = jax.jit(lambda params, images: nnx.merge(graph, params)(images))(params["image"], images)
    with torch.no_grad():
        found = reference(torch.from_numpy(images).permute(0, 3, 1, 2))
        expected, states = found.pooler_output.numpy(), found.last_hidden_state.numpy()
    assert np.abs(expected).max() > 0.5
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()
    tokens = jax.jit(lambda params, images: nnx.merge(graph, params).patch_states(images))(params["image"], images)
    assert tokens.shape == states.shape and np.abs(tokens - states).max() <= 1e-5 * np.abs(states).max()


def test_relative_positions_name_the_way_from_one_place_to_the_other() -> None:
    index = relative_positions(3)
    assert index.shape == (9, 9) and index.min() == 0 and index.max() == 24
    assert len(set(np.diag(index))) == 1
    # places 0 and 4, and 4 and 8, are each one step down and one to the right apart
    assert index[0, 4] == index[4, 8] != index[4, 0]


def test_only_neighbours_in_the_image_see_each_other_in_a_moved_window() -> None:
    side, window, shift = 8, 4, 2
    mask = shifted_mask(side, window, shift)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    rolled = np.roll(np.stack([rows, columns], -1), (-shift, -shift), (0, 1))
    for number in range(4):
        top, left = (number // 2) * window, (number % 2) * window
        places = rolled[top : top + window, left : left + window].reshape(-1, 2)
        near = np.abs(places[:, None] - places[None]).max(axis=-1) < window
        assert np.array_equal(mask[number] == 0, near)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 3)}, "SwinConfig.depths"),
        ({"heads": (3, 6)}, "SwinConfig.heads"),
        ({"image_size": 256}, "SwinConfig.image_size"),
    ],
)
def test_wrong_sizes(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SwinConfig(**change)
