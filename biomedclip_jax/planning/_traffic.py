"""Bytes that a compiled program moves between HBM and its processors, and operations of its products, by instruction.

Each scheduled instruction reads its operands once and writes its results once, as often as the loops around it run. So
it counts what is certain:

- a slice (dynamic-slice, gather; dynamic-update-slice and scatter in place), also inside a fusion, counts as what it
  reads or writes, and not as the array that it is taken from;
- of a conditional the branch counts that is taken where its predicate holds. The only one of a training step chooses
  between captions sorted into buckets, which a run nearly always takes, and padded ones;
- an asynchronous pair counts once; arrays in a TPU's on-chip memory or in that of the host do not; a TPU's arrays are
  whole tiles; the workspace of a library's product is not counted;
- a kernel of one's own (Pallas, cuDNN) reads its operands, each array once, and writes its results.

Left out: what a GPU's cache keeps from one kernel to the next, and what a kernel reads twice.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from biomedclip_jax.planning._collectives import KINDS
from biomedclip_jax.planning._hlo import Computation, Instruction, Module, Shape
from biomedclip_jax.planning._products import Operations, operations

_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("add-dependency", "opt-barrier"),
}
_WORKSPACE = re.compile(r'custom_call_target="__cu(blas|dnn)')
_NO_KERNELS = (  # custom calls of a TPU's program that only name memory
    *("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollectiveStart", "AsyncCollectiveDone"),
)
_KNOWN_KERNELS = ("__cublas$", "__cudnn$fmha", "__gpu$xla.gpu.triton", "mosaic_gpu", "tpu_custom_call")


@dataclass(frozen=True)
class Executed:
    """An instruction as it is executed.

    inside: what a fusion is made of, or itself. times: in one call of the program. bytes: read and written each time,
    among them `in_place` to a part of a larger array. operations: of its products. asynchronous: beside others.
    """

    instruction: Instruction
    inside: tuple[Instruction, ...]
    times: int
    bytes: int
    in_place: int
    operations: Operations
    asynchronous: bool


@dataclass(frozen=True)
class Traffic:
    """What one call of a program executes.

    unknown_loops: loops that do not tell how often they run; they count as one. unknown_calls: targets of custom calls
    that are not known to read their operands and write their results once, though they count so.
    """

    executed: tuple[Executed, ...] = ()
    unknown_loops: int = 0
    unknown_calls: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """All that one call moves."""
        return sum(e.times * e.bytes for e in self.executed)

    @property
    def silent_kernels(self) -> int:
        """Launches of custom calls that do not tell their operations."""
        calls = (e for e in self.executed if e.instruction.opcode == "custom-call" and e.operations == Operations())
        return sum(e.times for e in calls)

    @property
    def doubts(self) -> list[str]:
        """What the count cannot know, in words."""
        found = []
        if self.unknown_loops:
            found.append(f"{self.unknown_loops} loops do not tell how often they run; each counts once")
        if self.unknown_calls:
            found.append(f"{', '.join(self.unknown_calls)}: not known; operands and results count once, no operations")
        if self.silent_kernels:
            found.append(f"{self.silent_kernels:,} kernels do not tell their operations; in attention, the model's count")
        return found


def count_traffic(module: Module) -> Traffic:
    """What the entry computation executes, and what that moves and computes."""
    counter = _Counter(module)
    counter.walk(module.entry, 1, False)
    return Traffic(tuple(counter.executed), counter.unknown_loops, tuple(sorted(counter.unknown_calls)))


class _Counter:
    def __init__(self, module: Module):
        self.module = module
        self.executed: list[Executed] = []
        self.unknown_loops = 0
        self.unknown_calls: set[str] = set()
        self._users: dict[int, dict[str, list[Instruction]]] = {}

    def walk(self, name: str, times: int, asynchronous: bool) -> None:
        """Count the instructions of a computation that runs so many times."""
        computation = self.module.computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            if opcode in _FREE or opcode.endswith(("-done", "-update")):
                continue
            if opcode == "while":
                turns = self.module.iterations(instruction)
                self.unknown_loops += turns is None
                for part in instruction.called("condition", "body"):
                    self.walk(part, times * (turns or 1), asynchronous)
            elif opcode == "conditional":
                branches = instruction.called("true_computation") or instruction.called("branch_computations")
                self.walk(branches[-1], times, asynchronous)
            elif opcode in ("call", "async-start"):
                for part in instruction.called("calls", "to_apply"):
                    self.walk(part, times, asynchronous or opcode == "async-start")
            else:
                self._count(computation, instruction, times, asynchronous or opcode.endswith("-start"))

    def _count(self, computation: Computation, instruction: Instruction, times: int, asynchronous: bool) -> None:
        target = re.search(r'custom_call_target="([^"]*)"', instruction.line)
        if target and target[1] in _NO_KERNELS:
            return
        if target and not target[1].startswith(_KNOWN_KERNELS):
            self.unknown_calls.add(target[1])
        inside = self._inside(instruction)
        moved, in_place = self._bytes(computation, instruction)
        work = sum((operations(*each) for each in self._with_operands(computation, instruction)), Operations())
        self.executed.append(Executed(instruction, inside, times, moved, in_place, work, asynchronous))

    def _inside(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """The instructions of a fusion, those of fusions in it, too; of any other itself."""
        if instruction.opcode != "fusion":
            return (instruction,)
        return tuple(i for inner in self._body(instruction).values() for i in self._inside(inner))

    def _with_operands(
        self, computation: Computation, instruction: Instruction
    ) -> list[tuple[Instruction, tuple[Instruction, ...]]]:
        """Those of `_inside`, each with what makes its operands."""
        if instruction.opcode != "fusion":
            return [(instruction, tuple(computation[o] for o in instruction.operands))]
        body = self._body(instruction)
        return [found for inner in body.values() for found in self._with_operands(body, inner)]

    def _body(self, fusion: Instruction) -> Computation:
        return self.module.computations[fusion.called("calls")[0]]

    # --- bytes of one execution ---------------------------------------------------------------------------------------

    def _bytes(self, computation: Computation, instruction: Instruction) -> tuple[int, int]:
        """Read and written by an instruction, and how many of them into a part of a larger array."""
        operands = [computation[name] for name in instruction.operands]
        results = self._results(computation, instruction)
        if instruction.opcode == "fusion":
            return self._fusion_bytes(instruction, operands)
        written = sum(shape.hbm_bytes for shape in results)
        match instruction.opcode.removesuffix("-start"):
            case "dynamic-slice" | "slice" | "gather":
                rest = sum(o.hbm_bytes for o in operands[1:])
                return _part(results[0], operands[0].shapes[0]) + rest + written, 0
            case "dynamic-update-slice" | "scatter":
                place, update = operands[0].shapes[0], operands[_update_operand(instruction)]
                part, rest = _part(update.shapes[0], place), sum(o.hbm_bytes for o in operands[1:])
                return part * (1 + (instruction.opcode == "scatter")) + rest, part
        if _WORKSPACE.search(instruction.line):
            written = sum(shape.hbm_bytes for shape in results if not _is_workspace(shape))
        different = {o.name: o for o in operands}  # queries, keys and values may be parts of one array, given three times
        return sum(o.hbm_bytes for o in different.values()) + written, 0

    def _results(self, computation: Computation, instruction: Instruction) -> tuple[Shape, ...]:
        """The arrays that an instruction makes; those of an asynchronous one are known where it is done."""
        if instruction.opcode.endswith("-start"):
            done = [u for u in self._users_in(computation)[instruction.name] if u.opcode.endswith("-done")]
            return done[0].shapes if done else ()
        return instruction.shapes

    def _fusion_bytes(self, fusion: Instruction, operands: list[Instruction]) -> tuple[int, int]:
        body = self._body(fusion)
        read = sum(
            self._read(body, parameter.name)
            for parameter, operand in zip(_parameters(body), operands, strict=True)
            if operand.shapes and operand.shapes[0].in_main_memory
        )
        (root,) = (i for i in body.values() if i.is_root)
        outputs = [body[name] for name in root.operands] if root.opcode == "tuple" else [root] * len(fusion.shapes)
        written = in_place = 0
        for output, shape in zip(outputs, fusion.shapes, strict=True):
            if output.opcode == "parameter" or _is_collective(output):  # handed on, or counted as a collective
                continue
            part = self._updated(body, output)
            if shape.in_main_memory:
                written += shape.stored_bytes if part is None else part
                in_place += part or 0
        return read + written, in_place

    def _read(self, body: Computation, name: str) -> int:
        """Bytes that a fusion reads of one of its parameters, if that is in HBM; at most all of them."""
        whole, total = body[name].shapes[0].stored_bytes, 0
        for user in self._users_in(body)[name]:
            first = user.operands[0] == name and name not in user.operands[1:]
            if user.opcode == "bitcast":
                total += self._read(body, user.name)
            elif user.opcode in ("dynamic-slice", "slice", "gather") and first:
                total += user.shapes[0].stored_bytes
            elif user.opcode in ("dynamic-update-slice", "scatter") and first and self._reaches_root(body, user):
                update = body[user.operands[_update_operand(user)]]
                total += update.shapes[0].stored_bytes if user.opcode == "scatter" else 0
            elif user.opcode == "fusion":
                inner = self._body(user)
                uses = [p.name for p, operand in zip(_parameters(inner), user.operands, strict=True) if operand == name]
                total += sum(self._read(inner, parameter) for parameter in uses)
            elif not (user.opcode == "tuple" or _is_collective(user)):
                return whole
        return min(total, whole)

    def _reaches_root(self, body: Computation, instruction: Instruction) -> bool:
        """Whether this is a result of the fusion as it is."""
        users = self._users_in(body)[instruction.name]
        return instruction.is_root or all(
            (user.opcode == "bitcast" and self._reaches_root(body, user)) or (user.opcode == "tuple" and user.is_root)
            for user in users
        )

    def _updated(self, body: Computation, output: Instruction) -> int | None:
        """Bytes that a fusion writes for a result that is one of its parameters but for a part; None for any other."""
        while output.opcode == "bitcast":
            output = body[output.operands[0]]
        if output.opcode not in ("dynamic-update-slice", "scatter"):
            return None
        place = body[output.operands[0]]
        while place.opcode == "bitcast":
            place = body[place.operands[0]]
        return body[output.operands[_update_operand(output)]].shapes[0].stored_bytes if place.opcode == "parameter" else None

    def _users_in(self, computation: Computation) -> dict[str, list[Instruction]]:
        if id(computation) not in self._users:
            users = self._users[id(computation)] = defaultdict(list)
            for instruction in computation.values():
                for name in set(instruction.operands):
                    users[name].append(instruction)
        return self._users[id(computation)]


def _parameters(body: Computation) -> list[Instruction]:
    """The parameters of a computation in their order."""
    found = [(re.search(r"parameter\((\d+)\)", i.line), i) for i in body.values() if i.opcode == "parameter"]
    return [i for _, i in sorted((int(number[1]), i) for number, i in found if number)]


def _is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in KINDS


def _update_operand(instruction: Instruction) -> int:
    """Which operand of a dynamic-update-slice or scatter is what it writes."""
    return 1 if instruction.opcode.startswith("dynamic-update-slice") else 2


def _part(part: Shape, whole: Shape) -> int:
    """Bytes of a part of an array in HBM, wherever the part itself goes."""
    return part.stored_bytes if whole.in_main_memory else 0


def _is_workspace(shape: Shape) -> bool:
    return shape.dtype in ("s8", "u8") and len(shape.axes) == 1
