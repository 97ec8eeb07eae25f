"""Whether labels say anything: looked at before a run begins, because training on void alone raises no error."""

from __future__ import annotations

import dataclasses

import numpy as np

from scarce_jax.data.schema import FIELD_WORDS, IGNORE, LABEL_FIELDS
from scarce_jax.errors import InputError, plural
from scarce_jax.recipe import Source, Stage, Train, sources
from scarce_jax.training.inputs import Inputs


def check_labels(stage: Stage, inputs: Inputs) -> None:
    """Checks what a stage reads and what it measures on, as far as that is known before any stage ran.

    Reads masks until enough classes were seen, which are usually in the first.

    Raises:
      InputError: a source has no image; a net learns from fine masks of less than two classes (of none if the dataset
        has one), from coarse masks without a labelled pixel, or from tags without a class; or a split that is measured
        during the training has no labelled pixel.
    """
    for source in sources(stage).values():
        if not inputs.known(source):
            continue
        try:
            inputs.ids(source)
        except InputError as error:
            raise InputError(f"{stage.name}: {error}") from error
        if isinstance(stage, Train):
            _check_learnt(stage.name, source, inputs)
    for evaluation in stage.evals if isinstance(stage, Train) else ():
        source = evaluation.source
        if lack := without_truth(source, inputs):
            raise InputError(
                f"{stage.name}: split {source.dataset}/{source.split} {lack}, so nothing can be measured during the "
                f"training; choose another split with --eval-split, or --eval-split None to train without "
                f"measuring"
            )
        if inputs.known(source):
            inputs.ids(source)


def _check_learnt(stage: str, source: Source, inputs: Inputs) -> None:
    """Raises InputError if neither the masks nor the tags of a source tell classes apart."""
    reader = inputs.reader(source.dataset, source.split)
    ids, classes = inputs.ids(source), reader.info.classes
    if source.labels and all(label in LABEL_FIELDS for label in source.labels):
        fields = [inputs.label(source, label) for label in source.labels]
        # A coarse mask may mark nothing but one kind of object.
        needed = min(2, len(classes)) if "fine" in source.labels else 1
        seen: set[int] = set()
        for example_id in ids:
            example = reader.read(reader.index[example_id])
            mask = next(value for field in fields if (value := field.get(example)) is not None)
            seen |= set(np.unique(mask[mask != IGNORE]).tolist())
            if len(seen) >= needed:
                return
        kind = " or ".join(FIELD_WORDS[label] for label in source.labels)
        lack = f"shows another class than {classes[seen.pop()]}" if seen else "has a labelled pixel: all are void (255)"
    elif "tags" in source.fields and not reader.tags[[reader.index[i] for i in ids]].any():
        kind, lack = FIELD_WORDS["tags"], "names a class"
    else:
        return
    raise InputError(
        f"{stage}: no {kind} of the {plural(len(ids), 'image')} of {source.dataset}/{source.split} "
        f"({source.ids_in_words}) {lack}, so there is nothing to learn; look at them with `scarce-jax check "
        f"{source.dataset}`, or choose other images with --budget.fine, --budget.seed or --train-split"
    )


def without_truth(source: Source, inputs: Inputs) -> str:
    """Why no prediction can be measured against the masks of a source, in words; "" if it can."""
    if "fine" not in source.labels:
        return ""
    reader = inputs.reader(source.dataset, source.split)
    if not reader.has["fine"].any():
        return "has no fine mask"
    if inputs.known(source):
        images = inputs.ids(dataclasses.replace(source, labels=()))
        if reader.lacking["fine"].issuperset(images):
            return f"has no fine mask of its {plural(len(images), 'image')} of {source.ids_in_words}"
    return "" if any(reader.pixels) else "has no labelled pixel in its fine masks (all are void, 255)"
