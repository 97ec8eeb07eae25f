"""Attacks the library, and counts what it withstands: the figures of docs/robustness.md.

    python benchmarks/robustness.py ATTACK [--count N] [--seed S] [--minutes M] [--only NAME ...] [--out FILE]
    python benchmarks/robustness.py --write

The modules of `attacks` say what each attack does. Commands run on tiny nets and few images on the CPU, in the folder
`--work`, where a later call finds what an earlier one compiled. Two attacks at once need two folders. --write puts the
figures of the results into docs/robustness.md, and attacks nothing.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import tempfile

import attacks  # noqa: F401  sets the environment first
from common import ROOT, arguments

ATTACKS = {
    "kills": ("kills", 240),
    "signals": ("kills", 48),
    "flips": ("flips", 2000),
    "missing": ("flips", 200),
    "values": ("values", 300),
    "files": ("files", 1000),
    "formats": ("formats", 100),
}
"""Name -> module of `attacks`, and the default of --count."""


def main() -> None:
    parser = arguments(__doc__, "robustness.jsonl")
    parser.add_argument("attack", nargs="?", choices=ATTACKS)
    parser.add_argument("--count", type=int, help="kills, signals, flips, files, values, folders or formats to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after so many minutes, however many are left")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="jobs or kinds, such as 'train transfer'")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir(), "robustness"))
    parser.add_argument("--write", action="store_true", help="write the figures of --out into docs/robustness.md")
    options = parser.parse_args()
    if options.write:
        from attacks import sheet

        lines = [json.loads(line) for line in options.out.read_text().splitlines()]
        sheet.write(lines, ROOT / "docs" / "robustness.md")
    elif options.attack is None:
        parser.error(f"name an attack of {', '.join(ATTACKS)}, or --write")
    else:
        from attacks.workplace import Workplace

        module, count = ATTACKS[options.attack]
        place = Workplace(options.work, options.out, options.seed, options.minutes)
        attack = getattr(importlib.import_module(f"attacks.{module}"), options.attack)
        attack(place, options.count or count, options.only)


if __name__ == "__main__":
    main()
