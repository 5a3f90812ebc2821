"""`cache`: what was prepared and can be made again, with sizes; and its removal."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from data_modules.store import ABOUT, cache_folder, gigabytes


class Entry(NamedTuple):
    """One thing in the cache."""

    name: str
    folder: Path
    size: int
    """Bytes on disk."""
    about: str


def run(arguments: Sequence[str]) -> int:
    """List or clear the cache."""
    parser = OptionParser(
        prog="cardiac-mtl cache",
        description="List or clear prepared stores and phantom cohorts; all can be made again.",
    )
    parser.add_argument("action", choices=("list", "clear"))
    parser.add_argument("names", nargs="*", help="what to clear; everything without a name")
    parser.add_argument(
        "--data.cache_dir", dest="folder", type=Path, help="another folder than the user's cache"
    )
    options = parser.parse_args(arguments[1:])
    folder = options.folder or cache_folder()
    found = entries(folder)
    if options.action == "list":
        for entry in found:
            say(f"{entry.name:<40} {gigabytes(entry.size):>10}  {entry.about}")
        say(f"{len(found)} entries, {gigabytes(sum(e.size for e in found))}, in {folder}")
        return 0
    if unknown := set(options.names) - {entry.name for entry in found}:
        raise UserError(
            f"no entry {min(unknown)!r}",
            where=f"{folder}",
            fix="see `cardiac-mtl cache list`",
        )
    chosen = [entry for entry in found if entry.name in options.names or not options.names]
    for entry in chosen:
        if entry.folder.is_symlink():  # what it leads to is not ours
            entry.folder.unlink()
        else:
            shutil.rmtree(entry.folder)
    say(f"{len(chosen)} entries cleared, {gigabytes(sum(entry.size for entry in chosen))}")
    return 0


def entries(folder: Path) -> list[Entry]:
    """Return the prepared stores and the phantom cohorts of a cache, whole and unfinished."""
    found = []
    for kind in ("prepared", "phantoms"):
        for path in sorted((folder / kind).glob("*")):
            if path.is_dir():
                size = sum(f.stat().st_blocks * 512 for f in path.rglob("*") if f.is_file())
                found.append(Entry(f"{kind}/{path.name.lstrip('.')}", path, size, _about(path)))
    return found


def _about(path: Path) -> str:
    if path.name.startswith("."):
        return "unfinished: goes on where it stopped"
    if not (path / ABOUT).is_file():
        return ""
    try:
        facts = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except ValueError:
        return "damaged"
    rows, columns = facts["matrix"]
    spacing = facts["spacing_mm"]
    pixels = "pixels of the files" if spacing is None else f"at {spacing:g} mm"
    return f"{facts['cases']} cases, {facts['slices']} slices of {rows} x {columns} {pixels}"
