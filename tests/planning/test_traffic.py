"""Bytes and operations of programs written by hand, whose traffic is known on paper."""

import numpy as np
import pytest

from biomedclip_jax.planning._hlo import Module
from biomedclip_jax.planning._products import Operations, _pairs
from biomedclip_jax.planning._traffic import Traffic, count_traffic


def count(text: str) -> Traffic:
    return count_traffic(Module(f"HloModule jit_step\n\n{text}"))


def entry(*lines: str, parameters: str = "f32[10,100]{1,0}") -> str:
    """A program of one argument %x and these instructions."""
    return "ENTRY %main (x: f32[]) -> f32[] {\n" + "\n".join([f"  %x = {parameters} parameter(0)", *lines]) + "\n}\n"


def test_an_instruction_reads_its_operands_and_writes_its_results() -> None:
    found = count(entry("  %y = bf16[10,100]{1,0} convert(%x)", "  ROOT %z = f32[10]{0} reduce(%y), to_apply=%add"))
    assert [e.bytes for e in found.executed] == [4000 + 2000, 2000 + 40]
    assert found.bytes == 8040 and not found.unknown_loops and not found.unknown_calls


def test_what_only_names_memory_moves_none() -> None:
    lines = (
        "  %b = f32[1000]{0} bitcast(%x)",
        "  %t = (f32[1000]{0}) tuple(%b)",
        "  ROOT %g = f32[1000]{0} get-tuple-element(%t), index=0",
    )
    assert count(entry(*lines)).executed == ()


SLICES = """%inside (stack: f32[12,100], place: s32[], row: f32[100]) -> f32[12,100] {
  %stack = f32[12,100]{1,0} parameter(0)
  %place = s32[] parameter(1)
  %row = f32[100]{0} parameter(2)
  %zero = s32[] constant(0)
  %old = f32[1,100]{1,0} dynamic-slice(%stack, %place, %zero), dynamic_slice_sizes={1,100}
  %flat = f32[100]{0} bitcast(%old)
  %sum = f32[100]{0} add(%flat, %row)
  %new = f32[1,100]{1,0} bitcast(%sum)
  ROOT %put = f32[12,100]{1,0} dynamic-update-slice(%stack, %new, %place, %zero)
}

"""


def fusion(type_: str, operands: str) -> str:
    return f"  ROOT %f = {type_} fusion({operands}), kind=kLoop, calls=%inside"


def test_slices_in_a_fusion_count_as_slices() -> None:
    lines = "  %i = s32[] constant(3)", "  %row = f32[100]{0} parameter(1)", fusion("f32[12,100]{1,0}", "%x, %i, %row")
    (found,) = count(SLICES + entry(*lines, parameters="f32[12,100]{1,0}")).executed
    assert found.bytes == 400 + 4 + 400 + 400  # the old row, its index, what is added, the new row
    assert found.in_place == 400


def test_an_update_of_what_the_fusion_makes_itself_writes_all_of_it() -> None:
    made = SLICES.replace("dynamic-update-slice(%stack, %new", "dynamic-update-slice(%twice, %new").replace(
        "  %zero =", "  %twice = f32[12,100]{1,0} add(%stack, %stack)\n  %zero ="
    )
    lines = "  %i = s32[] constant(3)", "  %row = f32[100]{0} parameter(1)", fusion("f32[12,100]{1,0}", "%x, %i, %row")
    (found,) = count(made + entry(*lines, parameters="f32[12,100]{1,0}")).executed
    assert found.bytes == 4800 + 4 + 400 + 4800 and found.in_place == 0


def test_through_bitcasts_and_a_fusion_in_a_fusion() -> None:
    inner = """%inner (p: f32[1200]) -> f32[10] {
  %p = f32[1200]{0} parameter(0)
  ROOT %s = f32[10]{0} slice(%p), slice={[20:30]}
}

%inside (q: f32[12,100]) -> f32[10] {
  %q = f32[12,100]{1,0} parameter(0)
  %flat = f32[1200]{0} bitcast(%q)
  ROOT %n = f32[10]{0} fusion(%flat), kind=kLoop, calls=%inner
}

"""
    (found,) = count(inner + entry(fusion("f32[10]{0}", "%x"), parameters="f32[12,100]{1,0}")).executed
    assert found.bytes == 40 + 40


def test_what_is_read_in_several_slices_is_read_once() -> None:
    inside = """%inside (p: f32[10,100]) -> f32[10,100] {
  %p = f32[10,100]{1,0} parameter(0)
  %a = f32[10,60]{1,0} slice(%p), slice={[0:10], [0:60]}
  %b = f32[10,60]{1,0} slice(%p), slice={[0:10], [40:100]}
  ROOT %c = (f32[10,60]{1,0}, f32[10,60]{1,0}) tuple(%a, %b)
}

"""
    (found,) = count(inside + entry(fusion("(f32[10,60]{1,0}, f32[10,60]{1,0})", "%x"))).executed
    assert found.bytes == 4000 + 2 * 2400


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("dynamic-slice(%x, %i, %i)", 400 + 2 * 4 + 400),
        ("gather(%x, %where)", 400 + 20 + 400),  # five rows would be f32[5,100]; here the result says how much
        ("slice(%x), slice={[0:1], [0:100]}", 400 + 400),
    ],
)
def test_slices_of_their_own(line: str, size: int) -> None:
    lines = "  %i = s32[] constant(3)", "  %where = s32[5]{0} parameter(1)", f"  ROOT %s = f32[1,100]{{1,0}} {line}"
    assert count(entry(*lines)).bytes == size


