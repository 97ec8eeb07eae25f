"""Instructions of a compiled GPU program, from its text: `jax.stages.Compiled.as_text()`."""

from __future__ import annotations

import math
import re
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

INNER = {
    "while", "body", "cond", "branch_0_fun", "branch_1_fun", "closed_call", "eval_jaxpr", "shard_map", "pjit",
    "checkpoint", "rematted_computation", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
"""Scopes of an `op_name` that are no modules."""

ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
INSTRUCTION = re.compile(r"^\s*(ROOT )?%([\w.\-]+) = (.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
NAME = re.compile(r"%([\w.\-]+)")
WRAPPED = re.compile(r"^[\w<>.]+\((.*)\)$")


class Instruction(NamedTuple):
    """One line of HLO: `%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


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
        elif match := INSTRUCTION.match(line):
            body.append(_instruction(match[2], match[3], bool(match[1])))
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
    return Instruction(name, kind, opcode, tuple(NAME.findall(rest[:end])), rest[end + 1 :], root)


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
    return sum(BYTES[element] * math.prod(numbers(shape)) for element, shape in ARRAY.findall(kind))


def numbers(text: str) -> list[int]:
    """The whole numbers in a text."""
    return [int(number) for number in re.findall(r"\d+", text)]


def shape_of(kind: str) -> list[int]:
    """Dimensions of the first array of a type."""
    return numbers(ARRAY.search(kind)[2])


def element_type(kind: str) -> str:
    """Element type of the first array of a type."""
    return ARRAY.search(kind)[1]


def called(instruction: Instruction, attribute: str) -> list[str]:
    """The computations that an attribute names, as in `calls=%one` or `branch_computations={%one, %two}`."""
    match = re.search(rf"\b{attribute}=(%[\w.\-]+|\{{[^}}]*\}})", instruction.attributes)
    return NAME.findall(match[1]) if match else []


def is_free(instruction: Instruction) -> bool:
    """Whether an instruction starts no kernel."""
    return instruction.opcode in FREE or instruction.opcode.endswith(("-done", "-update"))


def layer(op_name: str) -> str:
    """Path of the module in an `op_name` such as "jit(step)/transpose(jvp(DSNet))/backbone/stem/conv/mul"."""
    # Of merged instructions, what they share, as in ".../initial/(left/bn/mul:right/bn/mul)", or the first.
    shared, merged, _ = op_name.partition(";")[0].partition("/(")
    scopes = shared.split("/") if merged else shared.split("/")[:-1]
    path = []
    for scope in scopes:
        function = scope.partition("(")[0]
        while inner := WRAPPED.match(scope):
            scope = inner[1]
        if function not in ("jit", "pjit") and scope.isidentifier() and scope not in INNER:
            path.append(scope)
    return "/".join(path)
