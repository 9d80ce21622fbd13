"""Reading compiled programs: written by hand with known answers, and real ones of eight CPU devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from biomedclip_jax.planning._collectives import Collective
from biomedclip_jax.planning._program import collectives_in_loops, read_program


def collective(kind: str, size: int, devices: int) -> Collective:
    return Collective(kind, size, np.arange(devices)[None], times=1, loop=False)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-gather", 700),  # the own 100 bytes, and those of six others passed on
        ("all-reduce", 175),  # 7 eighths twice: once summed, once handed out
        ("reduce-scatter", 87.5),
        ("all-to-all", 87.5),
        ("collective-permute", 100),
    ],
)
def test_ring_bytes(kind: str, sent: float) -> None:
    assert collective(kind, 100, 8).sent == sent
    assert collective("all-reduce", 100, 1).sent == 0


# --- real programs --------------------------------------------------------------------------------------------------


def compiled(function, *shapes: tuple[int, ...], sizes: tuple[int, int] = (4, 2)) -> str:
    """The optimised text of `function` in shard_map on a mesh a x b, its arguments split over both."""
    mesh = jax.make_mesh(sizes, ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(("a", "b")), out_specs=P(("a", "b")), check_vma=False)
    return jax.jit(mapped).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile().as_text()


def test_kinds_sizes_and_groups_of_a_real_program() -> None:
    def body(x):  # float32 [2, 128] on each device: 1 KiB
        gathered = lax.all_gather(x, "b", tiled=True)
        scattered = lax.psum_scatter(lax.psum(gathered, "a"), ("a", "b"), tiled=True, scatter_dimension=1)
        moved = lax.ppermute(x, "b", [(0, 1), (1, 0)])
        return x + moved + scattered.sum()

    program = read_program(compiled(body, (16, 128)))
    found = {c.kind: c for c in program.collectives}
    assert len(program.collectives) == 4 and not program.loops
    assert {kind: c.bytes for kind, c in found.items()} == {
        "all-gather": 1024,
        "all-reduce": 2048,
        "reduce-scatter": 2048,
        "collective-permute": 1024,
    }
    assert sorted(map(sorted, found["all-gather"].groups.tolist())) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert sorted(map(sorted, found["all-reduce"].groups.tolist())) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert sorted(found["reduce-scatter"].groups[0]) == list(range(8))
    assert found["collective-permute"].groups.shape[1] == 2


def test_a_loop_multiplies_and_loops_in_loops_twice() -> None:
    def body(x):
        def inner(x, _):
            return jnp.tanh(lax.psum(x, "a")), None

        def outer(x, _):
            return lax.all_gather(lax.scan(inner, x, None, length=5)[0], "b", tiled=True)[: len(x)], None

        return lax.scan(outer, lax.psum(x, ("a", "b")), None, length=3)[0]

    text = compiled(body, (16, 128))
    program = read_program(text)
    assert sorted((c.kind, c.times, c.loop) for c in program.collectives) == [
        ("all-gather", 3, True),
        ("all-reduce", 1, False),
        ("all-reduce", 15, True),
    ]
    assert program.loops == 2 and program.unknown_loops == 0
    assert sorted(collectives_in_loops(text)) == ["all-gather", "all-reduce"]


def test_a_loop_of_unknown_length_counts_once_and_is_told() -> None:
    def body(x):
        return lax.while_loop(lambda x: x.sum() < 1e3, lambda x: lax.psum(x, "a") + 1, x)

    program = read_program(compiled(body, (16, 128)))
    assert [(c.kind, c.times, c.loop) for c in program.collectives] == [("all-reduce", 1, True)]
    assert program.unknown_loops == 1


def test_of_a_conditional_the_larger_branch_counts() -> None:
    def body(x):
        gather = functools.partial(lax.all_gather, axis_name="b", tiled=True)
        return lax.cond(x.sum() > 0, lambda x: lax.psum(gather(x), "a")[: len(x)], lambda x: lax.psum(x, ("a", "b")), x)

    program = read_program(compiled(body, (16, 128)))
    assert sorted((c.kind, c.counted) for c in program.collectives) == [
        ("all-gather", True),
        ("all-reduce", False),
        ("all-reduce", True),
    ]
    assert sorted(c.kind for c in program.counted) == ["all-gather", "all-reduce"]


def test_no_loop_is_an_error_for_those_who_look_inside_loops() -> None:
    with pytest.raises(ValueError, match="no loop at all"):
        collectives_in_loops(compiled(lambda x: lax.psum(x, "a"), (16, 128)))


# --- what only other compilers write --------------------------------------------------------------------------------

TPU = """HloModule jit_step, num_partitions=8

