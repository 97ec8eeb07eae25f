"""Attacks the library, and counts what it withstands: the figures of docs/robustness.md.

    python benchmarks/robustness.py kills [--count N] [--seed S] [--minutes M] [--only NAME ...] [--out FILE]
    python benchmarks/robustness.py --table

Attacks are kills, signals, flips, values, files and formats; the module of `attacks` says what each does. Commands run
on tiny nets and few images on the CPU, in `--work`, where a later call finds what an earlier one compiled. --table
prints the figures of the results, and attacks nothing.
"""

from __future__ import annotations

import pathlib
import tempfile

import attacks  # noqa: F401  sets the environment first
from common import arguments

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
    parser.add_argument("--count", type=int, help="kills, signals, flipped bits, values or folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after so many minutes, however many are left")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="such as 'train transfer'")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir(), "robustness"))
    options = parser.parse_args()
    import importlib

    from attacks.workplace import Workplace

    module, count = ATTACKS[options.attack]
    place = Workplace(options.work, options.out, options.seed, options.minutes)
    attack = getattr(importlib.import_module(f"attacks.{module}"), options.attack)
    attack(place, options.count or count, options.only)


if __name__ == "__main__":
    main()
