"""Operations of the matrix products of a compiled program, from the shapes of their operands and results.

A product is written as `dot` on CPU, as `convolution` on a TPU and as a call of cuBLAS for a GPU; cuDNN's attention is
two products forward and five backward, that of this package (`models/_attention_kernels.py`) two and seven.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.planning._hlo import Instruction, Shape


@dataclass(frozen=True)
class Operations:
    """Floating-point operations, two for each pair of numbers. precise: those in full float32; rounded: all others."""

    rounded: float = 0.0
    precise: float = 0.0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.rounded + other.rounded, self.precise + other.precise)


def operations(instruction: Instruction, operands: Sequence[Instruction]) -> Operations:
    """Operations of an instruction that is a product; none for any other. operands: what makes its operands."""
    line = instruction.line
    if instruction.opcode == "dot":
        count = _contracted(instruction, operands, re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line))
    elif instruction.opcode == "convolution":
        count = _convolution(instruction, operands)
    elif 'custom_call_target="__cublas$' in line:
        count = _contracted(instruction, operands, re.search(r'"lhs_contracting_dimensions":\[([\d,"]*)\]', line))
    elif 'custom_call_target="__cudnn$fmha' in line:
        count = _cudnn_attention(instruction, operands)
    elif kernel := re.search(r'__gpu\$xla.gpu.triton.*\b(attention|attention_gradient)\)*/pallas_call"', line):
        b, n, heads, width = operands[0].shapes[0].axes  # those of queries, of keys and of values
        count = 2.0 * (2 if kernel[1] == "attention" else 7) * b * n * n * (heads // 3) * width
    else:
        stated = re.search(r'"cost_estimate":\{[^}]*"flops":"?(\d+)', line)  # by who wrote a kernel for a TPU
        count = float(stated[1]) if stated else 0.0
    full = operands and operands[0].shapes and operands[0].shapes[0].dtype == "f32"
    full = full and re.search("HIGHEST|highest|/pallas_call", line)  # no kernel of ours rounds float32
    return Operations(precise=count) if full else Operations(rounded=count)


def _contracted(instruction: Instruction, operands: Sequence[Instruction], axes: re.Match[str] | None) -> float:
    if axes is None:
        raise ValueError(f"a product that does not tell its axes: {instruction.line.strip()[:300]}")
    left = operands[0].shapes[0].axes
    return 2.0 * instruction.shapes[0].size * math.prod(left[int(n)] for n in re.findall(r"\d+", axes[1]))


def _cudnn_attention(instruction: Instruction, operands: Sequence[Instruction]) -> float:
    scores = re.search(r'"intermediate_tensor_shape":\{[^}]*?"dimensions":\[([\d,"]*)\]', instruction.line)
    if scores is None:
        raise ValueError(f"an attention that does not tell its shape: {instruction.line.strip()[:300]}")
    size = min(operands[0].shapes[0].axes[-2:])
    return 2.0 * (5 if "Backward" in instruction.line else 2) * math.prod(map(int, re.findall(r"\d+", scores[1]))) * size


def _convolution(instruction: Instruction, operands: Sequence[Instruction]) -> float:
    """Products of a window that do not fall on padding or between the numbers of a dilated operand.

    So XLA for TPU writes a batch of products, as a convolution along the batch of which all else falls away.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.line)
    if labels is None:
        raise ValueError(f"a convolution that does not tell its axes: {instruction.line.strip()[:300]}")
    of_input, of_kernel, of_output = labels.groups()
    image, kernel, output = operands[0].shapes[0], operands[1].shapes[0], instruction.shapes[0]
    count = 2.0 * _axis(output, of_output, "b") * _axis(output, of_output, "f") * _axis(kernel, of_kernel, "i")
    for number in (c for c in of_output if c.isdigit()):
        setting = {name: _setting(instruction.line, name, sum(c.isdigit() for c in of_output)) for name in _DEFAULTS}
        axis = {name: int(values[int(number)].split("_")[0]) for name, values in setting.items()}
        sizes = _axis(output, of_output, number), _axis(kernel, of_kernel, number), _axis(image, of_input, number)
        count *= _pairs(sizes, axis["stride"], axis["rhs_dilate"], axis["lhs_dilate"], axis["pad"])
    return count


def _pairs(sizes: tuple[int, int, int], stride: int, dilation: int, spacing: int, padding: int) -> int:
    """How many pairs (output o, place k in the window) fall on a number of the input, along one axis.

    sizes: of output, window and input. They fall on position o·stride + k·dilation - padding, where numbers are at 0,
    spacing, 2·spacing ...: o solves a congruence, so that a batch of 100,000 takes no 100,000² steps.
    """
    outputs, window, length = sizes
    offset = padding - np.arange(window, dtype=np.int64) * dilation  # o·stride - offset is the position
    first = np.maximum(0, -(-offset // stride))
    last = np.minimum(outputs - 1, ((length - 1) * spacing + offset) // stride)
    common = math.gcd(stride, spacing)
    every = spacing // common
    start = offset // common * pow(stride // common, -1, every) % every
    found = np.maximum((last - start) // every - (first - 1 - start) // every, 0)
    return int(found[offset % common == 0].sum())


_DEFAULTS = {"pad": "0_0", "stride": "1", "lhs_dilate": "1", "rhs_dilate": "1"}


def _setting(line: str, name: str, spatial: int) -> list[str]:
    """What a convolution's window says of each spatial axis."""
    found = re.search(rf"window=\{{[^}}]*\b{name}=([\w\-]+)", line)
    return found[1].split("x") if found else [_DEFAULTS[name]] * spatial


def _axis(shape: Shape, labels: str, name: str) -> int:
    return shape.axes[labels.index(name)]
