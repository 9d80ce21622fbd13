"""Names of machines, and what follows from them."""

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.planning._topology import CHIPS, GIB, cuda_target, parse_topology


@pytest.mark.parametrize(
    ("name", "chip", "devices", "neighbours"),
    [
        ("v5e:16x16", "TPU v5e", 256, 8),
        ("v4:4x4x8", "TPU v4", 128, 8),
        ("V6E:2x2", "TPU v6e", 4, 4),
        ("a100:2x8", "A100-SXM4-80GB", 16, 8),
        ("h200:1x8", "H200", 8, 8),
    ],
)
def test_names(name: str, chip: str, devices: int, neighbours: int) -> None:
    topology = parse_topology(name)
    assert (topology.chip.name, topology.devices, topology.neighbours) == (chip, devices, neighbours)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5litepod-16", r"unknown kind 'v5litepod-16'.*known are v4, v5e, v5p, v6e, a100, h100, h200"),
        ("h20:1x8", r"unknown kind 'h20'; did you mean h200\?"),
        ("v4:64", r"expected v4:NxNxN \(3 numbers of chips\)"),
        ("v5e:4x4x4", r"expected v5e:NxN \(2 numbers of chips\)"),
        ("a100:16", r"expected a100:NxN \(hosts x GPUs a host\)"),
        ("a100:0x8", r"expected a100:NxN"),
        ("v5e", r"expected v5e:NxN"),
        ("", r"unknown kind ''"),
    ],
)
def test_a_name_that_is_not_known_is_one_line_that_helps(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        parse_topology(name)
    assert "\n" not in str(error.value) and "a100:2x8" in str(error.value)


@pytest.mark.parametrize(
    ("name", "links"),
    [("v5e:16x16", 4), ("v5e:4x4", 2), ("v5e:8x16", 3), ("v4:4x4x4", 6), ("v4:2x2x1", 2), ("v5p:4x4x8", 6)],
)
def test_only_rings_use_both_links_of_an_axis(name: str, links: int) -> None:
    assert parse_topology(name).links == links


def test_the_table_is_complete_and_in_the_right_units() -> None:
    for kind, chip in CHIPS.items():
        assert 1e14 < chip.flops < 1e15 and chip.float32_flops < chip.flops / 5, kind
        assert 15 * GIB < chip.memory < 141e9 and 8e11 < chip.memory_bandwidth < 5e12, kind
        assert 4e10 < chip.link < 5e11, kind
        tpu = chip.platform == "tpu"
        assert tpu == bool(chip.axes) == bool(chip.ring) != bool(chip.host_network), kind
        assert tpu or cuda_target(chip).count("{") == cuda_target(chip).count("}"), kind
