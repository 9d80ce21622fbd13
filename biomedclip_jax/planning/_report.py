"""The plan of a run as text, and as JSON."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.planning._collectives import Collective
from biomedclip_jax.planning._compiling import Compiled
from biomedclip_jax.planning._estimate import ASSUMED_EFFICIENCY, Estimate
from biomedclip_jax.planning._floor import Share
from biomedclip_jax.planning._topology import GIB, Topology
from biomedclip_jax.planning.lower import assumed_prompts
from biomedclip_jax.train.optimizer import stage_steps
from biomedclip_jax.train.state import parameter_count, trained_groups
from biomedclip_jax.train.text_buckets import Buckets, token_share

_SHOWN = 0.02  # share of the time from which a class of instructions has a row of its own


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What was found for a stage. change: what would make it fit. estimate: of the stage with the change, if there is one;
    None where nothing compiles."""

    config: TrainConfig
    number: int
    buckets: Buckets
    compiled: Compiled
    estimate: Estimate | None
    change: str | None

    def hours(self, pairs: int) -> float | None:
        """Expected duration of the stage."""
        if self.estimate is None:
            return None
        return self.steps(pairs) * self.estimate.batch_size / self.estimate.expected_pairs / 3600

    def steps(self, pairs: int) -> int:
        """Number of updates in the stage, for so many training pairs in an epoch."""
        return stage_steps(self.config.stages, pairs)[self.number]


