"""Every setting of every method has a range, and every value outside is refused by the name of its flag."""

import dataclasses
import math
import typing

import pytest
from annotated_types import Interval

from scarce_jax import methods
from scarce_jax.config_files import from_json, to_json
from scarce_jax.data.budget import Budget
from scarce_jax.data.sampling import ClassBalance
from scarce_jax.errors import InputError
from scarce_jax.models.fields import BackboneConfig, NetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.ops.crf import PARAMETERS
from scarce_jax.optim import Group, Optimizer, Schedule
from scarce_jax.ranges import annotations, check, options, split
from scarce_jax.recipe import Views
from tests import tiny

CONFIGS = [
    tiny.supervised_config(),
    tiny.detailer_config(student=True),
    tiny.auxiliary_config(),
    tiny.transfer_config(),
    tiny.decoupled_config(compare=True),
    tiny.three_step_config(),
    methods.adversarial.Config(dataset="scenes", adversarial=tiny.auxiliary_config().adversarial),
    tiny.consistency_config(),
]


def members(annotation):
    """The single options of an annotation, those in tuples too."""
    for option in options(annotation):
        yield option
        if typing.get_origin(split(option)[0]) is tuple:
            for member in typing.get_args(split(option)[0]):
                if member is not Ellipsis:
                    yield from members(member)


def kinds_in(kind, found):
    """All dataclasses that a value of `kind` may hold, itself too."""
    if kind not in found:
        found[kind] = None
        for annotation in annotations(kind).values():
            for member in members(annotation):
                if dataclasses.is_dataclass(split(member)[0]):
                    kinds_in(split(member)[0], found)
    return found


def instances(value, found):
    """A valid value of each dataclass in `value`, by its type."""
    if dataclasses.is_dataclass(value):
        found.setdefault(type(value), value)
        for field in dataclasses.fields(value):
            instances(getattr(value, field.name), found)
    elif isinstance(value, tuple):
        for part in value:
            instances(part, found)
    return found


KINDS = {}
VALID = {}
for name in methods.NAMES:
    kinds_in(methods.by_name(name).Config, KINDS)
for value in (*CONFIGS, ClassBalance(), PARAMETERS["irn"], Augment(crop=(8, 8)), Combinatorial(crop=(8, 8))):
    instances(value, VALID)
for kind in KINDS:
    if kind not in VALID and all(field.default is not dataclasses.MISSING for field in dataclasses.fields(kind)):
        VALID[kind] = kind()

NEVER = (math.nan, math.inf, -math.inf, -1, 10**20, 1e20, "1", True, (), {})
"""No number of a config may be one of these."""


def wrong_values(annotation):
    """Values that a field of this annotation must not take."""
    single = {split(option)[0]: split(option)[1] for option in options(annotation)}
    numbers = [kind for kind in single if kind in (int, float)]
    if numbers:
        yield from (bad for bad in NEVER if not (isinstance(bad, str) and str in single))
        lowest = [mark for kind in numbers for mark in single[kind] if isinstance(mark, Interval)]
        if all(mark.gt is not None or mark.ge > 0 for mark in lowest):
            yield 0
    for base in single:
        if typing.get_origin(base) is tuple:
            first, *others = typing.get_args(base)
            if any(split(option)[0] in (int, float) for option in options(first)):
                yield from ((bad, *[1] * len(others)) for bad in NEVER)
            yield from (3, "ab", (None,))
    if bool in single:
        yield from (1, "yes")
    if any(typing.get_origin(base) is typing.Literal or dataclasses.is_dataclass(base) for base in single):
        yield from ("nonsense", 2.5, ["a"])
    if single.keys() <= {str, type(None)}:
        yield from (3, True, ("a",))


WRONG = [
    (kind, name, bad)
    for kind in VALID
    if kind in KINDS
    for name, annotation in annotations(kind).items()
    for bad in wrong_values(annotation)
]


def test_every_number_has_a_range():
    numbers = [
        (f"{kind.__name__}.{name}", member)
        for kind in KINDS
        for name, annotation in annotations(kind).items()
        for member in members(annotation)
        if split(member)[0] in (int, float)
    ]
    unbounded = []
    for name, member in numbers:
        ends = [end for mark in split(member)[1] if isinstance(mark, Interval) for end in dataclasses.astuple(mark)]
        ends = [end for end in ends if end is not None]
        if len(ends) != 2 or not all(map(math.isfinite, ends)):
            unbounded.append(name)
    assert len(numbers) > 100
    assert not unbounded, "annotate these with a type of scarce_jax.ranges"


