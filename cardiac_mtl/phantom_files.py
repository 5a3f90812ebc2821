"""Phantom hearts on disk, in the layouts of the data sets, for runs that are given no data too."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from filelock import FileLock

from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.phantoms.cohort import make_cohort, make_infarct_cohort
from cardiac_mtl.phantoms.sequences import make_sequence_cohort
from cardiac_mtl.phantoms.t1 import make_t1_cohort
from data_modules import cine, manifest, mscmr_files, stacom, t1
from data_modules.base import PHANTOM
from data_modules.store import cache_folder

DEFAULT_SEED = 0
VERSION = 1
"""Part of the name of a cached cohort: raise it when the phantom changes."""


class Kind(NamedTuple):
    """What patients of a layout are made of besides their number and a seed."""

    detail: str
    """Keyword of the maker, and option of the command."""
    usual: int
    """Its value where the command is given none."""
    patients: int
    """The same of their number."""
    default: tuple[int, int]
    """Patients and detail of the default cohort, which is there in seconds."""


CINES: Final = Kind("phases", 20, 20, default=(20, 8))
# of the default: five patients with all references, four with those of C0 and T2, three with none
SEQUENCES: Final = Kind("scale", 1, mscmr_files.PATIENTS, default=(12, 2))
MAPS: Final = Kind("scale", 1, 42, default=(42, 1))  # five of them diseased: one a fold


class Layout(NamedTuple):
    """How a layout is written, and the patients that suit it."""

    write: Callable[..., None]
    make: Callable[..., Iterator[Any]]
    kind: Kind


LAYOUTS: Final = {
    "lvsc": Layout(stacom.write_layout, make_cohort, CINES),
    "manifest": Layout(manifest.write_layout, make_cohort, CINES),
    "cine": Layout(cine.write_layout, make_infarct_cohort, CINES),
    "mscmr": Layout(mscmr_files.write_layout, make_sequence_cohort, SEQUENCES),
    "t1": Layout(t1.write_layout, make_t1_cohort, MAPS),
}


def write_cohort(layout: str, out: Path, patients: int, seed: int, **detail: int) -> None:
    """Write a cohort of phantom hearts in the layout of a data set.

    Args:
        layout: a key of `LAYOUTS`.
        out: folder to make; it appears whole or not at all.
        patients: number of patients.
        seed: the same seed gives the same cohort.
        detail: `phases` of each cine, or `scale` that divides the matrices of others.

    Raises:
        UserError: the folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", where=f"--out {out}", fix="name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write, make, _ = LAYOUTS[layout]
        roles = mscmr_files.roles(patients) if layout == "mscmr" else ()
        write(making, make(patients, seed=seed, **detail), *roles)
        made = {"patients": patients, **detail, "seed": seed, "version": VERSION}
        (making / PHANTOM).write_text(json.dumps(made) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        making.chmod(0o755)
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def default_cohort(layout: str) -> Path:
    """Return the phantom cohort in the user's cache folder, made on first use."""
    kind = LAYOUTS[layout].kind
    patients, value = kind.default
    name = f"{layout}-{patients}x{value}-seed{DEFAULT_SEED}-v{VERSION}"
    folder = cache_folder() / "phantoms" / name
    made = "already made"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{name}.lock"):  # the jobs of a study begin together
            if not folder.is_dir():
                write_cohort(layout, folder, patients, DEFAULT_SEED, **{kind.detail: value})
                made = "made now"
    say(f"no --data.root: phantom cohort of {patients} patients, {made}, in {folder}")
    return folder
