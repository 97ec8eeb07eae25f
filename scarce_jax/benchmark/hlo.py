"""The kernels of a compiled GPU program: what each reads, writes and computes.

They are read from the program's text, `jax.stages.Compiled.as_text()`: optimised HLO, in the order in which the
instructions run. Each instruction that is not free (`hlo_text.FREE`) is one kernel, or one call of a library.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from scarce_jax.benchmark.hlo_text import (
    ARRAY,
    BYTES,
    Instruction,
    called,
    element_type,
    is_free,
    layer,
    numbers,
    parse,
    shape_of,
    size,
)

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")

WHOLE = "slice", "dynamic-slice", "gather"
"""Of an array that only these read, a fused kernel reads no more entries than they return."""

ENTRYWISE = "bitcast", "convert", "copy", "reshape", "transpose"
"""Entries of these are computed where they are read, and from one entry each."""

SINGLE = {"transpose": "transpose", "convolution": "convolution", "dot": "matrix product"}
"""Category of an instruction that is a kernel by itself."""

FUSED = {
    "scatter": "scatter", "dot": "matrix product", "convolution": "convolution", "reduce": "reduction",
    "reduce-window": "pooling", "gather": "gather", "concatenate": "concatenation", "pad": "padding",
    "transpose": "transpose", "copy": "copy",
}  # fmt: skip
"""Category of a fused kernel that has such an instruction; of several, the first."""

LABELS = re.compile(r"dim_labels=\w+->(\w+)")
"""What the axes of a convolution's result are: "b" batch, "f" channels, digits height and width."""