def test_updates_in_place_of_their_own() -> None:
    lines = (
        "  %i = s32[] constant(3)",
        "  %where = s32[5]{0} parameter(1)",
        "  %rows = f32[5,100]{1,0} parameter(2)",
        "  %put = f32[10,100]{1,0} dynamic-update-slice(%x, %rows, %i, %i)",
        "  ROOT %added = f32[10,100]{1,0} scatter(%put, %where, %rows), to_apply=%add",
    )
    put, added = count(entry(*lines)).executed
    assert put.bytes == 2000 + 2 * 4 + 2000
    assert added.bytes == 2 * 2000 + 20 + 2000  # the rows are read, added to and written


LOOP = """%body (p: (s32[], f32[10,100])) -> (s32[], f32[10,100]) {
  %p = (s32[], f32[10,100]{1,0}) parameter(0)
  %v = f32[10,100]{1,0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=0
  %w = f32[10,100]{1,0} negate(%v)
  ROOT %r = (s32[], f32[10,100]{1,0}) tuple(%n, %w)
}

%condition (p: (s32[], f32[10,100])) -> pred[] {
  %p = (s32[], f32[10,100]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%p), index=0
  %limit = s32[] LIMIT
  ROOT %c = pred[] compare(%n, %limit), direction=LT
}

"""


@pytest.mark.parametrize(("limit", "times", "unknown"), [("constant(12)", 12, 0), ("add(%n, %n)", 1, 1)])
def test_a_loop_counts_as_often_as_it_runs(limit: str, times: int, unknown: int) -> None:
    lines = (
        "  %z = s32[] constant(0)",
        "  %t = (s32[], f32[10,100]{1,0}) tuple(%z, %x)",
        "  ROOT %l = (s32[], f32[10,100]{1,0}) while(%t), condition=%condition, body=%body",
    )
    found = count(LOOP.replace("LIMIT", limit) + entry(*lines))
    (negate,) = (e for e in found.executed if e.instruction.opcode == "negate")
    assert (negate.times, negate.bytes, found.unknown_loops) == (times, 8000, unknown)


@pytest.mark.parametrize("branches", ["branch_computations={%no, %yes}", "true_computation=%yes, false_computation=%no"])
def test_of_a_conditional_the_branch_of_a_true_predicate_counts(branches: str) -> None:
    computations = """%yes (p: f32[10,100]) -> f32[10,100] {
  %p = f32[10,100]{1,0} parameter(0)
  ROOT %n = f32[10,100]{1,0} negate(%p)
}

%no (p: f32[10,100]) -> f32[10,100] {
  %p = f32[10,100]{1,0} parameter(0)
  %n = f32[10,100]{1,0} negate(%p)
  ROOT %m = f32[10,100]{1,0} negate(%n)
}

"""
    lines = (
        "  %z = pred[] constant(true)",
        f"  ROOT %c = f32[10,100]{{1,0}} conditional(%z, %x, %x), {branches}",
    )
    assert count(computations + entry(*lines)).bytes == 8000


def test_an_asynchronous_copy_counts_once_and_only_what_is_in_hbm() -> None:
    vmem = "f32[10,100]{1,0:T(8,128)S(1)}"
    lines = (
        f"  %s = ({vmem}, f32[10,100]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%x)",
        f"  %d = {vmem} copy-done(%s)",
        "  ROOT %n = f32[10,100]{1,0:T(8,128)} negate(%d)",
    )
    found = count(entry(*lines, parameters="f32[10,100]{1,0:T(8,128)}"))
    copied, negated = found.executed
    tiles = 2 * 8 * 128 * 4  # ten rows are two tiles of eight, and each row is as wide as a tile
    assert copied.asynchronous and copied.bytes == tiles
    assert not negated.asynchronous and negated.bytes == tiles


def test_an_asynchronous_slice_is_a_slice() -> None:
    vmem = "f32[8,128]{1,0:T(8,128)S(1)}"
    lines = (
        f"  %s = ((f32[16,128]{{1,0:T(8,128)}}), {vmem}, u32[]{{:S(2)}}) slice-start(%x), slice={{[0:8], [0:128]}}",
        f"  ROOT %d = {vmem} slice-done(%s)",
    )
    (found,) = count(entry(*lines, parameters="f32[16,128]{1,0:T(8,128)}")).executed
    assert found.asynchronous and found.bytes == 8 * 128 * 4


