"""A stage's fingerprint moves with every field that can change what the stage leaves, and with no other."""

import collections
import copy
import dataclasses
import functools
import json
import runpy
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import methods
from scarce_jax.data.datasets import KNOWN
from scarce_jax.errors import InputError
from scarce_jax.methods.auxiliary.judge import PseudoLabels, TrustedScores
from scarce_jax.methods.inputs import Augmented, unaugmented
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusDetailer
from scarce_jax.models.resnet import ResNet
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.ranges import check
from scarce_jax.recipe import Artifact, Epochs, Eval, Infer, Mean, Part, Records, Source, Train
from scarce_jax.training import fingerprint as fp
from tests import tiny

CONFIGS = sorted((tiny.ROOT / "configs").glob("*.py"))


def other_function(*args):
    """Stands in the place of any function."""


def variants(value, path=""):
    """(path, value with one leaf changed), for every leaf of nested dataclasses, modules, mappings and tuples."""
    if isinstance(value, nn.Module) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        fields = [f.name for f in dataclasses.fields(value)]
        if isinstance(value, nn.Module):
            fields = [name for name in fields if name not in ("parent", "name")]
        if not fields:
            yield f"{path}()", {Mean: Records(), Records: Mean()}.get(type(value), other_function)
        for name in fields:
            for where, changed in variants(getattr(value, name), f"{path}.{name}"):
                # Past any check of values: the fingerprint must move with what it is given.
                twin = copy.copy(value)
                object.__setattr__(twin, name, changed)
                yield where, twin
    elif isinstance(value, Mapping):
        for key, part in value.items():
            for where, changed in variants(part, f"{path}.{key}"):
                yield where, {**value, key: changed}
    elif isinstance(value, tuple):
        for k, part in enumerate(value):
            for where, changed in variants(part, f"{path}.{k}"):
                yield where, (*value[:k], changed, *value[k + 1 :])
        yield f"{path}+", (*value, "further")
    elif isinstance(value, jax.ShapeDtypeStruct):
        yield f"{path}()", jax.ShapeDtypeStruct((*value.shape, 1), value.dtype)
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int | float):
        yield path, value + 1
    elif isinstance(value, str):
        yield path, f"{value}_"
    elif value is None:
        yield path, Artifact(stage="label_maps", name="label") if path == ".inferred" else 1
    elif isinstance(value, functools.partial):
        yield f"{path}.func", functools.partial(other_function, *value.args, **value.keywords)
        for where, changed in variants(value.keywords, path):
            yield where, functools.partial(value.func, *value.args, **changed)
    elif isinstance(value, np.ndarray | np.generic):
        yield path, np.asarray(value) + 1
    elif callable(value) and hasattr(value, "__qualname__") and not isinstance(value, type):
        yield path, other_function
    else:
        yield path, jnp.bfloat16 if jnp.dtype(value) == jnp.float32 else jnp.float32


def fingerprint(stage):
    anything = collections.defaultdict(lambda: "same")
    steps = getattr(stage, "steps", None)
    description = fp.describe(
        stage,
        # As the runner resolves them.
        steps=str(steps) if isinstance(steps, Epochs) else steps,
        seed=0,
        versions=anything,
        roles=dict.fromkeys(("fine", "coarse", "tags", "unlabelled"), "ids"),
        fingerprints=anything,
        origins={},
    )
    return fp.fingerprint(json.loads(json.dumps(description)))


def without_effect(stage, path):
    """Whether a field can change nothing that the stage leaves, or the result measures."""
    if path.endswith((".resident", ".ids.flag")):
        return True
    if isinstance(stage, Train):
        if path.startswith(".evals."):
            _, _, index, field = path.split(".", 3)
            # A measurement decides nothing until it is given a metric to keep the best of.
            if stage.evals[int(index)].keep_best is None:
                return field != "keep_best"
            return field in ("name", "source.batch", "no_window")
        return path == ".remat" or (path == ".name" and stage.keys_as is not None)
    if path == ".source.batch":
        return not (isinstance(stage, Infer) and stage.per_batch)
    if isinstance(stage, Infer):
        return path == ".name" or path.startswith(".status")
    return path in (".name", ".every", ".keep_best", ".patience", ".no_window")


def recipes():
    for path in CONFIGS:
        config = dataclasses.replace(runpy.run_path(str(path))["config"], compare=True)
        info = KNOWN.get(config.dataset, KNOWN["scenes"])
        method = methods.by_name(methods.name_of(config))
        yield method.recipe(config, info)
        if hasattr(config, "decoupled"):
            yield method.recipe(tiny.replaced(config, "decoupled", reestimate=2), info)


