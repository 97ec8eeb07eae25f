"""The result of a check, as text and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from scarce_jax.doctor.findings import Finding
from scarce_jax.errors import plural


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a check; its `str` is what the command prints.

    Attributes:
      name: what was checked.
      images, masks, coarse: number of files, or of prepared examples with that field.
      seconds: duration of the check.
      findings: problems and warnings.
      notes: what was seen and is no fault, and what could not be checked.
    """

    name: str
    images: int
    masks: int
    coarse: int
    seconds: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.certain)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that may be right."""
        return tuple(finding for finding in self.findings if not finding.certain)

    @property
    def checked(self) -> int:
        return self.images + self.masks + self.coarse

    @property
    def unlabelled(self) -> int:
        """Number of images without a fine mask, which is no fault."""
        return self.images - self.masks

    @property
    def clean(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            **{key: getattr(self, key) for key in ("checked", "images", "masks", "coarse", "unlabelled")},
            "seconds": round(self.seconds, 3),
            "problems": [finding.to_json() for finding in self.problems],
            "warnings": [finding.to_json() for finding in self.warnings],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = [plural(self.images, "image"), plural(self.masks, "mask")]
        parts += [plural(self.coarse, "coarse mask")] if self.coarse else []
        verdict = "nothing wrong"
        if self.findings:
            verdict = f"{plural(len(self.problems), 'problem')}, {plural(len(self.warnings), 'warning')}"
        head = f"Checked {plural(self.checked, 'file')} of {self.name} ({', '.join(parts)})"
        lines = [f"{head} in {self.seconds:.1f} s: {verdict}.", *map(str, (*self.problems, *self.warnings))]
        notes = self.notes
        if self.unlabelled and self.masks:
            notes = (f"{plural(self.unlabelled, 'image')} without a fine mask (unlabelled, no fault)", *notes)
        return "\n".join([*lines, *(f"Note: {note}." for note in notes)])