%fused.1 (p.1: f32[4,128]) -> f32[32,128] {
  %p.1 = f32[4,128]{1,0:T(4,128)} parameter(0)
  ROOT %ag.1 = f32[32,128]{1,0:T(8,128)S(1)} all-gather(%p.1), replica_groups=[1,8]<=[8], frontend_attributes={chain_id="7"}
}

%fused.2 (p.2: f32[4,128]) -> f32[32,128] {
  %p.2 = f32[4,128]{1,0:T(4,128)} parameter(0)
  ROOT %ag.2 = f32[32,128]{1,0:T(8,128)S(1)} all-gather(%p.2), replica_groups=[1,8]<=[8], frontend_attributes={chain_id="7"}
}

ENTRY %main (x: f32[4,128], y: bf16[10]) -> (f32[32,128], f32[32,128]) {
  %x = f32[4,128]{1,0:T(4,128)} parameter(0)
  %y = bf16[10]{0:T(256)(128)(2,1)} parameter(1)
  %a = f32[32,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%fused.1
  %b = f32[32,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%fused.2
  %sums = (f32[4,128]{1,0}, /*index=1*/bf16[10]{0}) all-reduce(%x, %y), replica_groups=GROUPS, to_apply=%add
  ROOT %t = (f32[32,128]{1,0}, f32[32,128]{1,0}) tuple(%a, %b)
}
"""


def test_a_gather_that_tpu_fusions_repeat_counts_once_and_tuples_add_up() -> None:
    program = read_program(TPU.replace("GROUPS", "{}"))
    assert [(c.kind, c.bytes) for c in program.collectives] == [("all-gather", 2048), ("all-reduce", 2048 + 20)]
    assert program.collectives[1].groups.tolist() == [list(range(8))]


SCATTER = """HloModule jit_f, num_partitions=8
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
%CALLED (input: f32[64,32]) -> f32[16,32] {
  %input = f32[64,32]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,32]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %row = u32[] constant(0)
  ROOT %slice = f32[16,32]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %row, %row), dynamic_slice_sizes={16,32}
}
ENTRY %main (x: f32[64,32]) -> f32[16,32] {
  %x = f32[64,32]{1,0:T(8,128)} parameter(0)
  ROOT %fusion = f32[16,32]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%CALLED
}
"""


@pytest.mark.parametrize(("name", "kind"), [("all-reduce-scatter.2", "reduce-scatter"), ("fused_computation", "all-reduce")])
def test_a_tpus_reduce_scatter_is_not_taken_for_an_all_reduce(name: str, kind: str) -> None:
    (found,) = read_program(SCATTER.replace("CALLED", name)).collectives
    assert (found.kind, found.bytes, found.groups.tolist()) == (kind, 8192, [[0, 1, 2, 3], [4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['x'=2,'y'=4] {'y'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['x'=2,'y'=4] {'x'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['x'=2,'y'=4] {'x','y'}", [list(range(8))]),
        ("mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)) {'y'}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['x'=8] {'x':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_every_way_to_write_groups(written: str, groups: list[list[int]]) -> None:
    found = read_program(TPU.replace("GROUPS", written)).collectives[1].groups.tolist()
    assert sorted(map(sorted, found)) == groups


def test_what_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not known"):
        read_program(TPU.replace("GROUPS", "spiral(8)"))
    with pytest.raises(ValueError, match="no HLO"):
        read_program("module @jit_step {")


def test_start_and_done_are_one() -> None:
    text = """HloModule jit_step, num_partitions=4

%wrapped (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  ROOT %rs = f32[2]{0} reduce-scatter(%p), replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %s = ((f32[8]{0}), f32[2]{0}, u32[]) async-start(%x), calls=%wrapped
  %d = f32[2]{0} async-done(%s), calls=%wrapped
  %g = (f32[2]{0}, f32[8]{0}) all-gather-start(%d), replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %e = f32[8]{0} all-gather-done(%g)
}
"""
    assert [(c.kind, c.bytes) for c in read_program(text).collectives] == [("reduce-scatter", 32), ("all-gather", 8)]
