"""What a user asks of a fine-tuning."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from biomedclip_jax.config.checks import check, check_choices, check_positive
from biomedclip_jax.data.own_rows import Columns

Method = Literal["lora", "full", "locked-image", "probe"]
DEMO_TRAIN, DEMO_HELD_OUT = "demo:quickstart:train", "demo:quickstart:held_out"
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A fine-tuning, as `biomedclip finetune` takes it; each field is an option of that name."""

    model: str
    """A model folder, a run folder or hf-hub:org/name."""
    data: str
    """Pairs or labelled images to learn from: a table, class folders, tars or a build."""
    held_out: str | None = None
    """Data to choose and to be judged on. None: a part of `data`, by its groups."""
    method: Method = "lora"
    """What is trained. lora: small matrices beside both towers, and the projections; full: everything; locked-image: the
    text tower and the projections; probe: the projections alone. The temperature is trained with each."""
    columns: Columns = Columns()
    """Names of columns."""
    keep: str | None = DEMO_HELD_OUT
    """Data that the model must not become worse on (forgetting check). None: no such check."""
    replay: str | None = DEMO_TRAIN
    """Pairs that are trained on besides, so that what they show is not forgotten. None: no such pairs."""
    replay_share: float = 0.25
    """Share of the training pairs that are drawn from `replay`."""
    max_forgetting: float = 0.02
    """How far the score on `keep` may fall: 0.02 are two percentage points, about the standard error on 160 images."""
    rate: float | None = None
    """Largest learning rate. None: the best of three, each tried for a fifth of the updates."""
    epochs: float | None = None
    """Passes over the training pairs. None: 30 for fewer than 500 pairs, 15 for fewer than 5,000, else 5."""
    batch_size: int | None = None
    """Pairs in an update. None: about an eighth of the training pairs, from 8 to 128."""
    microbatch: int | None = None
    """Pairs encoded at once. None: as many as fit into memory, which is measured by compiling the update."""
    export: Literal["best", "last"] = "best"
    """Which weights are handed over. best: those that are best on held-out data, of the start, the evaluations and their
    mixtures with the start; last: those after the last update, whatever they are worth."""
    seed: int = 0
    """Number that the division of the data and all random choices of the training follow from."""

    def __post_init__(self) -> None:
        check_choices(self, method=Method, export=Literal["best", "last"])
        check(0 < self.replay_share < 1, self, "replay_share", "a share, above 0 and below 1")
        check(0 <= self.max_forgetting <= 1, self, "max_forgetting", "0 to 1, such as 0.01 for one percentage point")
        check(self.rate is None or 0 < self.rate < math.inf, self, "rate", "a number above 0")
        check(self.epochs is None or 0 < self.epochs < math.inf, self, "epochs", "a number above 0")
        if self.batch_size is not None:
            check_positive(self, "batch_size")
        if self.microbatch is not None:
            check_positive(self, "microbatch")
