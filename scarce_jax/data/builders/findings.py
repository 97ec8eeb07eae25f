"""What the counts of a prepared dataset say is certainly wrong with its masks; `check` finds more."""

from __future__ import annotations

from scarce_jax.data.builders.prepared import Prepared
from scarce_jax.errors import some


def findings(prepared: Prepared) -> list[str]:
    """Returns a line for each fault: a split whose masks are all void, masks of one class, classes without a pixel."""
    info = prepared.info
    lines = []
    if not any(info.having(split, field) for split in info.splits for field in ("fine", "coarse", "tags")):
        return ["no image has a mask or tags, so that there is nothing to learn from"]
    total = [0] * len(info.classes)
    for split, (_, pixels) in prepared.occurs.items():
        if split == "val" and not info.having(split, "fine"):
            lines.append("val: no image has a fine mask, so that nothing can be measured there")
        if info.having(split, "fine") and not any(pixels):
            lines.append(f"{split}: no mask has a labelled pixel; all are void (255)")
        total = [before + count for before, count in zip(total, pixels, strict=True)]
    shown = [name for name, count in zip(info.classes, total, strict=True) if count]
    absent = [name for name, count in zip(info.classes, total, strict=True) if not count]
    if len(shown) == 1 and absent:
        lines.append(
            f"the masks show {shown[0]} alone; 255 is void: if it marks an object in your files, write the id of its "
            f"class there"
        )
    elif shown and absent:
        lines.append(f"{some(absent)}: no pixel in any mask" + (f" ({len(absent)} classes)" if len(absent) > 1 else ""))
    return lines
