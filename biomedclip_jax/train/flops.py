"""Floating-point work: what a stage costs for one pair, tower by tower, and what the devices can do at most."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import UNADAPTED, Adaptation, BertConfig, Classification, CLIPConfig, MultiLabel, PrefixConfig, Stage
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.adapters import CONTEXT
from biomedclip_jax.models.vit import kept_patches
from biomedclip_jax.train.optimizer import trained_by
from biomedclip_jax.train.text_buckets import Buckets

# bf16 peak, FLOP/s a chip, from the makers' data sheets; what is not here has no MFU rather than a guessed one
_PEAK = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p; after "v5 lite", because the first name that a kind contains counts
    "TPU v6 lite": 918e12,
}

_MATRICES = ("kernel", "lora_a", "lora_b")

Prompts = tuple[int, int]  # classes of a stage that learns of labels, and tokens of each: `Layout.tokens.shape`


class Work(NamedTuple):
    """Floating-point operations of a tower for one example."""

    forward: float
    backward: float


def flops_per_pair(
    model: CLIPConfig,
    stage: Stage,
    buckets: Buckets = (),
    prompts: Prompts | None = None,
    adaptation: Adaptation = UNADAPTED,
) -> float:
    """Floating-point operations to train on one pair: `tower_work`, with nothing for recomputation.

    3 x the forward matrix products where everything is trained.
    """
    return sum(work.forward + work.backward for work in tower_work(model, stage, buckets, prompts, adaptation).values())


def tower_work(
    model: CLIPConfig,
    stage: Stage,
    buckets: Buckets = (),
    prompts: Prompts | None = None,
    adaptation: Adaptation = UNADAPTED,
) -> dict[str, Work]:
    """The matrix products of each tower that a stage needs for one pair; heads and loss are left out.

    Forward, L blocks on N tokens: 2·N for each number of their matrices, and 4·N²·D·L in the attention. Backward:

    - activations: as much again, and twice that in the attention, whose two operands have a gradient each. Needed where a
      parameter in the blocks or before them is trained; then it is counted for all blocks.
    - weights: 2·N for each number of a trained matrix. Adapters have few of these, what is frozen none.

    So a tower costs 3 x forward where all of it is trained, about 2 x with adapters, 1 x where it is frozen. Text
    counts at the lengths that are computed: those of the buckets, or padded. Where a stage learns of labels,
    `prompts` tells: a pair has its share of all classes, counted once a step, or one of them; without `prompts`
    text does not count.
    """
    shapes: dict[str, Any] = flatten_dict(abstract_model(model, adaptation=adaptation)[1], sep="/")
    trained = set(trained_by(stage, shapes))
    vit, kept = model.vit, kept_patches(model.vit.patches, stage.patch_keep)
    longest = model.text.context_length if model.answering is None else model.answering.question_length
    lengths = [(b.rows, b.length) for b in buckets] or [(1, longest)]
    pairs = sum(rows for rows, _ in lengths)
    if stage.prompted:
        classes, tokens = prompts or (0, 0)
        pairs = stage.batch_size
        lengths = [(classes if isinstance(stage.loss, Classification | MultiLabel) else pairs, tokens)]

    def blocks(tower: str, lengths: Sequence[tuple[int, int]], pairs: int) -> Work:
        """The work of a tower's blocks a pair. lengths: (how many, tokens) of the sequences of so many pairs."""
        sizes: Any = getattr(model, tower)
        adapter = getattr(adaptation, tower)
        prefix = adapter.tokens if isinstance(adapter, PrefixConfig) else 0
        tokens = sum(rows * n for rows, n in lengths) / pairs
        attention = 4 * sum(rows * n * (n + prefix) for rows, n in lengths) / pairs * sizes.width * sizes.depth
        numbers = {p: x.size for p, x in shapes.items() if p.startswith(f"{tower}/blocks/") and p.endswith(_MATRICES)}
        matrices = 2 * tokens * sum(numbers.values())
        weights = 2 * tokens * sum(size for path, size in numbers.items() if path in trained)
        last = (f"{tower}/pooler/",) if isinstance(sizes, BertConfig) else (f"{tower}/norm/", f"{tower}/pool/")  # after blocks
        reached = any(path.startswith(f"{tower}/") and not path.startswith(last) for path in trained)
        reached |= tower == "text" and CONTEXT in trained
        return Work(matrices + attention, (matrices + 2 * attention) * reached + weights)

    image, text = blocks("image", [(1, kept + vit.prefix_tokens)], 1), blocks("text", lengths, pairs)
    patches = 2.0 * kept * shapes["image/patch/kernel"].size
    backward = 2 * patches if "image/patch/kernel" in trained else 0.0  # the convention's two, though pixels have no gradient
    return {"image": Work(image.forward + patches, image.backward + backward), "text": text}


def peak_flops() -> float | None:
    """bf16 peak of all devices together; None if this kind of device is not known."""
    kind = jax.devices()[0].device_kind
    peak = next((flops for name, flops in _PEAK.items() if name in kind), None)
    return None if peak is None else peak * jax.device_count()
