"""What a run reports about itself: floating-point work, `metrics.jsonl`, and the line on the screen."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from biomedclip_jax.config import CLIPConfig, LlamaConfig, Stage
from biomedclip_jax.models.vit import kept_patches
from biomedclip_jax.progress import progress_bar
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


def flops_per_pair(model: CLIPConfig, stage: Stage, buckets: Buckets = ()) -> float:
    """Floating-point operations to train on one pair: 3 x the forward matrix products (nothing for recomputation).

    A tower of L blocks on N tokens: L·(8·N·D² + 4·N·D·F + 4·N²·D); in a LLaMA 6·N·D·F, and less where keys are shared. Text
    counts at the lengths that are computed: those of the buckets, or padded.
    """

    def tower(config: Any, tokens: int) -> float:
        d, f = config.width, config.mlp_width
        matrices = 4 * d * d + 2 * d * f
        if isinstance(config, LlamaConfig):
            matrices = 2 * d * d + 2 * d * d * config.key_value_heads // config.heads + 3 * d * f
        return config.depth * (2 * tokens * matrices + 4 * tokens * tokens * d)

    vit = model.vit
    kept = kept_patches(vit.patches, stage.patch_keep)
    embed = 2 * kept * 3 * vit.patch_size**2 * vit.width
    image = embed + tower(vit, kept + vit.prefix_tokens)
    groups = [(b.rows, b.length) for b in buckets] or [(1, model.text.context_length)]
    text = sum(rows * tower(model.text, length) for rows, length in groups) / sum(rows for rows, _ in groups)
    return 3 * (image + text)


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