def gibibytes(size: float) -> str:
    """`1.53 GiB`, or `37.0 MiB` below a tenth of it."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.3g} MiB"


def _seconds(time: float) -> str:
    return f"{time:.2f} s" if time >= 1 else f"{1e3 * time:.3g} ms"


def by_kind(collectives: Sequence[Collective]) -> dict[tuple[str, bool], tuple[int, float]]:
    """(kind, in a loop) -> (how often a step, bytes that a device sends a step)."""
    sums: dict[tuple[str, bool], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for c in collectives:
        count, sent = sums[c.kind, c.loop]
        sums[c.kind, c.loop] = count + c.times, sent + c.times * c.sent
    return dict(sums)


def print_stage(plan: StagePlan, topology: Topology, say: Callable[[str], None]) -> None:
    """The table of a stage."""
    config, compiled, found = plan.config, plan.compiled, plan.estimate
    stage = config.stages[plan.number]

    def row(name: str, text: str) -> None:
        say(f"    {name:22s}{text}")

    verdict = "fits" if compiled.fits else "DOES NOT FIT"
    say(f"  stage {plan.number}: {verdict}   ({compiled.seconds:.0f} s to compile)")
    row(
        "step",
        f"{stage.batch_size:,} pairs, {stage.batch_size // topology.devices:,} a device in {stage.microbatches} microbatches; "
        f"image {config.image_size(stage)}, {stage.patch_keep:.0%} of the patches, remat {config.compute.remat}, "
        f"fsdp {config.sharding.fsdp}",
    )
    trained, numbers = trained_groups(config, plan.number), parameter_count(config.model, adaptation=config.adaptation)
    if sum(trained.values()) < numbers:
        row("trained numbers", f"{sum(trained.values()):,} of {numbers:,}")
        row("", ", ".join(f"{name} {count:,}" for name, count in trained.items()))
    prompts = assumed_prompts(config, plan.number)
    if prompts is not None:
        row("prompts", f"of {len(prompts.tokens)} classes, {prompts.tokens.shape[1]} tokens each (assumed)")
    elif (answering := config.model.answering) is not None:
        row(
            "questions",
            f"of {answering.question_length} tokens, {len(answering.answers):,} answers (assumed where none are named)",
        )
    elif plan.buckets:
        groups = ", ".join(f"{b.rows} x {b.length}" for b in plan.buckets)
        share = token_share(plan.buckets, config.model.text.context_length)
        row("captions a device", f"{groups} tokens, {share:.0%} of the padded ones (assumed: lengths as in PMC)")
    else:
        row("captions", f"padded to {config.model.text.context_length} tokens")
    if compiled.arguments is not None and compiled.temporaries is not None:
        row("arguments a device", gibibytes(compiled.arguments))
        row("temporaries a device", gibibytes(compiled.temporaries))
    row("peak a device", gibibytes(compiled.peak))
    row("next batch, in flight", gibibytes(compiled.in_flight))
    row("together", f"{gibibytes(compiled.needed)} of {gibibytes(topology.chip.memory)}")
    if compiled.program is not None:
        for (kind, loop), (count, sent) in sorted(by_kind(compiled.program.counted).items()):
            row(f"{count} {kind}", f"{gibibytes(sent)} sent by a device{', in loops' if loop else ''}")
        if compiled.program.unknown_loops:
            row("", f"at least: {compiled.program.unknown_loops} loops do not tell how often they run")
    if found is None:
        return
    if plan.change:
        say(f"    with {plan.change}:")
    print_estimate(found, topology, row)


def print_estimate(found: Estimate, topology: Topology, row: Callable[[str, str], None]) -> None:
    """The rows about time. row: prints a name and a text."""
    total = found.total

    def speed(pairs: float) -> str:
        mfu = found.model_flops * pairs / topology.devices / topology.chip.flops
        return f"{pairs:,.0f} ({pairs / topology.devices:,.0f} a device, MFU {mfu:.0%})"

    row("FLOPs a pair", f"{found.model_flops / 1e9:.0f} G (padded captions {found.padded_flops / 1e9:.0f} G)")
    row("  with recomputation", f"{found.hardware_flops / 1e9:.0f} G at most")
    branch = " (captions fit their buckets)" if found.bucketed else ""
    row("counted a step", f"{total.launches:,} instructions on a device{branch}")
    row("", f"move {gibibytes(total.bytes)} of its memory and multiply matrices with {total.flops / 1e12:,.2f} TFLOP")
    for text in found.uncertain:
        row("  uncertain", text)
    row(
        "least time a step", f"{_seconds(total.seconds)}, each at the data sheet's speed, nothing kept in a cache between them:"
    )
    row("", f"{'ms':>11}{'of all':>8}{'GiB':>11}{'TFLOP':>11}  kind of instruction")
    rest = Share()
    for name, share in found.shares.items():
        if share.seconds < _SHOWN * total.seconds:
            rest += share
        else:
            row("", _table_row(name, share, total))
    if rest.launches:
        row("", _table_row("all others", rest, total))
    if found.network:
        row("  and the network", _seconds(found.network))
    row("limit", _limit(found))
    row("pairs/s, at most", speed(found.bound_pairs))
    network = " and no hidden network" if found.network else ""
    assumed = f"assuming {ASSUMED_EFFICIENCY:.0%} of the data sheet's speed{network}"
    row("pairs/s, expected", f"{speed(found.expected_pairs)}, {assumed}")


def _limit(found: Estimate) -> str:
    """What a step waits for, in words."""
    total = found.total
    waiting = max(found.shares, key=lambda name: found.shares[name].memory_seconds)
    return {
        "compute": f"compute: {1 - total.memory_seconds / total.seconds:.0%} of that time is in matrix products",
        "memory": f"memory: {total.memory_seconds / total.seconds:.0%} of that time waits for it, most in {waiting}",
        "network": "network: it takes longer than all the rest",
    }[found.limit]


def _table_row(name: str, share: Share, total: Share) -> str:
    part = share.seconds / total.seconds
    flops = f"{share.flops / 1e12:,.2f}" if share.flops else ""
    return f"{1e3 * share.seconds:11,.1f}{part:8.0%}{share.bytes / GIB:11,.1f}{flops:>11}  {name}"


def print_plan(plans: Sequence[StagePlan], pairs: int, say: Callable[[str], None]) -> None:
    """Hours of each stage and together."""
    total = 0.0
    for plan in plans:
        hours = plan.hours(pairs)
        if hours is not None:
            total += hours
            change = f" (with {plan.change})" if plan.change else ""
            say(f"  stage {plan.number}: {plan.steps(pairs):,} steps, {hours:.1f} h expected{change}")
    say(f"  together {total:.1f} h expected for {pairs:,} training pairs; estimates, nothing here is measured")


def to_record(config: TrainConfig, topology: Topology, pairs: int, plans: Sequence[StagePlan]) -> dict[str, Any]:
    """The plan of each stage as plain values for JSON: bytes, seconds, FLOPs."""

    def stage(plan: StagePlan) -> dict[str, Any]:
        compiled, found = plan.compiled, plan.estimate
        record: dict[str, Any] = {
            "stage": plan.number,
            "fits": compiled.fits,
            "would_fit": plan.change,
            "trained_numbers": trained_groups(plan.config, plan.number),
            "compile_seconds": round(compiled.seconds, 1),
            "arguments_bytes": compiled.arguments,
            "temporaries_bytes": compiled.temporaries,
            "peak_bytes": compiled.peak,
            "in_flight_bytes": compiled.in_flight,
            "text_buckets": [dataclasses.asdict(bucket) for bucket in plan.buckets],
        }
        if compiled.program is not None:
            record["collectives"] = [
                {"kind": kind, "in_loop": loop, "count": count, "sent_bytes": round(sent)}
                for (kind, loop), (count, sent) in by_kind(compiled.program.counted).items()
            ]
        if found is not None:
            record["estimate"] = dataclasses.asdict(found) | {
                "limit": found.limit,
                "floor_seconds": found.total.seconds,
                "hbm_bytes": found.total.bytes,
                "product_flops": found.total.flops,
                "bound_pairs_per_second": found.bound_pairs,
                "expected_pairs_per_second": found.expected_pairs,
                "steps": plan.steps(pairs),
                "expected_hours": plan.hours(pairs),
            }
        return record

    return {
        "config": config.name,
        "topology": topology.name,
        "devices": topology.devices,
        "chip": topology.chip.name,
        "memory_bytes": topology.chip.memory,
        "pairs": pairs,
        "assumed_efficiency": ASSUMED_EFFICIENCY,
        "stages": [stage(plan) for plan in plans],
    }