class Products(NamedTuple):
    """The convolutions or matrix products of a kernel; the attributes are those of `Kernel`."""

    flops: int = 0
    unit: str = "bfloat16"
    window: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel, or one call of a library, per run of the program.

    Attributes:
      name: name of its instruction, which profiles call `hlo_op`.
      category: what it is, such as "convolution", "kernel gradient", "reduction" or "all-reduce".
      phase: "forward", "backward", or "other" (augmentation, optimizer, metrics).
      layer: path of the module that it belongs to, such as "DSNet/backbone/stem/conv"; "" if it is in none.
      result: type of its result, as in HLO.
      read: bytes that it reads; of an array that it only slices, those of the slices.
      written: bytes that it writes; of an array that it updates in place, those of the update.
      flops: floating-point operations of its convolutions and matrix products (2 for each product, products with
        padding included); 0 for all else.
      unit: what computes the products: "bfloat16" (and float16), "tf32", or "float32" for products of the highest
        precision.
      window: (height, width) of a convolution's window; None without one.
      runs: how often it runs: the number of trips of the loops around it.
      beside: of a collective, how many of the kernels that follow may run before it has ended.
    """

    name: str
    category: str
    phase: str
    layer: str
    result: str
    read: int
    written: int
    flops: int = 0
    unit: str = "bfloat16"
    window: tuple[int, ...] | None = None
    runs: int = 1
    beside: int = 0

    @property
    def bytes(self) -> int:
        """Bytes read and written in one run."""
        return self.read + self.written

    @property
    def collective(self) -> bool:
        """Whether it moves data between devices."""
        return self.category in COLLECTIVES


def kernels(text: str) -> list[Kernel]:
    """Every kernel of a program, in its order.

    Args:
      text: scheduled HLO. Of a conditional, the branch counts that moves the most bytes; a loop whose number of trips
        is not known counts as one trip.
    """
    computations, entry = parse(text)
    return list(_kernels(entry, computations, 1))


def _kernels(name: str, computations: Mapping[str, list[Instruction]], runs: int) -> Iterator[Kernel]:
    types = {instruction.name: instruction.type for instruction in computations[name]}
    beside = _beside(computations[name])
    for instruction in computations[name]:
        opcode = instruction.opcode
        if is_free(instruction):
            continue
        if opcode == "while":
            # The kernel of its condition moves a few bytes, and is left out.
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes)
            (body,) = called(instruction, "body")
            yield from _kernels(body, computations, runs * (int(trips[1]) if trips else 1))
        elif opcode == "conditional":
            names = called(instruction, "branch_computations") or [
                *called(instruction, "true_computation"),
                *called(instruction, "false_computation"),
            ]
            branches = [list(_kernels(branch, computations, runs)) for branch in names]
            yield from max(branches, key=lambda branch: sum(kernel.bytes * kernel.runs for kernel in branch))
        elif opcode in ("call", "async-start"):
            for callee in called(instruction, "to_apply") + called(instruction, "calls"):
                yield from _kernels(callee, computations, runs)
        else:
            kernel = _kernel(instruction, types, computations, runs)
            yield dataclasses.replace(kernel, beside=beside.get(instruction.name, 0))


def _beside(body: list[Instruction]) -> dict[str, int]:
    """Name of each asynchronous instruction -> number of kernels between its start and its end."""
    began: dict[str, int] = {}
    beside, kernels = {}, 0
    for instruction in body:
        if instruction.opcode.endswith("-done"):
            (start,) = instruction.operands
            beside[start] = kernels - began[start]
        kernels += not is_free(instruction)
        began[instruction.name] = kernels
    return beside


def _kernel(
    instruction: Instruction, types: Mapping[str, str], computations: Mapping[str, list[Instruction]], runs: int
) -> Kernel:
    operands = [types[name] for name in instruction.operands]
    opcode = instruction.opcode.removesuffix("-start")
    named = re.search(r'op_name="([^"]*)"', instruction.attributes)
    op_name = named[1] if named else ""
    phase = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else "other"
    read, written = sum(map(size, operands)), size(instruction.type)
    products = Products()
    if opcode == "fusion":
        (callee,) = called(instruction, "calls")
        body = computations[callee]
        read, written = _fused_reads(body), _fused_writes(body)
        inner = {part.name: part.type for part in body}
        parts = [_products(part, [inner[name] for name in part.operands]) for part in body]
        largest = max(parts, key=lambda part: part.flops)
        products = largest._replace(flops=sum(part.flops for part in parts))
        category = _fusion_category(body)
    elif opcode == "custom-call":
        products = _products(instruction, operands)
        # The second part of the result is scratch memory.
        written = size(ARRAY.search(instruction.type)[0]) if products.flops else written
        category = _library_category(instruction, phase, products.window)
    elif opcode in COLLECTIVES or opcode == "copy":
        # The result of an asynchronous one holds its operands too.
        written, category = read, opcode
    elif opcode == "dynamic-update-slice":
        read, written, category = size(operands[1]), size(operands[1]), "elementwise"
    elif opcode in WHOLE:
        read, category = written, "gather"
    else:
        products = _products(instruction, operands)
        category = SINGLE.get(opcode, "elementwise")
    name, result = instruction.name, instruction.type
    return Kernel(name, category, phase, layer(op_name), result, read, written, *products, runs)


def _users(body: list[Instruction]) -> dict[str, list[Instruction]]:
    users = defaultdict(list)
    for instruction in body:
        for name in instruction.operands:
            users[name].append(instruction)
    return users


def _fused_reads(body: list[Instruction]) -> int:
    """Bytes that a fused kernel reads of its parameters."""
    users = _users(body)

    def uses(name: str) -> list[tuple[str, Instruction]]:
        """(name of what is read, what reads it), through what changes no entry but its form."""
        readers = []
        for user in users[name]:
            readers += uses(user.name) if user.opcode in ENTRYWISE and not user.root else [(name, user)]
        return readers

    total = 0
    for parameter in body:
        if parameter.opcode != "parameter":
            continue
        used, whole = uses(parameter.name), size(parameter.type)
        if used and all(user.opcode in WHOLE and user.operands[0] == name for name, user in used):
            each = BYTES[element_type(parameter.type)]
            total += min(whole, sum(each * math.prod(shape_of(user.type)) for _, user in used))
        elif not used or not all(_updates(user, name) for name, user in used):
            total += whole
    return total


def _updates(instruction: Instruction, name: str) -> bool:
    """Whether an instruction writes a part of the array `name` in place."""
    return instruction.opcode == "dynamic-update-slice" and instruction.operands[0] == name


def _fused_writes(body: list[Instruction]) -> int:
    """Bytes that a fused kernel writes."""
    named = {instruction.name: instruction for instruction in body}
    (root,) = [instruction for instruction in body if instruction.root]
    total = 0
    for result in [named[name] for name in root.operands] if root.opcode == "tuple" else [root]:
        while result.opcode == "bitcast":
            result = named[result.operands[0]]
        total += size(named[result.operands[1]].type if result.opcode == "dynamic-update-slice" else result.type)
    return total


def _products(instruction: Instruction, operands: list[str]) -> Products:
    """The products of an instruction, given the types of its operands; none unless it convolves or multiplies."""
    attributes = instruction.attributes
    labels = LABELS.search(attributes)
    if labels and instruction.opcode in ("convolution", "custom-call"):
        result = instruction.type
        # A library call has the labels of the forward convolution whatever it computes.
        kernel, output = operands[1], result
        if "BackwardFilter" in attributes:
            kernel, output = result, operands[1]
        elif "BackwardInput" in attributes:
            output = operands[0]
        channels = shape_of(output)[labels[1].index("f")]
        flops = 2 * math.prod(shape_of(kernel)) * math.prod(shape_of(output)) // channels
        window = re.search(r"window=\{size=([\dx]+)", attributes)
        return Products(flops, _unit(attributes, operands[0]), tuple(numbers(window[1])) if window else (1, 1))
    is_product = instruction.opcode == "dot" or "gemm" in attributes or "cublas" in attributes
    contracted = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([^}\]]*)', attributes)
    if is_product and contracted:
        depth = math.prod(shape_of(operands[0])[axis] for axis in numbers(contracted[1]))
        return Products(2 * math.prod(shape_of(instruction.type)) * depth, _unit(attributes, operands[0]))
    return Products()


def _unit(attributes: str, operand: str) -> str:
    """What computes products of this operand. XLA takes TF32 for float32 unless the precision is "highest"."""
    if BYTES[element_type(operand)] <= 2:
        return "bfloat16"
    return "float32" if re.search(r"\bhighest\b", attributes, re.IGNORECASE) else "tf32"


def _fusion_category(body: list[Instruction]) -> str:
    opcodes = {instruction.opcode for instruction in body}
    return next((category for opcode, category in FUSED.items() if opcode in opcodes), "elementwise")


def _library_category(instruction: Instruction, phase: str, window: tuple[int, ...] | None) -> str:
    """Category of a library call.

    A forward convolution of the backward phase is the gradient of an input; or of a kernel, if its window is larger
    than its result.
    """
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)[1]
    if "convBackwardFilter" in target:
        return "kernel gradient"
    if "convBackwardInput" in target:
        return "input gradient"
    if window is not None and "conv" in target.lower():
        if phase != "backward":
            return "convolution"
        labels = LABELS.search(instruction.attributes)[1]
        places = [length for length, label in zip(shape_of(instruction.type), labels, strict=True) if label.isdigit()]
        return "kernel gradient" if max(window) > max(places) else "input gradient"
    return "matrix product" if "gemm" in target or "cublas" in target else target