def test_a_fusion_reads_nothing_of_what_is_in_vmem() -> None:
    inside = """%inside (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %n = f32[8,128]{1,0:T(8,128)} negate(%p)
}

"""
    line = fusion("f32[8,128]{1,0:T(8,128)}", "%x")
    assert count(inside + entry(line, parameters="f32[8,128]{1,0:T(8,128)S(1)}")).bytes == 4096
    assert count(inside + entry(line, parameters="f32[8,128]{1,0:T(8,128)}")).bytes == 8192


def test_a_product_of_a_library_has_a_workspace_that_does_not_count() -> None:
    axes = '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}'
    lines = (
        "  %w = bf16[100,30]{1,0} parameter(1)",
        '  %c = (f32[10,30]{1,0}, s8[4194304]{0}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul", '
        f'backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{axes}}}}}',
    )
    (found,) = count(entry(*lines, parameters="bf16[10,100]{1,0}")).executed
    assert found.bytes == 2000 + 6000 + 1200
    assert found.operations == Operations(2 * 10 * 30 * 100, 0)


def test_an_array_that_a_kernel_is_given_twice_is_read_once() -> None:
    kernel = '  ROOT %k = f32[10]{0} custom-call(%x, %x, %x), custom_call_target="__gpu$xla.gpu.triton"'
    assert count(entry(kernel)).bytes == 4040


def test_kernels_that_are_not_known_are_told() -> None:
    known, other = '  %k = f32[10]{0} custom-call(%x), custom_call_target="', '"'
    found = count(entry(known + "__gpu$xla.gpu.triton" + other, known.replace("%k", "%o") + "MyOwn" + other))
    assert found.bytes == 2 * 4040 and found.unknown_calls == ("MyOwn",) and found.silent_kernels == 2
    assert found.doubts[0].startswith("MyOwn: not known") and found.doubts[1].startswith("2 kernels do not tell")


@pytest.mark.parametrize(("precision", "kind"), [("", "rounded"), (", operand_precision={highest,highest}", "precise")])
def test_operations_of_a_batched_dot(precision: str, kind: str) -> None:
    axes = "lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}"
    lines = (
        "  %w = f32[7,100,30]{2,1,0} parameter(1)",
        f"  ROOT %d = f32[7,10,30]{{2,1,0}} dot(%x, %w), {axes}{precision}",
    )
    (found,) = count(entry(*lines, parameters="f32[7,10,100]{2,1,0}")).executed
    assert found.operations == Operations(**{kind: 2 * 7 * 10 * 30 * 100})


def test_pairs_of_a_window_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        outputs, window, length, stride, dilation, spacing = (int(n) for n in rng.integers(1, 9, 6))
        padding = int(rng.integers(-3, 9))
        at = np.arange(outputs)[:, None] * stride + np.arange(window) * dilation - padding
        counted = np.count_nonzero((at >= 0) & (at <= (length - 1) * spacing) & (at % spacing == 0))
        assert _pairs((outputs, window, length), stride, dilation, spacing, padding) == counted
    many = 1 << 17
    assert _pairs((many, many, many), many - 1, 1, many, 0) == many, "in no time"


@pytest.mark.parametrize(
    ("x", "w", "result", "how", "count_"),
    [
        ("[16,100]", "[100,30]", "[16,30]", "dim_labels=bf_io->bf", 16 * 30 * 100),
        # eight products [16, 100] x [100, 30], written as a convolution along them: of 8 x 8 pairs 8 are on the diagonal
        (
            "[8,16,100]",
            "[8,100,30]",
            "[8,16,30]",
            "window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
            8 * 16 * 30 * 100,
        ),
        # 3 x 3 on 5 x 5 with a border of zeros: at the edges two of three fall on numbers
        ("[2,5,5,4]", "[3,3,4,6]", "[2,5,5,6]", "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f", 2 * 6 * 4 * 13**2),
    ],
)
def test_operations_of_a_convolution(x: str, w: str, result: str, how: str, count_: int) -> None:
    lines = f"  %w = bf16{w} parameter(1)", f"  ROOT %c = bf16{result} convolution(%x, %w), {how}"
    (found,) = count(entry(*lines, parameters=f"bf16{x}")).executed
    assert found.operations.rounded == 2 * count_


@pytest.mark.parametrize(("which", "products"), [("fmhaSoftmax", 2), ("fmhaSoftmaxBackward", 5)])
def test_operations_of_cudnns_attention(which: str, products: int) -> None:
    scores = '{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["3","12","99","99"]}}'
    line = (
        f'  ROOT %c = (bf16[3,12,99,64], u8[0]) custom-call(%x, %x), custom_call_target="__cudnn${which}", '
        f'backend_config={{"cudnn_fmha_backend_config":{scores}}}'
    )
    (found,) = count(entry(line, parameters="bf16[3,12,99,64]{3,2,1,0}")).executed
    assert found.operations.rounded == 2 * products * 3 * 12 * 99 * 99 * 64


def test_a_product_that_does_not_tell_its_axes_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not tell its axes"):
        count(entry("  ROOT %d = f32[10]{0} dot(%x, %x)"))
