"""Names of a ResNet's tensors; CLIP's `ModifiedResNet` and torchvision's `ResNet` differ in the stem and the pool.

Sources: openai/CLIP `clip/model.py`, open_clip `modified_resnet.py`, torchvision `models/resnet.py`.
"""

from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, one, stacked
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig, ResNetPool
from biomedclip_jax.interop.tensor_files import TensorFile

BATCH_COUNTS = {"*.num_batches_tracked": "batches that BatchNorm has seen: of use in training only"}


def convolution(path: str, kernel: str, norm: str, depth: int = 1) -> list[Entry]:
    """A convolution called `kernel` and the BatchNorm behind it called `norm`."""
    fields = (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var"))
    return [
        stacked(f"{path}/kernel", depth, f"{kernel}.weight", form="conv"),
        *(stacked(f"{path}/{ours}", depth, f"{norm}.{theirs}") for ours, theirs in fields),
    ]


def resnet_entries(config: ResNetConfig, prefix: str, path: str = "image/") -> list[Entry]:
    """A ResNet; `prefix` stands before each name. CLIP's projection behind its attention pool is not among them."""
    clip = config.style == "clip"
    found: list[Entry] = []
    if clip:
        for i in (1, 2, 3):
            found += convolution(f"{path}stem{i}", f"{prefix}conv{i}", f"{prefix}bn{i}")
    else:
        found += convolution(f"{path}stem", f"{prefix}conv1", f"{prefix}bn1")
    for number, depth in enumerate(config.blocks, 1):
        ours, theirs = f"{path}stage{number}", f"{prefix}layer{number}"
        for i in (1, 2, 3):
            found += convolution(f"{ours}/first/conv{i}", f"{theirs}.0.conv{i}", f"{theirs}.0.bn{i}")
            if depth > 1:
                found += _later(f"{ours}/blocks/conv{i}", theirs, i, depth)
        found += convolution(f"{ours}/first/shortcut", f"{theirs}.0.downsample.0", f"{theirs}.0.downsample.1")
    if config.pool == "attention":
        pool = f"{prefix}attnpool."
        found.append(one(f"{path}attention_pool/position", f"{pool}positional_embedding"))
        for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            found += dense(f"{path}attention_pool/{ours}", pool + theirs)
    return found


def torchvision_config(tensors: TensorFile, prefix: str, image_size: int, pool: ResNetPool, source: Path) -> ResNetConfig:
    """torchvision's ResNet whose tensors begin with `prefix`: sizes from the tensors. UserError if it is not one of them."""
    stem = f"{prefix}conv1.weight"
    if stem not in tensors:
        raise UserError(f"{source}: no tensor {stem}; expected a ResNet of torchvision (ResNet-50)")
    return ResNetConfig(image_size, _blocks(tensors, prefix), tensors.shape(stem)[0], "torchvision", pool)


def clip_resnet_config(tensors: TensorFile, prefix: str, source: Path) -> ResNetConfig:
    """CLIP's ResNet whose tensors begin with `prefix`: sizes from the tensors. UserError if it is not one of them."""
    position = f"{prefix}attnpool.positional_embedding"
    if position not in tensors:
        raise UserError(f"{source}: no tensor {position}; expected a ResNet of CLIP, with attention pooling")
    positions, width = tensors.shape(position)
    side = round((positions - 1) ** 0.5)
    return ResNetConfig(32 * side, _blocks(tensors, prefix), width // 32, heads=width // 64)


def _blocks(tensors: TensorFile, prefix: str) -> tuple[int, ...]:
    names = {name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
    return tuple(len({n.split(".")[1] for n in names if n.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4))


def _later(path: str, stage: str, number: int, depth: int) -> list[Entry]:
    """The same convolution in all blocks of a stage but the first, which is not among those stacked."""
    all_blocks = convolution(path, f"{stage}.{{}}.conv{number}", f"{stage}.{{}}.bn{number}", depth)
    return [Entry(entry.path, entry.names[1:], entry.form) for entry in all_blocks]