def test_every_kind_of_settings_is_tried():
    assert KINDS.keys() <= VALID.keys()
    for value in VALID.values():
        check(value)
    assert len(WRONG) > 250 and {kind for kind, *_ in WRONG} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.split('.')[-1]}.{kind.__name__}")
def test_a_value_out_of_its_range_is_named(kind):
    for _, name, bad in (case for case in WRONG if case[0] is kind):
        nets_own = name == "kind" and issubclass(kind, NetConfig | BackboneConfig)  # `--stage.net KIND`
        flag = "--stage" if nets_own else f"--stage.{name.replace('_', '-')}"
        with pytest.raises(InputError) as caught:
            check(dataclasses.replace(VALID[kind], **{name: bad}), "stage")
        assert str(caught.value).startswith((f"{flag} ", f"{flag}.0 ")) and ": expected " in str(caught.value)


CROP = {"crop": (8, 8)}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Optimizer, {"lr": -0.1}, "--x.lr -0.1: expected a number above 0 and at most 1,000,000,000"),
        (Optimizer, {"lr": 1, "groups": (Group(), Group(lr=-1))}, "--x.groups.1.lr -1: expected a number from 0 to"),
        (Optimizer, {"lr": 1, "groups": ()}, "--x.groups (empty): expected one or more values, each a Group"),
        (Schedule, {"kind": "constant", "final": 0.5}, "--x.final 0.5: expected 0 with kind 'constant'"),
        (Schedule, {"kind": "step", "boundaries": (20, 10)}, "--x.boundaries 20 10: expected increasing steps"),
        (Schedule, {"kind": "step", "boundaries": (5,), "warmup": 5}, "increasing steps after the warm-up of 5"),
        (Schedule, {"kind": "poly", "boundaries": (5,)}, "--x.boundaries 5: expected none with kind 'poly'"),
        (Group, {"pattern": "("}, "--x.pattern '(': expected a regular expression"),
        (Budget, {"fine": 3, "per_class": 1}, "--x.per-class 1: expected None beside --budget.fine 3"),
        (Budget, {"fine": 1.0}, "above 0 and below 1 or 'all', or the path of a list"),
        (Augment, {**CROP, "scale": (2.0, 0.5)}, "--x.scale 2.0 0.5: expected the smallest factor before the largest"),
        (Augment, {**CROP, "scale": (1, 1), "scales": (1.0,)}, "--x.scales 1.0: expected no factors beside a range"),
        (Combinatorial, {**CROP, "resized": (9, 7)}, "--x.resized 9 7: expected at least the crop, 8 8"),
        (Combinatorial, {**CROP, "enlarge": (3.0, 2.0)}, "--x.enlarge 3.0 2.0: expected the smallest factor before"),
        (Views, {"scales": (1.0, 1.0)}, "--x.scales 1.0 1.0: expected different factors"),
        (Views, {"scales": ()}, "--x.scales (empty): expected one or more values"),
        (Views, {"window": (0, 4)}, "--x.window 0 4: expected 2 values, each a whole number from 1 to 16,384"),
        (VGGConfig, {"convolutions": (1, 1)}, "--x.convolutions 1 1: expected 5 values"),
    ],
)  # fmt: skip
def test_the_message_says_what_is_expected(kind, values, message):
    with pytest.raises(InputError) as caught:
        check(kind(**values), "x")
    assert message in str(caught.value)


def test_a_config_is_checked_to_its_leaves_on_its_way_to_json_and_back():
    config = tiny.supervised_config()
    values = to_json(config)
    assert from_json("supervised", values) == config
    stage = dataclasses.replace(config.segmenter, optim=Optimizer(lr=math.nan))
    with pytest.raises(InputError, match="^--segmenter.optim.lr nan: expected"):
        to_json(dataclasses.replace(config, segmenter=stage))
    values["segmenter"]["optim"]["schedule"]["warmup"] = -3
    with pytest.raises(InputError, match="segmenter.optim.schedule.warmup: .* found -3"):
        from_json("supervised", values)
    values["segmenter"]["optim"]["schedule"] = {"kind": "poly", "boundaries": [5]}
    with pytest.raises(InputError, match="^--segmenter.optim.schedule.boundaries 5: expected none"):
        from_json("supervised", values)
