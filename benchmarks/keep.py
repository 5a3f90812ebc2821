"""Keep the rows of tested runs on phantoms: all that `cardiac-mtl report` needs, no weights.

    python -m benchmarks keep RUNS [RUNS ...] --name mutgan-phantoms
    tar -xf benchmarks/results/mutgan-phantoms.tar.xz -C kept
    cardiac-mtl report kept/mutgan kept/mutgan_generator NEW_RUNS --output report

RUNS are folders of experiments. What is kept can be scored in pairs with runs of another day and
machine, which a table of means cannot. Folders of this machine are written as DATA, CACHE and RUNS.
An experiment that the archive holds already is replaced, the others stay.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

from benchmarks.common import RESULTS
from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.files import whole
from cardiac_mtl.runs import CONFIG, IDENTITY, METRICS, read_identity

_ROWS = ("cases", "slices", "patients", "indices", "pixels", "labels")
_KEPT = (CONFIG, IDENTITY, METRICS, "splits.json", *(f"{name}.csv" for name in _ROWS))


def main() -> None:
    """Read what is kept, add the runs, write it whole."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--name", required=True, help="of the archive")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the archive")
    options = parser.parse_args()
    path = options.results / f"{options.name}.tar.xz"
    members = read(path) if path.is_file() else {}
    for folder in options.runs:
        found = rows_of(folder)
        members = {n: c for n, c in members.items() if Path(n).parts[0] != folder.name} | found
        print(f"{folder.name}: {sum(name.endswith(IDENTITY) for name in found)} runs")
    write(path, members)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def rows_of(folder: Path) -> dict[str, bytes]:
    """Return the files that are kept of the runs of an experiment, by name in the archive.

    Raises:
        SystemExit: no run was tested, or one is not of phantoms.
    """
    runs = sorted(path.parent for path in folder.rglob(IDENTITY))
    runs = [run for run in runs if (run / "cases.csv").is_file()]
    if not runs:
        raise SystemExit(f"{folder}: no tested run")
    kept = {}
    for run in runs:
        if not read_identity(run)["phantom"]:
            raise SystemExit(f"{run}: rows of people are not kept here")
        places = _places(run)
        for name in _KEPT:
            if (run / name).is_file():
                inside = Path(folder.name, run.relative_to(folder), name).as_posix()
                kept[inside] = _without((run / name).read_bytes(), places)
    return kept


def _places(run: Path) -> dict[str, str]:
    """Return the folders of this machine that the files of a run name, the longer ones first."""
    config = read_yaml(run / CONFIG)
    data = config["data"]["init_args"]
    found = {data["root"]: "DATA", data["cache_dir"]: "CACHE", config["run_root"]: "RUNS"}
    # a relative one says nothing of the machine, and may be a word of the files, such as `phantom`
    whole_paths = [place for place in found if place is not None and Path(place).is_absolute()]
    return {place: found[place] for place in sorted(whole_paths, key=len, reverse=True)}


def _without(content: bytes, places: dict[str, str]) -> bytes:
    for place, word in places.items():
        content = content.replace(place.encode(), word.encode())
        content = content.replace(json.dumps(place).strip('"').encode(), word.encode())
    return content


def read(path: Path) -> dict[str, bytes]:
    """Return the files of an archive."""
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def write(path: Path, members: dict[str, bytes]) -> None:
    """Write an archive whose bytes depend on what it holds alone."""
    with whole(path) as temporary, tarfile.open(temporary, "w:xz") as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(members[name])
            archive.addfile(entry, io.BytesIO(members[name]))


if __name__ == "__main__":
    main()
