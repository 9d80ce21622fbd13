"""From the size of the data to a config: what is trained, for how long, in which batches, at which rates."""

import math
from dataclasses import dataclass
from pathlib import Path

import jax

from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    LoRAConfig,
    OptimizerConfig,
    RunConfig,
    Sigmoid,
    Softmax,
    Stage,
    TrainConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune.request import Method, Request
from biomedclip_jax.interop.model import Model

EVALUATIONS = 20  # of a run
PATIENCE = 5  # evaluations in a row without a lower held-out loss
_EPOCHS = ((500, 30.0), (5_000, 15.0), (math.inf, 5.0))  # for fewer training pairs than
_BATCHES_OF_AN_EPOCH = 8  # at least, as long as a batch has 8 pairs
_LARGEST_BATCH = 128
_FEWEST_STEPS = 20
_WARM_UP = 0.1  # of the updates
_LORA = LoRAConfig(rank=8, alpha=16, dropout=0.1, targets=("attention/*", "mlp/*"))
_TRAINABLE: dict[Method, tuple[str, ...]] = {
    "lora": ("*lora*", "*_head", "logit_*"),
    "full": ("*",),
    "locked-image": ("text", "*_head", "logit_*"),
    "probe": ("*_head", "logit_*"),
}
# Three for each method, a factor of about five apart. Full fine-tuning of BiomedCLIP at 1e-5 made retrieval on ROCO worse
# where 5e-7 did not, so the lowest is near that one.
METHOD_RATES: dict[Method, tuple[float, ...]] = {
    "lora": (1e-4, 5e-4, 2e-3),
    "full": (1e-6, 5e-6, 3e-5),
    "locked-image": (1e-6, 5e-6, 3e-5),
    "probe": (1e-4, 1e-3, 1e-2),
}


@dataclass(frozen=True)
class Sizes:
    """How much is trained. pairs: with those that are replayed. steps: updates of the whole run."""

    pairs: int
    batch_size: int
    epochs: float
    steps: int
    microbatch: int | None = None


def sizes(request: Request, train: int, devices: int) -> Sizes:
    """Batch size and length for `train` training pairs on so many devices. UserError for a batch that cannot be split."""
    pairs = round(train / (1 - request.replay_share)) if request.replay is not None else train
    batch = request.batch_size
    if batch is None:
        batch = min(max(8, 2 ** int(math.log2(max(1, pairs / _BATCHES_OF_AN_EPOCH)))), _LARGEST_BATCH)
        batch = -(-batch // devices) * devices
    elif batch % devices:
        raise UserError(f"--batch-size {batch}: expected a multiple of the {devices} devices")
    epochs = request.epochs or next(epochs for most, epochs in _EPOCHS if train < most)
    least = 1 if request.epochs else _FEWEST_STEPS
    return Sizes(pairs, batch, epochs, max(least, math.ceil(epochs * pairs / batch)), request.microbatch)


def check_fits(request: Request, model: Model) -> None:
    """UserError for a model that cannot be fine-tuned in this way."""
    if model.adaptation != UNADAPTED:
        raise UserError(f"{request.model}: has a prefix beside its weights; expected a model without adapters")
    if model.config.answering is not None:
        raise UserError(
            f"{request.model}: answers questions, which pairs and labels do not teach; `biomedclip train` goes on from it "
            "with questions (model_init), and the model that it began from can be fine-tuned here"
        )
    if not isinstance(model.config.image, ViTConfig):
        raise UserError(
            f"{request.model}: its image tower is no vision transformer (ViT), with which only a model can be trained here, by "
            "any --method; `biomedclip evaluate probe` learns classes from the features of such a tower"
        )
    if request.method == "probe" and not _has_heads(model.config):
        raise UserError(f"{request.model}: has no projections, which are all that --method probe trains; take another method")


def _has_heads(config: CLIPConfig) -> bool:
    return config.image_head != "none" or config.text_head != "none"


def planned(request: Request, model: Model, source: str, sizes: Sizes, rate: float, folder: Path) -> TrainConfig:
    """The config of the run, on the tables in `folder/data`. source: where the model is read from."""
    data = folder / "data"
    train: str | tuple[tuple[str, float], ...] = str(data / "train.jsonl")
    if request.replay is not None:
        share = request.replay_share
        train = ((train, 1 - share), (str(data / "replay.jsonl"), share))
    lora = request.method == "lora"
    siglip = model.config.init_logit_bias is not None
    every = max(1, sizes.steps // EVALUATIONS)
    return TrainConfig(
        name=folder.name or "finetune",
        data=DataConfig(train=train, held_out=str(data / "validation.jsonl"), tokenizer=str(model.tokenizer)),
        model=model.config,
        preprocess=model.preprocess,
        adaptation=Adaptation(image=_LORA, text=_LORA) if lora else UNADAPTED,
        model_init=source,
        stages=(
            Stage(
                batch_size=sizes.batch_size,
                steps=sizes.steps,
                microbatch=sizes.microbatch,
                loss=Sigmoid(equal_captions="positives") if siglip else Softmax(equal_captions="positives"),
                trainable=tuple(
                    pattern for pattern in _TRAINABLE[request.method] if pattern != "*_head" or _has_heads(model.config)
                ),
            ),
        ),
        optimizer=OptimizerConfig(
            learning_rate=rate,
            weight_decay=0.01 if lora else 0.05,
            warmup_steps=max(1, round(_WARM_UP * sizes.steps)),
            clip_norm=1.0,
        ),
        compute=ComputeConfig(dtype="float32" if jax.default_backend() == "cpu" else "bfloat16"),
        export=request.export,
        patience=PATIENCE if request.export == "best" else None,
        seed=request.seed,
        run=RunConfig(log_every=every, evaluate_every=every, checkpoint_every=10 * every, keep_checkpoints=1),
    )