def test_every_field_of_every_stage_moves_the_fingerprint_exactly_where_the_result_can():
    seen, counted = set(), collections.Counter()
    for recipe in recipes():
        for stage in (*recipe.stages, *recipe.results.values()):
            changes = list(variants(stage))
            # Stages of the same fields with other values say nothing new.
            kind = (type(stage), stage.name, tuple(path for path, _ in changes))
            if kind in seen:
                continue
            seen.add(kind)
            before = fingerprint(stage)
            for path, changed in changes:
                if path == ".evals+":
                    continue
                moved = fingerprint(changed) != before
                assert moved != without_effect(stage, path), f"{stage.name}{path}: moved is {moved}"
                counted[moved] += 1
    assert len(seen) > 40 and counted[True] > 4_000 and counted[False] > 200, (len(seen), counted)


def test_a_measurement_that_decides_what_is_kept_is_part_of_its_stage():
    stage = tiny.stage(eval_every=2, keep_best="miou", patience=3)
    config = tiny.supervised_config(**{key: stage[key] for key in ("eval_every", "keep_best", "patience")})
    (stage,) = methods.by_name("supervised").recipe(config, KNOWN["scenes"]).stages
    before = fingerprint(stage)
    still = {".evals.0.name", ".evals.0.source.batch", ".evals.0.source.resident", ".evals.0.no_window"}
    for path, changed in variants(stage):
        if path.startswith(".evals.0"):
            assert (fingerprint(changed) != before) == (path not in still), path


def test_a_part_is_described_and_its_absence_is_not():
    source = Source(dataset="d", split="s", batch=1, transform=unaugmented)
    assert "part" not in fp.plain(source)
    stage = Infer(name="i", nets={}, predict=other_function, source=source)
    parts = [Part(share=0.1, seed=0, held_out=held) for held in (True, False)]
    given = [stage, *(dataclasses.replace(stage, source=dataclasses.replace(source, part=part)) for part in parts)]
    assert len(set(map(fingerprint, given))) == 3
    for path, changed in variants(given[1]):
        if ".part" in path:
            assert fingerprint(changed) != fingerprint(given[1]), path


@pytest.mark.parametrize(
    ("make", "name", "absent", "given"),
    [
        (functools.partial(Optimizer, lr=1.0), "layer_decay", None, 0.5),
        (functools.partial(PseudoLabels, None), "flip", False, True),
        (functools.partial(TrustedScores, None), "flip", False, True),
        (functools.partial(DeepLabV3PlusDetailer, 3, ResNet(18)), "nearby_weight", 1.0, 2.0),
    ],
)
def test_a_setting_that_earlier_versions_lacked_is_described_only_where_it_is_used(make, name, absent, given):
    assert name not in fp.plain(make(**{name: absent}))
    assert fp.plain(make(**{name: given}))[name] == given


def test_what_cannot_be_compared_by_value_is_refused():
    source = Source(dataset="d", split="s", batch=1, transform=lambda row, key, consts: row)
    evaluation = Eval(name="e", predict=None, source=source)
    with pytest.raises(TypeError, match="lambda.*frozen dataclasses"):
        fingerprint(evaluation)
    closure = dataclasses.replace(source, transform=functools.partial(unaugmented))
    assert fingerprint(dataclasses.replace(evaluation, source=closure))
    crops = [Augmented(Augment(crop=(8, side))) for side in (8, 8, 9)]
    prints = [
        fingerprint(dataclasses.replace(evaluation, source=dataclasses.replace(source, transform=crop)))
        for crop in crops
    ]
    assert prints[0] == prints[1] != prints[2] and crops[0] == crops[1] != crops[2]


def test_a_stage_names_what_its_config_says_wrongly():
    with pytest.raises(InputError, match="^--segmenter.keep-best 'miou': expected None while eval_every is 0"):
        check(tiny.supervised_config(keep_best="miou"))
    with pytest.raises(InputError, match="^--segmenter.patience 2: expected None without keep_best"):
        check(tiny.supervised_config(eval_every=2, patience=2))
    config = tiny.supervised_config(eval_every=2, keep_best="map")
    with pytest.raises(InputError, match="keep_best is 'map'; expected one of miou"):
        methods.by_name("supervised").recipe(config, KNOWN["scenes"])
