"""Phantom hearts on disk: `cardiac-mtl phantom`, and the data of a run that was given none."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from cardiac_mtl.phantoms.cohort import make_cohort, make_infarct_cohort
from data_modules import cine, manifest, stacom
from data_modules.base import PHANTOM
from data_modules.store import cache_folder

LAYOUTS = {
    "lvsc": (stacom.write_layout, make_cohort),
    "manifest": (manifest.write_layout, make_cohort),
    "cine": (cine.write_layout, make_infarct_cohort),
}
"""How each layout is written, and the patients that suit it."""
DEFAULT_PATIENTS, DEFAULT_PHASES, DEFAULT_SEED = 20, 8, 0
VERSION = 1
"""Part of the name of a cached cohort: raise it when the phantom changes."""


def write_cohort(layout: str, out: Path, patients: int, phases: int, seed: int) -> None:
    """Write a cohort of phantom hearts in the layout of a data set.

    Args:
        layout: a key of `LAYOUTS`.
        out: folder to make; it appears whole or not at all.
        patients: number of patients.
        phases: phases of each cine.
        seed: the same seed gives the same cohort.

    Raises:
        UserError: the folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", where=f"--out {out}", fix="name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write, make = LAYOUTS[layout]
        write(making, make(patients, phases, seed))
        made = {"patients": patients, "phases": phases, "seed": seed, "version": VERSION}
        (making / PHANTOM).write_text(json.dumps(made) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        making.chmod(0o755)
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def default_cohort(layout: str) -> Path:
    """Return the phantom cohort in the user's cache folder, made on first use."""
    name = f"{layout}-{DEFAULT_PATIENTS}x{DEFAULT_PHASES}-seed{DEFAULT_SEED}-v{VERSION}"
    folder = cache_folder() / "phantoms" / name
    made = "already made"
    if not folder.is_dir():
        write_cohort(layout, folder, DEFAULT_PATIENTS, DEFAULT_PHASES, DEFAULT_SEED)
        made = "made now"
    say(f"no --data.root: phantom cohort of {DEFAULT_PATIENTS} patients, {made}, in {folder}")
    return folder


def run(arguments: Sequence[str]) -> int:
    """Write a cohort as the command line asks."""
    parser = OptionParser(
        prog="cardiac-mtl phantom",
        description="Write phantom short-axis cine studies, with their exact volumes and areas.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="lvsc", help="files as in")
    parser.add_argument("--patients", type=_positive, default=DEFAULT_PATIENTS, help="how many")
    parser.add_argument("--phases", type=_positive, default=20, help="phases of each cine")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="same seed, same cohort")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args(arguments[1:])
    write_cohort(options.layout, options.out, options.patients, options.phases, options.seed)
    say(f"{options.patients} patients, {options.phases} phases: {options.out}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
