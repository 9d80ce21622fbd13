"""`biomedclip plan`: the training step of each stage, compiled for machines that you need not have, and what follows."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from biomedclip_jax.config import TrainConfig, check_stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.planning._compiling import Compiled, compile_step
from biomedclip_jax.planning._estimate import Estimate, estimate
from biomedclip_jax.planning._report import StagePlan, gibibytes, print_plan, print_stage, to_record
from biomedclip_jax.planning._topology import Topology, parse_topology
from biomedclip_jax.planning.devices import describe_devices
from biomedclip_jax.planning.lower import assumed_buckets, assumed_prompts, lower_step, with_assumed_answers, with_stage

PMC15M_PAIRS = 13_900_000  # training pairs of PMC-15M (NEJM AI 2024)
_TRIES = 8
_WORTH_WAITING = 0.02  # of a device's memory: the images of a batch, of which there are two


def _say(line: str) -> None:
    print(line, flush=True)  # a compile takes minutes: what is written to a file must not wait for it


def plan(
    config: TrainConfig,
    topology_name: str,
    *,
    pairs: int = PMC15M_PAIRS,
    stage: int | None = None,
    json_file: Path | None = None,
    say: Callable[[str], None] = _say,
) -> list[StagePlan]:
    """Compile and report every stage of a run, or only `stage`. `devices.prepare` must have run before JAX was imported.

    pairs: training pairs in an epoch. UserError for a topology, stage or sharding that cannot work, and, after the
    report, for a stage that does not fit into memory: its message says which change would.
    """
    topology = parse_topology(topology_name)
    if stage is not None and stage >= len(config.stages):
        raise UserError(f"--stage {stage}: this config has stages 0 to {len(config.stages) - 1}")
    config = with_assumed_answers(config)
    for each in config.stages:
        check_stage(each, topology.devices)
    devices = describe_devices(topology)
    say(f"{config.name} on {topology.name}: {topology.devices} x {topology.chip.description}")
    planned = []
    for number in range(len(config.stages)) if stage is None else [stage]:
        result = _plan_stage(config, number, topology, devices, pairs, say)
        print_stage(result, topology, say)
        planned.append(result)
    print_plan(planned, pairs, say)
    if json_file is not None:
        write_text(json_file, json.dumps(to_record(config, topology, pairs, planned), indent=2) + "\n")
    problems = [_problem(result, topology) for result in planned if not result.compiled.fits]
    if problems:
        raise UserError("; ".join(problems))
    return planned


def _plan_stage(
    config: TrainConfig, number: int, topology: Topology, devices: list[Any], pairs: int, say: Callable[[str], None]
) -> StagePlan:
    def attempt(config: TrainConfig, what: str) -> tuple[Compiled, Estimate | None]:
        say(f"  stage {number}{what}: compiling for {topology.name}, which takes minutes ...")
        buckets, prompts = assumed_buckets(config, number, topology.devices), assumed_prompts(config, number)
        compiled = compile_step(lower_step(config, number, devices, buckets, pairs), topology)
        if compiled.program is None:
            return compiled, None
        shape = None if prompts is None else prompts.tokens.shape
        return compiled, estimate(config, number, topology, buckets, shape, compiled)

    compiled, found = attempt(config, "")
    change = None
    if not compiled.fits:
        say(f"  stage {number}: {gibibytes(compiled.needed)} do not fit; looking for what would")
        for change, changed in _alternatives(config, number, topology):
            try:
                other, other_estimate = attempt(changed, f" with {change}")
            except UserError as error:
                say(f"  stage {number}: not possible: {error}")
                continue
            if other.fits:
                found = other_estimate
                break
        else:
            change = found = None
    return StagePlan(config, number, assumed_buckets(config, number, topology.devices), compiled, found, change)


def _alternatives(config: TrainConfig, number: int, topology: Topology) -> Iterator[tuple[str, TrainConfig]]:
    """Changes that need less memory, one on top of the other, the cheapest first: (as config fields, the changed config)."""
    stage, said, left = config.stages[number], "", _TRIES
    part = stage.microbatch or stage.batch_size
    while part % 2 == 0 and part // 2 % topology.devices == 0 and left > 4:
        part, left = part // 2, left - 1
        config = with_stage(config, number, microbatch=part)
        said = f"stages.{number}.microbatch = {part}"
        yield said, config
    images = stage.batch_size // topology.devices * 3 * config.image_size(stage) ** 2
    if config.compute.images_in == "device" and images > _WORTH_WAITING * topology.chip.memory:
        config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, images_in="host"))
        said, left = f"{said}, compute.images_in = host".removeprefix(", "), left - 1
        yield said, config
    if config.compute.remat != "full":
        config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, remat="full"))
        said, left = f"{said}, compute.remat = full".removeprefix(", "), left - 1
        yield said, config
    fsdp = config.sharding.fsdp
    while 2 * fsdp <= topology.neighbours and left > 0:
        fsdp, left = 2 * fsdp, left - 1
        yield (
            f"{said}, sharding.fsdp = {fsdp}".removeprefix(", "),
            dataclasses.replace(config, sharding=dataclasses.replace(config.sharding, fsdp=fsdp)),
        )


def _problem(result: StagePlan, topology: Topology) -> str:
    """Why a stage does not fit, and what would."""
    needs = f"stage {result.number} does not fit: it needs {gibibytes(result.compiled.needed)} a device"
    needs += f" and {topology.chip.name} has {gibibytes(topology.chip.memory)}"
    if result.change is None:
        return f"{needs}; no smaller microbatch, place of images, remat or fsdp that was tried fits either"
    return f"{needs}; it fits with {result.change}"
