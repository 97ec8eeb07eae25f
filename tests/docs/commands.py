"""Checks a command as the command line reads it, without running it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any
from unittest import mock

import tyro

from scarce_jax.cli import COMMANDS, common, kinds
from scarce_jax.data.builders import BUILDERS
from scarce_jax.errors import InputError, nearest
from scarce_jax.ranges import annotations
from scarce_jax.sweep.axes import combine
from tests.tiny import ROOT

CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.py"))}

ANY = (
    "supervised_scenes", "detailer_cityscapes", "auxiliary_scenes", "transfer_scenes", "decoupled_scenes",
    "three_step_scenes", "consistency_scenes", "auxiliary_cityscapes", "decoupled_voc",
)  # fmt: skip
"""Configs for which CONFIG, or a file of the reader, may stand: a command of it is right if one of these takes it."""

PLACEHOLDERS = {
    r"[NSK]": "1",
    r"F": "0.5",
    r"GPU": "h100",
    r"--FIELD": "--seed",
    r"VALUE": "1",
    r"FIELD=V1,V2": "seed=0,1",
    r"paper\.TABLE": "paper.table_1",
    r"paper\.TABLE=ROW": "paper.table_1",
}
"""Words for which the reader puts a value that a path cannot stand for, and such a value."""

NEEDED = {"predict": ("--out", "DIR"), "sweep": ("--workdir", "DIR")}
"""Flags that a mention of a command in a sentence may leave out."""


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `scarce-jax` command in a line of a shell.

    What is in square brackets may be left out, and is kept; of `a|b` the first is taken; dots and comments are dropped.
    """
    text = re.sub(r"(?<=\w)\|[\w|]+", "", re.sub(r"[][]|\.\.\.|…", " ", text))
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("();<>|&"):
            if command is not None:
                yield command
            command = None
        elif command is not None:
            command.append(word)
        elif re.fullmatch(r"(.*/)?scarce-jax", word):
            command = []


def complaint(argv: Sequence[str], *, complete: bool = True, own: Collection[str] = ()) -> str | None:
    """What is wrong with the words after `scarce-jax`, or None.

    Args:
      complete: False for a mention of a command, which may leave out what the command needs.
      own: names of fields that a page adds to configs of the reader's own.
    """
    if not argv or argv[0].startswith("-"):
        return None if complete or argv in ([], ["--version"], ["--help"]) else f"no command {argv[0]!r}"
    name, *rest = [_substituted(word) for word in argv]
    if name.isupper():
        return None
    if name not in COMMANDS:
        return f"no command {name!r}{nearest(name, COMMANDS)}"
    if not complete:
        if not rest:
            return None
        flag = NEEDED.get(name, ())
        rest += flag if flag and flag[0] not in rest else ()
    first = None
    for words in _with_config(name, rest, own):
        fault = _fault(name, tuple(words))
        if fault is None:
            return None
        first = first or fault
    return first


def _substituted(word: str) -> str:
    for pattern, value in PLACEHOLDERS.items():
        if re.fullmatch(pattern, word):
            return value
    return re.sub(r"^--STAGE\b", "--segmenter", word)


def _with_config(name: str, rest: list[str], fields: Collection[str]) -> Iterator[list[str]]:
    """The words with the path of a shipped config for its name, or each of several for a config of the reader."""
    from scarce_jax.cli import FROM_CONFIG

    takes = name in FROM_CONFIG and name not in ("check", "prepare")
    if not takes or not rest or rest[0].startswith("-"):
        yield rest
        return
    config, *flags = rest
    own = config.endswith(".py") and "/" not in config
    if (config.isupper() or own) and config[:-3] not in CONFIGS:
        for field in fields:
            # With its value. A name of one of our fields may be among them, which then goes unchecked.
            flags = [
                word for before, word in zip(["", *flags], flags, strict=False) if f"--{field}" not in (before, word)
            ]
        yield from ([str(CONFIGS[each]), *flags] for each in ANY)
    else:
        yield [str(CONFIGS.get(config[:-3] if own else config, ROOT / config)), *flags]


class _Parsed(BaseException):
    """Ends a command once its words are read."""


@functools.cache
def _fault(name: str, argv: tuple[str, ...]) -> str | None:
    module = importlib.import_module(f"scarce_jax.cli.{name}")
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        for function in ("parse", "parse_with_config"):
            if hasattr(module, function):
                stack.enter_context(mock.patch.object(module, function, _ending(getattr(common, function))))
        stack.enter_context(mock.patch.object(tyro, "cli", _quick(tyro.cli)))
        stack.enter_context(mock.patch.object(common, "load_config", _LOAD))
        stack.enter_context(mock.patch.object(kinds, "kinds_help", lambda config: ""))
        stack.enter_context(contextlib.redirect_stderr(said))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            module.main(list(argv))
        except _Parsed as parsed:
            try:
                _check_values(parsed.args[0])
            except InputError as error:
                return str(error)
            return None
        except SystemExit as error:
            return None if not error.code else re.sub(r"[\s─│╭╮╰╯]+", " ", said.getvalue()).strip()
        except InputError as error:
            return str(error)
    return f"scarce-jax {name} reads its words in another way than `parse`; teach it to {__name__}"


_LOAD = functools.cache(common.load_config)


def _ending(function: Callable[..., Any]) -> Callable[..., Any]:
    def end(*args: Any, **kwargs: Any) -> None:
        raise _Parsed(function(*args, **kwargs))

    return end


def _quick(cli: Callable[..., Any]) -> Callable[..., Any]:
    """`tyro.cli` that makes flags only of those parts of a config that the words name, for speed."""

    def run(kind: Any, *, args: Sequence[str], **kwargs: Any) -> Any:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        config = fields["config"].default if "config" in fields else None
        if not dataclasses.is_dataclass(config):
            return cli(kind, args=args, **kwargs)
        flags = [re.split(r"[.=]", word[2:])[0].replace("-", "_") for word in args if word.startswith("--")]
        named = [
            (name, annotation, dataclasses.field(default=getattr(config, name)))
            for name, annotation in annotations(type(config)).items()
            if name in flags or f"no_{name}" in flags
        ]
        part = dataclasses.make_dataclass("part", named, kw_only=True)
        options = ("options", fields["options"].type)
        both = [options, ("config", Annotated[part, common.Flat], dataclasses.field(default_factory=part))]
        parsed = cli(dataclasses.make_dataclass("both", both, kw_only=True), args=args, **kwargs)
        return kind(options=parsed.options, config=dataclasses.replace(config, **vars(parsed.config)))

    return run


def _check_values(parsed: Any) -> None:
    """Raises InputError for values that a command refuses after it has read its words."""
    _, options, config = parsed if isinstance(parsed, tuple) else (None, parsed, None)
    if hasattr(options, "prediction"):
        options.prediction.arguments()
    if hasattr(options, "over"):
        from scarce_jax.cli.sweep import parse_axis

        combine(config, dict(map(parse_axis, options.over)))
    if getattr(options, "words", ())[:1] == ("show",):
        unknown = [name for name in options.words[1:] if name not in CONFIGS and not name.isupper()]
        if unknown or len(options.words) != 2:
            raise InputError(f"configs {' '.join(options.words)}: no such config")
    dataset = getattr(config, "dataset", None) or getattr(options, "dataset", None)
    if dataset and not dataset.isupper() and ":" not in dataset and dataset not in BUILDERS:
        family, _, chosen = dataset.partition("/")
        if family not in ("folder", "imagenet") or not chosen:
            raise InputError(f"no dataset {dataset!r}{nearest(dataset, BUILDERS)}")
