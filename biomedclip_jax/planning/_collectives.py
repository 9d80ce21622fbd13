"""The communication of a compiled program: its collectives, how often they run and what they move.

What is not known raises ValueError rather than be guessed at.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from biomedclip_jax.planning._hlo import Module

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)

_KIND = re.compile(rf"({'|'.join(KINDS)})(-start)?")
_AXIS = re.compile(r"'(.+?)'(?::\((\d+)\)(\d+))?")


@dataclass(frozen=True)
class Collective:
    """One communication of a compiled program, such as an all-reduce.

    kind: one of `KINDS`. bytes: that each device brings (the operands). groups: int [G, n], devices that
    communicate with each other, by their position in the mesh. times: how often it runs in one call of the program.
    loop: whether it is in a loop's body. counted: False in the branches of a conditional that move less than its
    largest one.
    """

    kind: str
    bytes: int
    groups: np.ndarray
    times: int
    loop: bool
    counted: bool = True

    @property
    def sent(self) -> float:
        """Bytes that each device sends when it runs once, by the ring algorithms (pairwise for all-to-all)."""
        n = self.groups.shape[1]
        share = (n - 1) / n
        match self.kind:
            case "all-gather":
                return (n - 1) * self.bytes
            case "all-reduce":
                return 2 * share * self.bytes
            case "reduce-scatter" | "all-to-all" | "ragged-all-to-all":
                return share * self.bytes
            case _:
                return float(self.bytes)


def find_collectives(module: Module) -> tuple[tuple[Collective, ...], int]:
    """The collectives that the entry computation reaches, and the loops around them that do not tell how often they run.

    A TPU program repeats one asynchronous collective in each fusion that it overlaps with; these share a `chain_id`
    and count once. `-start` and `-done` are one. Its reduce-scatter is a fusion, named so, of an all-reduce and a slice.
    """
    reader = _Reader(module)
    found = reader.collectives(module.entry, 1, False)
    seen: set[tuple[str, str]] = set()
    unique = []
    for chain, collective in found:
        if chain is None or (collective.kind, chain) not in seen:
            unique.append(collective)
        if chain is not None:
            seen.add((collective.kind, chain))
    return tuple(unique), reader.unknown_loops


class _Reader:
    def __init__(self, module: Module):
        self.module = module
        self.unknown_loops = 0

    def collectives(self, name: str, times: int, loop: bool) -> list[tuple[str | None, Collective]]:
        """(chain id, collective) of all that a computation reaches."""
        found: list[tuple[str | None, Collective]] = []
        instructions = self.module.computations[name]
        for instruction in instructions.values():
            opcode = instruction.opcode
            if kind := _KIND.fullmatch(opcode):
                chain = re.search(r'chain_id="(\d+)"', instruction.line)
                size = sum(instructions[operand].bytes for operand in instruction.operands)
                collective = Collective(kind[1], size, _groups(instruction.line, self.module.devices), times, loop)
                found.append((chain and chain[1], collective))
            elif opcode == "while":
                body, condition = instruction.called("body", "condition")
                count = self.module.iterations(instruction)
                inside = [c for part in (condition, body) for c in self.collectives(part, times * (count or 1), True)]
                self.unknown_loops += bool(inside) and count is None
                found += inside
            elif opcode == "conditional":
                roles = ("branch_computations", "true_computation", "false_computation")
                branches = [self.collectives(branch, times, loop) for branch in instruction.called(*roles)]
                largest = max(range(len(branches)), key=lambda i: sum(c.times * c.sent for _, c in branches[i] if c.counted))
                for number, branch in enumerate(branches):
                    found += branch if number == largest else [(chain, replace(c, counted=False)) for chain, c in branch]
            elif not opcode.endswith(("-done", "-update")):
                for part in instruction.called("calls", "to_apply"):
                    inside = self.collectives(part, times, loop)
                    scatters = part.startswith("all-reduce-scatter")
                    found += [(chain, replace(c, kind="reduce-scatter")) if scatters else (chain, c) for chain, c in inside]
        return found


def _groups(line: str, devices: int) -> np.ndarray:
    """The groups of a collective, int [G, n]; written as a list, as a reshaped and transposed range, or by axes of a mesh."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return _listed(pairs[1])
    if listed := re.search(r"replica_groups=\{(\{.*?\})?\}", line):
        return _listed(listed[1]) if listed[1] else np.arange(devices)[None]
    if ranged := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return _device_numbers(ranged[3]).reshape(int(ranged[1]), int(ranged[2]))
    if meshed := re.search(r"replica_groups=mesh\[(.+?)\](?:, device_ids=\((\[.+?\].*?\)?)\))? \{(.*?)\}", line):
        return _mesh_groups(*meshed.groups())
    if "replica_groups" not in line:
        return np.arange(devices)[None]
    raise ValueError(f"groups written in a way that is not known: {line.strip()[:300]}")


def _listed(text: str) -> np.ndarray:
    return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)])


def _device_numbers(text: str) -> np.ndarray:
    """`[2,4]T(1,0)`: the numbers from 0, in this shape, transposed."""
    written = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if not written:
        raise ValueError(f"devices written in a way that is not known: {text}")
    shape = [int(n) for n in written[1].split(",")]
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return numbers.transpose([int(n) for n in written[2].split(",")]) if written[2] else numbers


def _mesh_groups(mesh: str, devices: str | None, chosen: str) -> np.ndarray:
    """Groups along some axes of a mesh: `'a'=4,'b'=2`, perhaps the order of its devices, `'a'` or a part of it `'a':(2)2`."""
    sizes = {name: int(size) for name, size in re.findall(r"'(.+?)'=(\d+)", mesh)}
    axes = {name: (int(before or 1), int(size or sizes[name])) for name, before, size in _AXIS.findall(chosen)}
    if len(axes) != chosen.count("'") // 2:
        raise ValueError(f"a group along two parts of one axis: {chosen}")
    shape, along, rest = [], [], []
    for name, size in sizes.items():
        before, part = axes.get(name, (1, 1))
        rest += [len(shape), len(shape) + 2]
        along.append(len(shape) + 1)
        shape += [before, part, size // (before * part)]
    numbers = np.arange(np.prod(shape)) if devices is None else _device_numbers(devices)
    return numbers.reshape(shape).transpose([*rest, *along]).reshape(-1, int(np.prod([shape[i] for i in along])))
