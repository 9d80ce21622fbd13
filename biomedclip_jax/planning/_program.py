"""What a compiled program does, read from its text: its collectives, and the memory traffic and work of each instruction."""

from dataclasses import dataclass
from functools import cached_property

from biomedclip_jax.planning._collectives import Collective, find_collectives
from biomedclip_jax.planning._hlo import Module
from biomedclip_jax.planning._traffic import Traffic, count_traffic


@dataclass(frozen=True)
class Program:
    """What a compiled program does in one call.

    collectives: all of them, in the order of the text. loops: how many loops there are. unknown_loops: those around
    collectives whose iterations the text does not tell; they count as one. traffic: of one call.
    """

    collectives: tuple[Collective, ...]
    loops: int
    unknown_loops: int
    traffic: Traffic

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
    """What the entry computation of an HLO text reaches."""
    module = Module(text)
    collectives, unknown = find_collectives(module)
    return Program(collectives, module.loops, unknown, count_traffic(module))
