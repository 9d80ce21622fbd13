"""The other side of the bench: the same sizes, batch and optimizer in open_clip, as its own training loop does the work.

Source: open_clip_train `main.py` (parameter groups, TF32) and `train.py` (`train_one_epoch`: autocast,
`--accum-freq`, the clamp of the temperature), with `--local-loss --gather-with-grad`. One device: more would need
one process each.
"""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from biomedclip_jax.bench._alternate import Facts, Work, resident_peak, serve
from biomedclip_jax.bench._machine import version_of
from biomedclip_jax.bench.task import Task, make_batch
from biomedclip_jax.config import UNADAPTED, BertConfig, Softmax
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config_json
from biomedclip_jax.interop.formats.open_clip.write_config import ADAPTERS_REFUSED, write_config
from biomedclip_jax.interop.write import check_writable


def import_open_clip() -> ModuleType:
    """open_clip, also where the CPU build of torch comes with a torchvision whose operators cannot be loaded.

    Importing that fails because two operators are not registered. Declaring them is enough: nothing here calls them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # torch forgets the operators when this is collected
    import open_clip

    return open_clip


_kept: list[Any] = []


def build_model(task: Task) -> Any:
    """open_clip's model of these sizes with random weights, offline. UserError if it has no such model."""
    config = task.config
    model = config.model_in(task.stage)
    if config.adaptation != UNADAPTED:
        raise UserError(ADAPTERS_REFUSED)
    check_writable(model)
    open_clip = import_open_clip()
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(model.text, BertConfig):
            (Path(folder) / "config.json").write_text(json.dumps(bert_config_json(model.text)), encoding="utf-8")
        content = write_config(model, config.preprocess_in(task.stage), folder, folder)["model_cfg"]
        if task.stage.patch_keep < 1:
            content["vision_cfg"]["patch_dropout"] = 1 - task.stage.patch_keep
        custom = isinstance(model.text, BertConfig)
        content["text_cfg"] |= {"hf_model_pretrained": False} if custom else {}
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**content, output_dict=True)


def build_optimizer(task: Task, model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW with open_clip's groups: no weight decay for vectors, norms, biases and the temperature."""

    def plain(name: str, parameter: torch.Tensor) -> bool:
        return parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    c = task.config.optimizer
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if plain(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not plain(n, p)], "weight_decay": c.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=c.learning_rate / max(c.warmup_steps, 1), betas=(c.beta1, c.beta2), eps=c.eps)


class Trainer:
    """One update on a batch that is on the device, in `microbatches` parts."""

    def __init__(self, task: Task, model: Any, raw: Any, device: torch.device, batch: dict[str, torch.Tensor]):
        self.model, self.raw, self.device = model, raw, device
        self.autocast = precision(task, device)
        self.loss = import_open_clip().ClipLoss(local_loss=True, gather_with_grad=True, cache_labels=True)
        self.optimizer = build_optimizer(task, raw)
        self.clip_norm = task.config.optimizer.clip_norm
        parts = task.stage.microbatches
        self.parts = list(zip(batch["images"].chunk(parts), batch["tokens"].chunk(parts), strict=True))

    def step(self) -> None:
        """One update of open_clip's model: forward, loss, backward, clipped gradient, AdamW, clamped temperature."""
        self.raw.train()
        self.optimizer.zero_grad()
        if len(self.parts) == 1:
            with self.autocast():
                self.loss(**self.model(*self.parts[0])).backward()
        else:
            self._accumulate()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.raw.parameters(), self.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.raw.logit_scale.clamp_(0, math.log(100))
        wait(self.device)

    def _accumulate(self) -> None:
        """Features of all parts without gradient, then each part again with one loss over the whole batch."""
        names = ("image_features", "text_features")
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        with torch.no_grad(), self.autocast():
            for part in self.parts:
                out = self.model(*part)
                for name in names:
                    kept[name].append(out[name].clone())  # a compiled model may reuse its outputs' memory
        for number, part in enumerate(self.parts):
            with self.autocast():
                out = self.model(*part)
                whole = {n: torch.cat([*kept[n][:number], out[n], *kept[n][number + 1 :]]) for n in names}
                loss = self.loss(**whole, logit_scale=out["logit_scale"])
            loss.backward()


def precision(task: Task, device: torch.device) -> Callable[[], Any]:
    """`--precision amp_bf16`, or float32 (TF32 on GPUs, which open_clip turns on and JAX has on)."""
    if task.config.compute.dtype == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def build(task: Task) -> Work:
    """Everything that the task names. What torch.compile cannot do runs without it, and the facts say so."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if task.stage.loss != Softmax() or task.stage.trainable != ("*",):
        raise UserError("only the softmax objective with all parameters trained is compared with open_clip")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    calls: dict[str, Callable[[], None]] = {}
    notes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    raw = build_model(task).to(device)

    def add(name: str, make: Callable[[Any], Callable[[], None]]) -> None:
        start = time.perf_counter()
        if task.compiled:
            try:
                call = make(torch.compile(raw))
                call()
                calls[name], notes[name] = call, "torch.compile"
            except Exception as error:  # torch's compiler raises anything
                notes[name] = f"eager: torch.compile failed ({first_line(error)[:80]})"
                torch._dynamo.reset()
        if name not in calls:
            notes.setdefault(name, "eager")
            calls[name] = make(raw)
            calls[name]()
        seconds[name] = time.perf_counter() - start

    def tensors(rows: int) -> dict[str, torch.Tensor]:
        batch = make_batch(task, rows)
        pixels = normalised(batch["images"], task.config.preprocess)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # on the host: there is room for two
        return {"images": images.to(device), "tokens": torch.from_numpy(batch["tokens"]).long().to(device)}

    if "step" in task.what:
        batch = tensors(task.stage.batch_size)
        add("step", lambda model: Trainer(task, model, raw, device, batch).step)
    if "forward" in task.what:
        rows = tensors(task.forward_rows)
        add("forward", lambda model: _forward(task, model, raw, device, rows))
    if "loss" in task.what:
        calls["loss"] = _loss(task, device)

    def peak_bytes() -> int:
        return torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak()

    facts = Facts(
        platform=device.type,
        devices=torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        versions={"open_clip": version_of(import_open_clip())} | {n: version(n) for n in ("torch", "timm", "transformers")},
        parameters=sum(p.numel() for p in raw.parameters()),
        compile_seconds=seconds,
        notes=notes,
    )
    return Work(facts, calls, peak_bytes)


def _forward(task: Task, model: Any, raw: Any, device: torch.device, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    autocast = precision(task, device)

    def call() -> None:
        raw.eval()
        with torch.no_grad(), autocast():
            model(batch["images"], batch["tokens"])
        wait(device)

    return call


def _loss(task: Task, device: torch.device) -> Callable[[], None]:
    shape = (task.stage.batch_size, task.config.model.embed_width)
    image, text = (torch.nn.functional.normalize(torch.randn(shape, device=device)).requires_grad_() for _ in range(2))
    loss = import_open_clip().ClipLoss(local_loss=True, gather_with_grad=True, cache_labels=True)
    scale = torch.tensor(100.0, device=device)

    def call() -> None:
        torch.autograd.grad(loss(image, text, scale), (image, text))
        wait(device)

    return call


if __name__ == "__main__":
    serve(build)
