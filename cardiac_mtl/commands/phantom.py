"""`cardiac-mtl phantom`: a cohort of phantom hearts, as one asks for it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser, positive, seed
from cardiac_mtl.phantom_files import CINES, DEFAULT_SEED, LAYOUTS, SEQUENCES, Kind, write_cohort

MOST_SCALE: Final = 32
"""Leaves a T1 map 8 x 7 pixels: none would be left at 300."""


def run(arguments: Sequence[str]) -> int:
    """Write a cohort as the command line asks."""
    parser = OptionParser(
        prog="cardiac-mtl phantom",
        description="Write phantom short-axis studies, with their exact volumes and areas.",
    )
    parser.add_argument(
        "--layout", choices=sorted(LAYOUTS), default="lvsc", help="files as in [lvsc]"
    )
    parser.add_argument("--patients", type=positive, help="how many [20; of mscmr 45, of t1 42]")
    parser.add_argument("--phases", type=positive, help="phases of each cine [20]")
    parser.add_argument("--scale", type=positive, help="divide the matrices of mscmr, t1 [1]")
    parser.add_argument(
        "--seed", type=seed, default=DEFAULT_SEED, help="same seed, same cohort [0]"
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args(arguments[1:])
    kind = LAYOUTS[options.layout].kind
    patients = options.patients or kind.patients
    value = _detail(options, kind)
    write_cohort(options.layout, options.out, patients, options.seed, **{kind.detail: value})
    say(f"{patients} patients, {kind.detail} {value}: {options.out}")
    return 0


def _detail(options: argparse.Namespace, kind: Kind) -> int:
    """Return the value of the option that the layout has, and refuse the one that it lacks."""
    for other in (CINES, SEQUENCES):
        value: int | None = getattr(options, other.detail)
        if other.detail != kind.detail and value is not None:
            raise UserError(
                f"layout {options.layout} has no {other.detail}",
                where=f"--{other.detail} {value}",
                fix="leave it out",
            )
    given: int | None = getattr(options, kind.detail)
    if kind.detail == SEQUENCES.detail and (given or 0) > MOST_SCALE:
        raise UserError(
            "leaves too few pixels of a heart",
            where=f"--scale {given}",
            fix=f"give at most {MOST_SCALE}",
        )
    return given or kind.usual
