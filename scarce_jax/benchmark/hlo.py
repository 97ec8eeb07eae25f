"""Reads the kernels of a compiled GPU program from its text: what each reads, writes and computes.

The text is that of `jax.stages.Compiled.as_text()`: optimised HLO, in the order in which the instructions run. Each
instruction of the entry computation that is not free (`FREE`) is one kernel, or one call of a library.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BYTES = {
    "pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
"""Element type -> bytes of an element. Types of 4 bits lie in bytes of their own."""

FREE = {
    "parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "opt-barrier", "partition-id",
    "replica-id", "add-dependency",
}  # fmt: skip
"""Instructions without a kernel."""

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")

WHOLE = "slice", "dynamic-slice", "gather"
"""Of an array that only these read, a fused kernel reads no more than what they return."""

INNER = {
    "while", "body", "cond", "closed_call", "checkpoint", "rematted_computation", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "shard_map", "pjit", "branch_0_fun", "branch_1_fun",
}  # fmt: skip
"""Scopes of an `op_name` that are no modules."""

ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
INSTRUCTION = re.compile(r"^\s*(ROOT )?%([\w.\-]+) = (.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
NAME = re.compile(r"%([\w.\-]+)")
WRAPPED = re.compile(r"^[\w<>.]+\((.*)\)$")


SINGLE = {"copy": "copy", "transpose": "transpose", "convolution": "convolution", "dot": "matrix product"}
"""Category of an instruction that is a kernel by itself."""

FUSED = {
    "scatter": "scatter", "dot": "matrix product", "convolution": "convolution", "reduce": "reduction",
    "reduce-window": "pooling", "gather": "gather", "concatenate": "concatenation", "pad": "padding",
    "transpose": "transpose", "copy": "copy",
}  # fmt: skip
"""Category of a fused kernel that has such an instruction; of several, the first."""


class Instruction(NamedTuple):
    """One line of HLO: `%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    argument: str  # The text between the parentheses: of a parameter, its number.
    attributes: str
    root: bool


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


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of every computation by its name, and the name of the entry computation."""
    computations: dict[str, list[Instruction]] = {}
    entry, body = "", None
    for line in text.splitlines():
        if body is None:
            if header := COMPUTATION.match(line):
                body = computations[header[2]] = []
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            body = None
        elif found := INSTRUCTION.match(line):
            body.append(_instruction(found[2], found[3], bool(found[1])))
    return computations, entry


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    """The instruction `name = rest`."""
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
        kind, rest = rest[:end], rest[end:].lstrip()
    else:
        kind, _, rest = rest.partition(" ")
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest, 0) - 1
    argument = rest[:end]
    return Instruction(name, kind, opcode, tuple(NAME.findall(argument)), argument, rest[end + 1 :], root)


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    raise ValueError(f"HLO: no closing parenthesis in {text[start : start + 60]!r}")


def size(kind: str) -> int:
    """Bytes of a type; of a tuple, of all its arrays."""
    return sum(BYTES[element] * math.prod(_numbers(shape)) for element, shape in ARRAY.findall(kind))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _shape(kind: str) -> list[int]:
    """Dimensions of the first array of a type."""
    return _numbers(ARRAY.search(kind)[2])


def _element(kind: str) -> str:
    """Element type of the first array of a type."""
    return ARRAY.search(kind)[1]


def _called(instruction: Instruction, attribute: str) -> list[str]:
    """The computations that an attribute names, as in `calls=%one` or `branch_computations={%one, %two}`."""
    found = re.search(rf"\b{attribute}=(%[\w.\-]+|\{{[^}}]*\}})", instruction.attributes)
    return NAME.findall(found[1]) if found else []


def _kernels(name: str, computations: Mapping[str, list[Instruction]], runs: int) -> Iterator[Kernel]:
    types = {instruction.name: instruction.type for instruction in computations[name]}
    beside = _beside(computations[name])
    for instruction in computations[name]:
        opcode = instruction.opcode
        if _is_free(instruction):
            continue
        if opcode == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes)
            (body,) = _called(instruction, "body")
            yield from _kernels(body, computations, runs * (int(trips[1]) if trips else 1))
        elif opcode == "conditional":
            names = _called(instruction, "branch_computations") or [
                *_called(instruction, "true_computation"),
                *_called(instruction, "false_computation"),
            ]
            branches = [list(_kernels(branch, computations, runs)) for branch in names]
            yield from max(branches, key=lambda branch: sum(kernel.bytes * kernel.runs for kernel in branch))
        elif opcode in ("call", "async-start"):
            for callee in _called(instruction, "to_apply") + _called(instruction, "calls"):
                yield from _kernels(callee, computations, runs)
        else:
            kernel = _kernel(instruction, types, computations, runs)
            yield dataclasses.replace(kernel, beside=beside.get(instruction.name, 0))


def _is_free(instruction: Instruction) -> bool:
    return instruction.opcode in FREE or instruction.opcode.endswith(("-done", "-update"))


def _beside(body: list[Instruction]) -> dict[str, int]:
    """Name of each asynchronous instruction -> number of kernels between its start and its end."""
    began: dict[str, int] = {}
    beside, kernels = {}, 0
    for instruction in body:
        if instruction.opcode.endswith("-done"):
            (start,) = instruction.operands
            beside[start] = kernels - began[start]
        kernels += not _is_free(instruction)
        began[instruction.name] = kernels
    return beside


def _kernel(
    instruction: Instruction, types: Mapping[str, str], computations: Mapping[str, list[Instruction]], runs: int
) -> Kernel:
    operands = [types[name] for name in instruction.operands]
    opcode = instruction.opcode.removesuffix("-start")
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    op_name = found[1] if found else ""
    phase = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else "other"
    read, written = sum(map(size, operands)), size(instruction.type)
    products = Products()
    if opcode == "fusion":
        (callee,) = _called(instruction, "calls")
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
    elif opcode in COLLECTIVES:
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
        """(name of what is read, what reads it), through changes of shape that cost nothing."""
        found = []
        for user in users[name]:
            found += uses(user.name) if user.opcode == "bitcast" and not user.root else [(name, user)]
        return found

    total = 0
    for parameter in body:
        if parameter.opcode != "parameter":
            continue
        used, whole = uses(parameter.name), size(parameter.type)
        if used and all(user.opcode in WHOLE and user.operands[0] == name for name, user in used):
            total += min(whole, sum(size(user.type) for _, user in used))
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
    if instruction.opcode in ("convolution", "custom-call") and (
        labels := re.search(r"dim_labels=(\S+?),", attributes)
    ):
        result = instruction.type
        # A library call has the labels of the forward convolution whatever it computes.
        kernel, output = operands[1], result
        if "BackwardFilter" in attributes:
            kernel, output = result, operands[1]
        elif "BackwardInput" in attributes:
            output = operands[0]
        channels = _shape(output)[labels[1].split("->")[1].index("f")]
        flops = 2 * math.prod(_shape(kernel)) * math.prod(_shape(output)) // channels
        window = re.search(r"window=\{size=([\dx]+)", attributes)
        return Products(flops, _unit(attributes, operands[0]), tuple(_numbers(window[1])) if window else (1, 1))
    is_product = instruction.opcode == "dot" or "gemm" in attributes or "cublas" in attributes
    contracted = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([^}\]]*)', attributes)
    if is_product and contracted:
        depth = math.prod(_shape(operands[0])[axis] for axis in _numbers(contracted[1]))
        return Products(2 * math.prod(_shape(instruction.type)) * depth, _unit(attributes, operands[0]))
    return Products()


def _unit(attributes: str, operand: str) -> str:
    """What computes products of this operand. XLA takes TF32 for float32 unless the precision is "highest"."""
    if BYTES[_element(operand)] <= 2:
        return "bfloat16"
    return "float32" if re.search(r"\bhighest\b", attributes, re.IGNORECASE) else "tf32"


def _fusion_category(body: list[Instruction]) -> str:
    opcodes = {instruction.opcode for instruction in body}
    return next((category for opcode, category in FUSED.items() if opcode in opcodes), "elementwise")


def _library_category(instruction: Instruction, phase: str, window: tuple[int, ...] | None) -> str:
    """Category of a library call. A forward convolution of the backward phase is the gradient of an input, or of a
    kernel if its window is larger than its result."""
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)[1]
    if "convBackwardFilter" in target:
        return "kernel gradient"
    if "convBackwardInput" in target:
        return "input gradient"
    if window is not None and "conv" in target.lower():
        if phase != "backward":
            return "convolution"
        labels = re.search(r"dim_labels=\S+?->(\w+)", instruction.attributes)[1]
        places = [length for length, label in zip(_shape(instruction.type), labels, strict=True) if label.isdigit()]
        return "kernel gradient" if max(window) > max(places) else "input gradient"
    return "matrix product" if "gemm" in target or "cublas" in target else target


def layer(op_name: str) -> str:
    """Path of the module in an `op_name` such as "jit(step)/transpose(jvp(DSNet))/backbone/stem/conv/mul"."""
    # Merged instructions, such as ".../initial/(left/bn/mul:right/bn/mul)", have what they share.
    shared, merged, _ = op_name.partition("/(")
    scopes = shared.split("/") if merged else op_name.split("/")[:-1]
    path = []
    for scope in scopes:
        function = scope.partition("(")[0]
        while inner := WRAPPED.match(scope):
            scope = inner[1]
        if function not in ("jit", "pjit") and scope.isidentifier() and scope not in INNER:
            path.append(scope)
    return "/".join(path)
