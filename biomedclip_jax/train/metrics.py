"""What a run reports about itself: floating-point work, `metrics.jsonl`, and the line on the screen."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import BertConfig, CLIPConfig, Stage
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.adapters import CONTEXT, prefix_tokens
from biomedclip_jax.models.vit import kept_patches
from biomedclip_jax.support.progress import progress_bar
from biomedclip_jax.train.text_buckets import Buckets
from biomedclip_jax.train.trainable import trained_by

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


def flops_per_pair(model: CLIPConfig, stage: Stage, buckets: Buckets = (), prompts: Prompts | None = None) -> float:
    """Floating-point operations to train on one pair: `tower_work`, with nothing for recomputation.

    3 x the forward matrix products where everything is trained.
    """
    return sum(work.forward + work.backward for work in tower_work(model, stage, buckets, prompts).values())


def tower_work(model: CLIPConfig, stage: Stage, buckets: Buckets = (), prompts: Prompts | None = None) -> dict[str, Work]:
    """The matrix products of each tower that a stage needs for one pair; heads and loss are left out.

    Forward, L blocks on N tokens: 2·N for each number of their matrices, and 4·N²·D·L in the attention. Backward:

    - activations: as much again, and twice that in the attention, whose two operands have a gradient each. Needed where a
      parameter in the blocks or before them is trained; then it is counted for all blocks.
    - weights: 2·N for each number of a trained matrix. Adapters have few of these, what is frozen none.

    So a tower costs 3 x forward where all of it is trained, about 2 x with adapters, 1 x where it is frozen. Text counts at the
    lengths that are computed: those of the buckets, or padded. Where a stage learns of labels, `prompts` tells: a pair has its
    share of all classes, counted once a step, or one of them; without `prompts` text does not count.
    """
    shapes = flatten_dict(abstract_model(model)[1], sep="/")
    trained = set(trained_by(stage, shapes))
    vit, kept = model.vit, kept_patches(model.vit.patches, stage.patch_keep)
    lengths = [(b.rows, b.length) for b in buckets] or [(1, model.text.context_length)]
    pairs = sum(rows for rows, _ in lengths)
    if stage.prompted:
        classes, tokens = prompts or (0, 0)
        pairs = stage.batch_size
        lengths = [(classes if stage.compares_classes else pairs, tokens)]

    def blocks(tower: str, lengths: Sequence[tuple[int, int]], pairs: int) -> Work:
        """lengths: (how many, tokens) of the sequences of so many pairs."""
        config: Any = getattr(model, tower)
        prefix = prefix_tokens(getattr(model, f"{tower}_adapter"))
        tokens = sum(rows * n for rows, n in lengths) / pairs
        attention = 4 * sum(rows * n * (n + prefix) for rows, n in lengths) / pairs * config.width * config.depth
        numbers = {p: x.size for p, x in shapes.items() if p.startswith(f"{tower}/blocks/") and p.endswith(_MATRICES)}
        matrices = 2 * tokens * sum(numbers.values())
        weights = 2 * tokens * sum(size for path, size in numbers.items() if path in trained)
        last = f"{tower}/{'pooler' if isinstance(config, BertConfig) else 'norm'}/"  # comes after the blocks
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


class Clock:
    """Speed since the last reading: pairs a second, MFU, and the share of time spent waiting for data."""

    def __init__(self, flops_per_step: float, pairs_per_step: int):
        self._flops = flops_per_step
        self._pairs = pairs_per_step
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, with the time until each is there."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited += time.perf_counter() - before
            yield batch

    def step_done(self) -> None:
        self._steps += 1

    def read(self) -> dict[str, Any]:
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps = max(self._steps, 1)
        peak = peak_flops()
        speed = {
            "pairs_per_second": round(steps * self._pairs / seconds, 2),
            "mfu": None if peak is None else steps * self._flops / seconds / peak,
            "data_wait_fraction": round(min(self._waited / seconds, 1.0), 4),
            "seconds_per_step": seconds / steps,
        }
        self._restart()
        return speed


class MetricsFile:
    """`metrics.jsonl` of a run folder: one object a line. Lines after `step` (from a run that was cut off) are dropped."""

    def __init__(self, path: Path, step: int, *, write: bool = True):
        """write: False on all hosts but the first, which only keep the lines."""
        self.lines: list[dict[str, Any]] = []
        if path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # the last line of a killed run
                if line["step"] <= step:
                    self.lines.append(line)
        self._file = None
        if write:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, at once on disk."""
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Progress:
    """A bar on a terminal, a line every now and then elsewhere."""

    def __init__(self, total: int, done: int, *, show: bool = True):
        """show: False on all hosts but the first."""
        self._total = total
        self._show = show
        self._bar = progress_bar(total, "step", done, show=show)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._show:
            self._bar.write(text)

    def update(self) -> None:
        """One more step is done."""
        self._bar.update()

    def show(self, line: dict[str, Any]) -> None:
        """The newest metrics."""
        mfu = "n/a" if line["mfu"] is None else f"{line['mfu']:.1%}"
        text = (
            f"loss {line['loss']:.4f}  lr {line['learning_rate']:.2e}  scale {line['logit_scale']:.1f}  "
            f"grad {line['grad_norm']:.2f}  {line['pairs_per_second']:.3g} pairs/s  MFU {mfu}  "
            f"wait {line['data_wait_fraction']:.0%}"
        )
        self._bar.set_postfix_str(f"loss {line['loss']:.3f}, {line['pairs_per_second']:.3g} pairs/s")
        if self._bar.disable and self._show:
            minutes = line["seconds_left"] / 60
            print(f"step {line['step']}/{self._total}  stage {line['stage']}  {text}  left {minutes:.1f} min", flush=True)

    def close(self) -> None:
        self._bar.close()
