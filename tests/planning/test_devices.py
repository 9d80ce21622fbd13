"""Machines that are not there, described in a fresh process as the command does it: quietly, and with JAX left on the CPU."""

import importlib.util
import os
import subprocess
import sys

import pytest

CODE = """
from biomedclip_jax.planning.devices import describe_devices, prepare
prepare()
from biomedclip_jax.planning._topology import parse_topology
devices = describe_devices(parse_topology("{name}"))
import jax
print(len(devices), jax.default_backend())
"""


@pytest.mark.parametrize(
    ("name", "package", "count"),
    [
        ("v5e:4x4", "libtpu", 16),
        ("v4:4x4x4", "libtpu", 64),
        ("a100:2x8", "jax_cuda12_plugin", 16),
        ("h200:1x8", "jax_cuda12_plugin", 8),
    ],
)
def test_nothing_is_printed_and_every_chip_is_one_device(name: str, package: str, count: int) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'jax[tpu]' or 'jax[cuda12-local]'")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "TPU_", "TF_", "XLA_"))}
    code = CODE.format(name=name)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(count), "cpu"] and done.stderr == ""
