"""Reading the text of a compiled program (optimised HLO): its collectives, how often they run and what they move.

`compiled.as_text()` is not a format with a promise; `read_program` raises ValueError rather than guess at what it
does not know, and was written against XLA of jaxlib 0.10.2 for CPU, TPU and CUDA.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

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
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))"
)
_AXIS = re.compile(r"'(.+?)'(?::\((\d+)\)(\d+))?")
_ARRAY = re.compile(r"\b(pred|token|opaque|[a-z]+\d+\w*)\[([\d,]*)\]")


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


@dataclass(frozen=True)
class Program:
    """The communication of a compiled program.

    collectives: all of them, in the order of the text. loops: how many loops there are. unknown_loops: those around
    collectives whose iterations the text does not tell; they count as one.
    """

    collectives: tuple[Collective, ...]
    loops: int
    unknown_loops: int

    @cached_property
    def counted(self) -> tuple[Collective, ...]:
        """The collectives of one call, of each conditional only the branch that moves most."""
        return tuple(c for c in self.collectives if c.counted)


def collectives_in_loops(text: str) -> list[str]:
    """Kinds of the collectives of an HLO text inside the bodies of loops, in all branches. ValueError without any loop."""
    program = read_program(text)
    if not program.loops:
        raise ValueError("no loop at all in this text: the scans were unrolled, or HLO is now written in another way")
    return [c.kind for c in program.collectives if c.loop]


def read_program(text: str) -> Program:
    """The collectives that the entry computation reaches.

    A TPU program repeats one asynchronous collective in each fusion that it overlaps with; these share a `chain_id`
    and count once. `-start` and `-done` are one.
    """
    reader = _Reader(text)
    found = reader.collectives(reader.entry, 1, False)
    seen: set[tuple[str, str]] = set()
    unique = []
    for chain, collective in found:
        if chain is None or (collective.kind, chain) not in seen:
            unique.append(collective)
        if chain is not None:
            seen.add((collective.kind, chain))
    return Program(tuple(unique), reader.loops, reader.unknown_loops)


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    line: str

    def called(self, *roles: str) -> list[str]:
        """Computations named in these attributes."""
        names = []
        for role, several, one in _CALLED.findall(self.line):
            if role in roles:
                names += [name.strip().lstrip("%") for name in several.split(",")] if several else [one]
        return names


class _Reader:
    def __init__(self, text: str):
        self.computations: dict[str, dict[str, _Instruction]] = {}
        self.entry = ""
        instructions: dict[str, _Instruction] = {}
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.\-]+)\b.*\{$", line):
                instructions = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif instruction := _instruction(line):
                instructions[instruction.name] = instruction
        if not self.entry:
            raise ValueError("this text is no HLO module: it has no ENTRY")
        count = re.search(r"num_partitions=(\d+)", text)
        replicas = re.search(r"replica_count=(\d+)", text)
        self.devices = (int(count[1]) if count else 1) * (int(replicas[1]) if replicas else 1)
        self.loops = sum(i.opcode == "while" for c in self.computations.values() for i in c.values())
        self.unknown_loops = 0

    def collectives(self, name: str, times: int, loop: bool) -> list[tuple[str | None, Collective]]:
        """(chain id, collective) of all that a computation reaches."""
        found: list[tuple[str | None, Collective]] = []
        instructions = self.computations[name]
        for instruction in instructions.values():
            opcode = instruction.opcode
            if kind := _KIND.fullmatch(opcode):
                chain = re.search(r'chain_id="(\d+)"', instruction.line)
                size = sum(_bytes(instructions[operand].type) for operand in instruction.operands)
                collective = Collective(kind[1], size, _groups(instruction.line, self.devices), times, loop)
                found.append((chain and chain[1], collective))
            elif opcode == "while":
                body, condition = instruction.called("body", "condition")
                count = self._iterations(instruction)
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
                    found += self.collectives(part, times, loop)
        return found

    def _iterations(self, loop: _Instruction) -> int | None:
        """How often a loop's body runs, where the text tells: by XLA's own count, or the only number in its condition."""
        if known := re.search(r'"?known_trip_count"?:\s*\{"?n"?:\s*"(\d+)"', loop.line):
            return int(known[1])
        (condition,) = loop.called("condition")
        lines = [i.line for i in self.computations[condition].values() if i.opcode == "constant"]
        numbers = {int(n) for line in lines for n in re.findall(r"[su]32\[\][^=]*constant\((\d+)\)", line)}
        return numbers.pop() if len(numbers) == 1 else None


def _instruction(line: str) -> _Instruction | None:
    start = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not start:
        return None
    rest = re.sub(r"/\*.*?\*/", "", line[start.end() :])
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = re.match(r"\s*([\w\-]+)\(", rest[end:])
    if not opcode:
        return None
    opening = end + opcode.end() - 1
    operands = re.findall(r"%([\w.\-]+)", rest[opening : _closing(rest, opening)])
    return _Instruction(start[1], rest[:end], opcode[1], tuple(operands), line)


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` is closed."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError(f"a parenthesis is not closed: {text[:200]}")


def _bytes(type_: str) -> int:
    """Bytes of an array or of a tuple of arrays."""
    total = 0
    for dtype, shape in _ARRAY.findall(type_):
        bits = {"pred": 8, "token": 0, "opaque": 0}.get(dtype)
        if bits is None:
            bits = int(re.findall(r"\d+", dtype)[0])  # f32, bf16, s8, f8e4m3fn, c64
        count = int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64))
        total += -(-count * bits // 8)
    return total


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
