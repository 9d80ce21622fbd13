"""Reading the text of a compiled program (optimised HLO) into its computations and their instructions.

`compiled.as_text()` is not a format with a promise; what is not known raises ValueError where it is needed rather than
be guessed at. Written against XLA of jaxlib 0.10.2 for CPU, TPU and CUDA.
"""

import math
import re
from dataclasses import dataclass
from functools import cached_property

_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))"
)
_ARRAY = re.compile(r"\b(pred|token|opaque|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Shape:
    """An array of a program: dtype as HLO writes it, axes, and layout, such as `1,0:T(8,128)(2,1)S(1)`."""

    dtype: str
    axes: tuple[int, ...]
    layout: str

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.axes)

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return -(-self.size * self._bits // 8)

    @property
    def in_main_memory(self) -> bool:
        """Whether it is in HBM, and not in a TPU's on-chip memory or in that of the host."""
        space = re.search(r"S\((\d+)\)", self.layout)
        return space is None or space[1] == "0"

    @property
    def hbm_bytes(self) -> int:
        """Bytes that it takes in HBM: 0 where it is elsewhere."""
        return self.stored_bytes if self.in_main_memory else 0

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes wherever it is; a TPU stores whole tiles."""
        tile = re.search(r"T\(([\d,]+)\)", self.layout)
        if not tile or not self.axes:
            return self.bytes
        order = [int(axis) for axis in self.layout.split(":")[0].split(",")]
        axes = list(self.axes)
        for axis, length in zip(order, reversed(tile[1].split(",")), strict=False):
            axes[axis] = -(-axes[axis] // int(length)) * int(length)
        return -(-math.prod(axes) * self._bits // 8)

    @property
    def _bits(self) -> int:
        if self.dtype in ("token", "opaque"):
            return 0
        return 8 if self.dtype == "pred" else int(re.findall(r"\d+", self.dtype)[0])  # f32, bf16, s8, f8e4m3fn, c64


@dataclass(frozen=True)
class Instruction:
    """A line of a program. type: as written. operands: names. functions: of the source, outermost first, where known."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    line: str
    functions: tuple[str, ...] = ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays of the result: one, or those of a tuple."""
        return tuple(Shape(dtype, _numbers(axes), layout) for dtype, axes, layout in _ARRAY.findall(self.type))

    @property
    def bytes(self) -> int:
        """Bytes of the result, be it an array or a tuple of arrays."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def hbm_bytes(self) -> int:
        """Bytes of the result in HBM."""
        return sum(shape.hbm_bytes for shape in self.shapes)

    @property
    def is_root(self) -> bool:
        """Whether this is the result of its computation."""
        return self.line.lstrip().startswith("ROOT ")

    @property
    def op_name(self) -> str:
        """JAX's name of the operation, such as `jit(step)/jvp()/while/body/dot_general`; empty where there is none."""
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found[1] if found else ""

    def called(self, *roles: str) -> list[str]:
        """Computations named in these attributes."""
        names = []
        for role, several, one in _CALLED.findall(self.line):
            if role in roles:
                names += [name.strip().lstrip("%") for name in several.split(",")] if several else [one]
        return names


Computation = dict[str, Instruction]


class Module:
    """A program: its computations by name, the name of the one it starts with, and on how many devices it runs.

    ValueError for a text that is no HLO.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        functions = _functions(text)
        instructions: Computation = {}
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.\-]+)\b.*\{$", line):
                instructions = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif instruction := _instruction(line, functions):
                instructions[instruction.name] = instruction
        if not self.entry:
            raise ValueError("this text is no HLO module: it has no ENTRY")
        count = re.search(r"num_partitions=(\d+)", text)
        replicas = re.search(r"replica_count=(\d+)", text)
        self.devices = (int(count[1]) if count else 1) * (int(replicas[1]) if replicas else 1)

    @property
    def loops(self) -> int:
        """How many loops there are."""
        return sum(i.opcode == "while" for c in self.computations.values() for i in c.values())

    def iterations(self, loop: Instruction) -> int | None:
        """How often a loop's body runs, where the text tells: by XLA's own count, or the only number in its condition."""
        if known := re.search(r'"?known_trip_count"?:\s*\{"?n"?:\s*"(\d+)"', loop.line):
            return int(known[1])
        (condition,) = loop.called("condition")
        lines = [i.line for i in self.computations[condition].values() if i.opcode == "constant"]
        numbers = {int(n) for line in lines for n in re.findall(r"[su]32\[\][^=]*constant\((\d+)\)", line)}
        return numbers.pop() if len(numbers) == 1 else None


def _instruction(line: str, functions: dict[str, tuple[str, ...]]) -> Instruction | None:
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
    frame = re.search(r"stack_frame_id=(\d+)", line)
    return Instruction(start[1], rest[:end], opcode[1], tuple(operands), line, functions.get(frame[1], ()) if frame else ())


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` is closed."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError(f"a parenthesis is not closed: {text[:200]}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _functions(text: str) -> dict[str, tuple[str, ...]]:
    """Stack frame -> the functions of the source that it stands for, outermost first; from the tables at the text's head."""
    names = dict(re.findall(r'^(\d+) "(.*)"$', _table(text, "FunctionNames"), re.MULTILINE))
    places = dict(re.findall(r"^(\d+) \{.*?function_name_id=(\d+)", _table(text, "FileLocations"), re.MULTILINE))
    written = r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?\}"
    stacks: dict[str, tuple[str, ...]] = {}
    for frame, place, parent in re.findall(written, _table(text, "StackFrames"), re.MULTILINE):
        # a parent is written as its number and one; the outermost frame has none, or 1
        above = stacks.get(str(int(parent or 1) - 1), ())
        stacks[frame] = (*above, names[places[place]])
    return stacks


def _table(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
