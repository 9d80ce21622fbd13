"""What kind of work an instruction of a compiled training step is, so that a count can be read.

Told by its opcode, by the functions of this package that it comes from (the program's own table of them) and by
whether its arrays have two axes of a sequence's length. Of a fusion that function counts from which most of its
numbers come.
"""

from collections import defaultdict
from collections.abc import Iterable

from biomedclip_jax.planning._collectives import KINDS
from biomedclip_jax.planning._hlo import Instruction, Shape
from biomedclip_jax.planning._traffic import Executed

DENSE = "products, dense"
ATTENTION = "products, attention"
KERNELS = "attention, fused kernels"
SCORES = "attention scores: softmax, mask, dropout"
HEADS = "attention heads: bias, split, turned, padded"
RESIDUAL = "LayerNorm, residual, dropout"
MLP = "MLP: bias, activation"
STACKING = "stacking: what a scan stores and fetches"
WEIGHTS = "weights: casts, gradients, optimizer"
COPIES = "copies, casts, transposes"
PREFETCH = "copies beside the work, to on-chip memory"
COLLECTIVES = "collectives"
OTHER = "other"
CLASSES = (DENSE, ATTENTION, KERNELS, SCORES, HEADS, RESIDUAL, MLP, STACKING, WEIGHTS, COPIES, PREFETCH, COLLECTIVES, OTHER)

# The innermost of these functions that an instruction comes from tells. `test_classes_of_a_real_step` fails when one of
# them has another name.
_FUNCTIONS = {
    "attention_dropout": SCORES,
    "attention_bits": SCORES,
    "Attention.__call__": HEADS,
    "MLP.__call__": MLP,
    "LayerNorm.__call__": RESIDUAL,
    "_layer_norm_gradient": RESIDUAL,
    "dropout": RESIDUAL,
    "Block.__call__": RESIDUAL,
    "promote_dtype": WEIGHTS,
    "Optimizer.update": WEIGHTS,
    "read_blocks": STACKING,
    "encode_in_microbatches": STACKING,
}
_PRODUCT = ("_product", "product")  # of a dense layer
_MOVES = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy", "copy-start", "transpose", "reshape"),
    *("slice", "slice-start", "dynamic-slice", "dynamic-slice-start", "concatenate", "pad", "convert", "broadcast"),
    *("dynamic-update-slice", "dynamic-update-slice-start", "fusion"),
}


def class_of(executed: Executed, lengths: Iterable[int]) -> str:
    """The class of an instruction, one of `CLASSES`. lengths: tokens of the sequences that the step computes."""
    instruction = executed.instruction
    inside = tuple(i for i in executed.inside if i.opcode.removesuffix("-start") not in KINDS)
    if len(inside) < len(executed.inside) and _only_moves(inside):  # on a TPU others may work beside it
        return COLLECTIVES
    if executed.asynchronous:
        return PREFETCH
    if instruction.opcode == "custom-call" and "/pallas_call" in instruction.line:
        return KERNELS if "Attention.__call__" in instruction.functions else OTHER
    if executed.operations.rounded or executed.operations.precise:
        at_work = [i for i in inside if i.opcode in ("dot", "convolution", "custom-call")]
        return ATTENTION if any(_of_attention(i) for i in at_work) else DENSE
    if instruction.opcode == "custom-call":
        return KERNELS if "Attention.__call__" in instruction.functions else _function_class(inside)
    scores = any(_is_scores(shape, lengths) for i in inside for shape in i.shapes)
    found = _function_class(inside)
    if _only_moves(inside):
        if executed.in_place or found == STACKING or not instruction.operands:  # the last fills a stack with zeros
            return STACKING
        return SCORES if scores else found if found in (WEIGHTS, HEADS) else COPIES
    if found == STACKING:  # what a scan adds up are gradients of its weights
        return WEIGHTS
    return SCORES if scores and found in (HEADS, SCORES, OTHER) else found


def _only_moves(inside: tuple[Instruction, ...]) -> bool:
    """Whether numbers are only copied, but for single ones such as indices."""
    return all(i.opcode in _MOVES for i in inside if max((s.size for s in i.shapes), default=0) > 1)


def _of_attention(product: Instruction) -> bool:
    """Whether this is a product of queries, keys, values or scores, and not one with weights."""
    if "Attention.__call__" not in product.functions:
        return False
    return not any(name in _PRODUCT for name in product.functions[product.functions.index("Attention.__call__") :])


def _is_scores(shape: Shape, lengths: Iterable[int]) -> bool:
    """Whether an array has two axes of one sequence, perhaps padded to a multiple of eight."""
    return len(shape.axes) > 2 and any(sum(n <= axis < n + 8 for axis in shape.axes) > 1 for n in lengths)


def _function_class(inside: tuple[Instruction, ...]) -> str:
    """The class of the function from which most numbers come."""
    votes: dict[str, int] = defaultdict(int)
    for instruction in inside:
        for name in reversed(instruction.functions):
            if name in _FUNCTIONS:
                votes[_FUNCTIONS[name]] += sum(shape.size for shape in instruction.shapes)
                break
        else:
            votes[OTHER] += sum(shape.size for shape in instruction.shapes) if instruction.functions else 0
    return max(votes, key=votes.__getitem__, default=OTHER)
