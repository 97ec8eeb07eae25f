"""The ranges of settings: annotations of the fields of configs, and the one function that checks them.

A field says which values it takes by its type alone, such as `lr: Positive` or `size: tuple[Pixels, Pixels]`. Every
number has a smallest and a largest value, so nan and infinity are in none of the ranges. Rules between fields are in a
method `faults` of the dataclass, which yields pairs (field, what is expected of it).
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import DocInfo, Interval, MinLen, MultipleOf

from scarce_jax.errors import InputError

MANY = 2**31 - 1
"""The largest number of steps: the number of a step is an int32 on the devices."""

Count = Annotated[int, Interval(ge=1, le=MANY)]
CountOrZero = Annotated[int, Interval(ge=0, le=MANY)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
Batch = Annotated[int, Interval(ge=1, le=2**16)]
Pixels = Annotated[int, Interval(ge=1, le=2**14)]
"""The side of an image or a window. An RGB image of 2**14 x 2**14 takes 3.2 GB as float32."""
Channels = Annotated[int, Interval(ge=1, le=2**16)]
Width = Annotated[int, Interval(ge=1, le=2**14)]
"""The channels by which all layers of a net scale."""
Few = Annotated[int, Interval(ge=1, le=255)]
Workers = Annotated[int, Interval(ge=0, le=1024)]

Positive = Annotated[float, Interval(gt=0, le=1e12)]
NonNegative = Annotated[float, Interval(ge=0, le=1e12)]
Share = Annotated[float, Interval(ge=0, le=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
AboveOne = Annotated[float, Interval(gt=1, le=1e12)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
InsideOne = Annotated[float, Interval(gt=0, lt=1)]


def check(settings: Any, path: str = "") -> None:
    """Checks the types and ranges of all fields of a dataclass, those of dataclasses in it, and their `faults`.

    Annotations that are not made of dataclasses, numbers, text, `Literal`, tuples, dicts, unions and None are not
    checked, nor is the content of dicts.

    Args:
      settings: an instance of a dataclass, such as a method's config.
      path: dotted path of the dataclass itself; its fields are named as flags below it.

    Raises:
      InputError: a value has the wrong type or is out of its range; the message begins with the flag of the field and
        the value, such as "--segmenter.optim.lr -0.1: expected a number above 0".
    """
    for name, annotation in annotations(type(settings)).items():
        # A field whose flag has no name of its own, such as `kind` of a net's config: its flag is that of the net.
        unnamed = any(getattr(mark, "name", None) == "" for mark in split(annotation)[1])
        _check_value(getattr(settings, name), annotation, path if unnamed else _join(path, name))
    for name, expected in getattr(settings, "faults", tuple)():
        value = settings
        for part in name.split("."):
            value = getattr(value, part)
        raise _error(_join(path, name), value, expected)


def annotations(kind: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass, resolved."""
    return {field.name: _hints(kind)[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, which may be annotated as a whole; a single type is its own only member."""
    base, marks = split(annotation)
    if isinstance(base, types.UnionType) or typing.get_origin(base) is typing.Union:
        return tuple(option for member in typing.get_args(base) for option in options(member))
    return (annotation,) if marks else (base,)


def split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type of an annotation, and its marks."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, ()
    base, *marks = typing.get_args(annotation)
    return base, tuple(marks)


def _check_value(value: Any, annotation: Any, path: str) -> None:
    """Raises InputError unless the value is of one of the annotation's options."""
    fitting = [option for option in options(annotation) if _has_type(value, option)]
    if not fitting:
        raise _error(path, value, _all_in_words(annotation))
    (option, *_) = fitting
    base, marks = split(option)
    if dataclasses.is_dataclass(base):
        check(value, path)
    elif typing.get_origin(base) is tuple:
        members = _members(base, value)
        for index, (part, member) in enumerate(zip(value, members, strict=True)):
            try:
                _check_value(part, member, f"{path}.{index}")
            except InputError as error:
                if dataclasses.is_dataclass(split(member)[0]):
                    raise
                # A tuple of numbers is one flag.
                raise _error(path, value, in_words(option)) from error
    if not _in_range(value, marks):
        raise _error(path, value, _all_in_words(annotation))


def _has_type(value: Any, option: Any) -> bool:
    """Whether a value has the type of a single option, its range and the members of a tuple aside."""
    base, _ = split(option)
    origin = typing.get_origin(base)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(base))
    if origin is tuple:
        return isinstance(value, tuple | list) and len(_members(base, value)) == len(value)
    if base in (int, float):
        return isinstance(value, (int, float) if base is float else int) and not isinstance(value, bool)
    if base in (bool, str) or origin is dict or dataclasses.is_dataclass(base):
        return isinstance(value, origin or base)
    return value is None if base is type(None) else True


def _members(base: Any, value: Sequence[Any]) -> tuple[Any, ...]:
    """The annotations of the entries of a tuple."""
    members = typing.get_args(base)
    return (members[0],) * len(value) if members[-1] is Ellipsis else members


def _in_range(value: Any, marks: Sequence[Any]) -> bool:
    return all(_fits(value, mark) for mark in marks)


def _fits(value: Any, mark: Any) -> bool:
    if isinstance(mark, Interval):
        # Written so that nan, for which every comparison is false, is in no range.
        above = value > mark.gt if mark.gt is not None else value >= mark.ge
        return above and (value < mark.lt if mark.lt is not None else value <= mark.le)
    if isinstance(mark, MultipleOf):
        return value % mark.multiple_of == 0
    return len(value) >= mark.min_length if isinstance(mark, MinLen) else True


def _all_in_words(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(in_words(option) for option in options(annotation)))


def in_words(option: Any) -> str:
    """What a single option of an annotation takes, such as "a whole number from 1 to 65,536"."""
    base, marks = split(option)
    origin = typing.get_origin(base)
    if described := [mark.documentation for mark in marks if isinstance(mark, DocInfo)]:
        return described[0]
    if base in (int, float):
        return " ".join(["a whole number" if base is int else "a number", *map(_mark_in_words, marks)])
    if origin is Literal:
        choices = [repr(choice) if isinstance(choice, str) else str(choice) for choice in typing.get_args(base)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin is tuple:
        members = typing.get_args(base)
        several = members[-1] is Ellipsis
        count = "one or more" if any(isinstance(mark, MinLen) for mark in marks) else "any number of"
        return f"{count if several else len(members)} values, each {_all_in_words(members[0])}"
    if dataclasses.is_dataclass(base):
        return f"a {base.__name__}"
    known = {bool: "True or False", str: "text", type(None): "None"}
    return known.get(base, getattr(base, "__name__", str(base)))


def _mark_in_words(mark: Any) -> str:
    if isinstance(mark, MultipleOf):
        return f"that {mark.multiple_of} divides"
    if not isinstance(mark, Interval):
        return ""
    if mark.ge is not None and mark.le is not None:
        return f"from {_number(mark.ge)} to {_number(mark.le)}"
    low = f"above {_number(mark.gt)}" if mark.gt is not None else f"of at least {_number(mark.ge)}"
    high = f"below {_number(mark.lt)}" if mark.lt is not None else f"at most {_number(mark.le)}"
    return f"{low} and {high}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _error(path: str, value: Any, expected: str) -> InputError:
    flag = "--" + path.replace("_", "-")
    if dataclasses.is_dataclass(value):
        return InputError(f"{flag}: expected {expected}")
    return InputError(f"{flag} {_shown(value)}: expected {expected}")


def _shown(value: Any) -> str:
    """A value as it is written after its flag."""
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value)) or "(empty)"
    return repr(value) if isinstance(value, str) else str(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
