"""What the label doctor found: faults of one kind together, as text and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

SHOWN = 3
"""Files of a finding that the JSON names; the others are counted."""


@dataclasses.dataclass(kw_only=True)
class Finding:
    """Everything wrong of one kind for one reason.

    Attributes:
      kind: short name, the same in every report.
      expected, advice: the same for every file of it.
      certain: False where it may be right: it is shown apart and does not fail the check.
      examples: the first files, each with what was found there.
      count: files (or classes, pairs of images) that it is true of.
    """

    kind: str
    expected: str
    advice: str
    certain: bool = True
    examples: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    count: int = 0

    def to_json(self) -> dict[str, Any]:
        file, found = self.examples[0]
        return {
            "kind": self.kind,
            "file": file,
            "found": found,
            "expected": self.expected,
            "advice": self.advice,
            "count": self.count,
            "files": [file for file, _ in self.examples],
        }

    def __str__(self) -> str:
        file, found = self.examples[0]
        where = f"in {file}" if self.count == 1 else f"in {self.count:,} places, first {file}"
        level = "PROBLEM" if self.certain else "WARNING"
        return f"{level} {self.kind} {where}: {found}; expected {self.expected}. To do: {self.advice}."


class Findings:
    """Collects findings; equal ones are counted, not repeated."""

    def __init__(self) -> None:
        self._found: dict[tuple, Finding] = {}

    def add(
        self, kind: str, file: object, found: str, *, expected: str, advice: str, certain: bool = True, count: int = 1
    ) -> None:
        """Adds `count` cases with one example; equal (kind, expected, advice, certain) are one finding."""
        key = (kind, expected, advice, certain)
        entry = self._found.setdefault(key, Finding(kind=kind, expected=expected, advice=advice, certain=certain))
        entry.count += count
        if len(entry.examples) < SHOWN:
            entry.examples.append((printable(file), printable(found)))

    def all(self) -> list[Finding]:
        return list(self._found.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a check gives; `str` is what the command prints.

    Attributes:
      name: what was checked.
      images, masks, coarse: files (or examples) read of each.
      unlabelled: images without a fine mask, which is no fault.
      seconds: how long it took.
      problems: what is wrong.
      warnings: what is suspicious and may be right.
      notes: what could not be checked, and why.
    """

    name: str
    images: int
    masks: int
    coarse: int
    unlabelled: int
    seconds: float
    problems: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def checked(self) -> int:
        return self.images + self.masks + self.coarse

    @property
    def clean(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "images": self.images,
            "masks": self.masks,
            "coarse": self.coarse,
            "unlabelled": self.unlabelled,
            "seconds": round(self.seconds, 3),
            "problems": [finding.to_json() for finding in self.problems],
            "warnings": [finding.to_json() for finding in self.warnings],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = [plural(self.images, "image"), plural(self.masks, "mask")]
        parts += [plural(self.coarse, "coarse mask")] if self.coarse else []
        verdict = (
            f"{plural(len(self.problems), 'problem')}, {plural(len(self.warnings), 'warning')}"
            if self.problems or self.warnings
            else "nothing wrong"
        )
        head = f"Checked {plural(self.checked, 'file')} of {self.name} ({', '.join(parts)})"
        blocks = [f"{head} in {self.seconds:.1f} s: {verdict}."]
        if self.unlabelled:
            blocks[0] += f"\n{plural(self.unlabelled, 'image')} without a fine mask (unlabelled, no fault)."
        for note in self.notes:
            blocks[0] += f"\nNote: {note}"
        blocks += [str(finding) for finding in (*self.problems, *self.warnings)]
        return "\n".join(blocks)


def plural(count: int, what: str) -> str:
    """1 image, 2 images."""
    ending = "s" if count != 1 else ""
    return f"{count:,} {what}{ending}"


def printable(text: object) -> str:
    """Text that any terminal and JSON take: bytes of a name that are no UTF-8, and control characters, escaped."""
    clean = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)
