"""How the user says a source folder is to be read."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the content of a source folder does not say by itself; the flags of `prepare`.

    Attributes:
      format: a name of `FORMATS`, or "auto".
      images: a folder of images, where they do not lie in the source.
      masks: a folder of masks; with `images`, and without a format, the two are the source.
      coarse: a folder of coarse masks, beside `masks`.
      classes: a file of classes, in place of the source's own.
      val: share of the images with masks that become the split val, such as "0.2", or a file that lists them.
    """

    format: str = "auto"
    images: str | os.PathLike[str] | None = None
    masks: str | os.PathLike[str] | None = None
    coarse: str | os.PathLike[str] | None = None
    classes: str | os.PathLike[str] | None = None
    val: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the command line that give these options."""
        values = {name: getattr(self, name) for name in ("format", "images", "masks", "coarse", "classes", "val")}
        for name in ("images", "masks", "coarse", "classes", "val"):
            path = self.path(name)
            if path is not None and path.exists():
                values[name] = path.absolute()
        return tuple(
            f"--{name} {shlex.quote(str(value))}" for name, value in values.items() if value not in (None, "auto")
        )

    def check_command(self, source: str | os.PathLike[str]) -> str:
        """The command that checks the files of a source that is read so."""
        flags = self.flags
        if self.masks is None:
            flags = (f"--source {shlex.quote(str(source))}", *flags)
        else:
            flags = tuple(flag for flag in flags if not flag.startswith(("--format", "--val")))
        return " ".join(("scarce-jax check", *flags))

    @property
    def others(self) -> tuple[pathlib.Path, ...]:
        """The files and folders that they name, and that exist."""
        paths = (self.path(name) for name in ("images", "masks", "coarse", "classes", "val"))
        return tuple(path for path in paths if path is not None and path.exists())

    def path(self, field: str) -> pathlib.Path | None:
        """The path of a field, with the home folder in place of "~"; None where it is not set."""
        value = getattr(self, field)
        return None if value is None else pathlib.Path(value).expanduser()
