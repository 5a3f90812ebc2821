"""The run directory: where a run lives, what is known of it, how its checkpoint is read.

runs/<experiment>/<data>/fold<k>-seed<s>/<run id>/
    config.yaml  run.json  metrics.csv  checkpoints/{best,last}.ckpt     by `fit`
    slices.csv  cases.csv  table.csv  table.md  figures/                 by `test`
"""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cardiac_mtl
from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.files import whole

if TYPE_CHECKING:
    from torch.nn import Module

CONFIG, IDENTITY, METRICS = "config.yaml", "run.json", "metrics.csv"
FINISHED = "finished"
"""Status in `run.json` of a run that trained to its end."""
BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
PROVENANCE = "cardiac_mtl"
"""Key of a checkpoint that holds where it comes from."""

_PACKAGES = ("lightning", "numpy", "SimpleITK", "monai", "torchmetrics", "jsonargparse")


def config_digest(config: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits that stand for a configuration.

    Args:
        config: JSON-able once paths are written out. Where runs are kept, who logs them and where
            batches are gathered does not count: none changes a number.
    """
    counted = {key: value for key, value in config.items() if key != "run_root"}
    if "trainer" in counted:
        counted["trainer"] = {k: v for k, v in counted["trainer"].items() if k != "logger"}
    if "init_args" in (data := counted.get("data") or {}):
        kept = {k: v for k, v in data["init_args"].items() if k != "resident"}
        counted["data"] = {**data, "init_args": kept}
    text = json.dumps(counted, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_directory(root: Path, experiment: str, data: str, fold_seed: str, digest: str) -> Path:
    """Name the directory of a run: one configuration, one directory, on every machine and rank.

    Args:
        root: `runs`.
        experiment: name of the experiment.
        data: name of the data set.
        fold_seed: `fold<k>-seed<s>`.
        digest: of the configuration.
    """
    return root / _slug(experiment) / _slug(data) / fold_seed / digest


def find_run(path: Path) -> Path:
    """Return the run directory that `--run` means: itself, or the newest finished run below it.

    Args:
        path: a run directory, or a folder that holds some.

    Raises:
        UserError: there is none.
    """
    if (path / IDENTITY).is_file():
        if (status := unfinished(path)) is not None:
            say(f"note: {path} did not train to its end: {status}")
        return path
    runs = [found.parent for found in path.rglob(IDENTITY)] if path.is_dir() else []
    finished = [run for run in runs if (run / BEST).is_file() and unfinished(run) is None]
    if not finished:
        raise UserError(
            "no finished run here" if runs or path.is_dir() else "no such folder",
            where=f"--run {path}",
            fix=f"give the directory that `fit` printed, the one that holds {IDENTITY}",
        )
    return max(finished, key=lambda run: read_identity(run)["started_at"])


def unfinished(run: Path) -> str | None:
    """Return how a run stands that did not train to its end, such as `interrupted`; else None."""
    status = read_identity(run).get("status", FINISHED)  # runs of `evaluate` have none
    return None if status == FINISHED else str(status)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all, whatever happens to the process or to the power."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_identity(run: Path, identity: Mapping[str, Any]) -> None:
    """Write `run.json` whole or not at all."""
    write_whole(run / IDENTITY, json.dumps(identity, indent=2) + "\n")


class Identity(dict[str, Any]):
    """What `run.json` says.

    Args:
        values: by name.
        path: where they stand.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        """Refuse a file from which a value was lost."""
        raise UserError(
            f"says nothing of {name!r}",
            where=str(self.path),
            fix="restore the file, give another run, or train this one again",
        )


def read_identity(run: Path) -> Identity:
    """Read `run.json`.

    Raises:
        UserError: it is absent or damaged; later, where what is asked of it is not there.
    """
    try:
        identity = json.loads((run / IDENTITY).read_text(encoding="utf-8"))
        if not isinstance(identity, dict):
            raise ValueError(type(identity).__name__)
        return Identity(identity, run / IDENTITY)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read ({type(error).__name__})",
            where=str(run / IDENTITY),
            fix="give another run, or train this one again",
        ) from error


def provenance(command: Sequence[str] = ()) -> dict[str, Any]:
    """Return what produced a run: command, versions, git commit, machine, time.

    Args:
        command: the words after `cardiac-mtl`.
    """
    import torch

    return {
        "command": shlex.join(["cardiac-mtl", *command]),
        "started_at": now(),
        "git_commit": _git_commit(),
        "versions": {
            "cardiac-mtl": cardiac_mtl.__version__,
            "torch": str(torch.__version__),  # its build too; metadata of wheels on PyPI have none
            **_versions(),
        },
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU, as plain tensors and values only.

    Args:
        path: `*.ckpt`.

    Raises:
        UserError: it is absent, damaged, holds code, or was not written by cardiac-mtl.
    """
    import torch

    where = str(path)
    if not path.is_file():
        raise UserError("no such checkpoint", where=where, fix="give one that `fit` wrote")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the one place
    except Exception as error:  # of another file PyTorch raises nearly anything
        raise UserError(
            "is not a readable checkpoint of weights",
            where=where,
            fix="train again, or use last.ckpt",
        ) from error
    if not isinstance(checkpoint, dict) or PROVENANCE not in checkpoint:
        raise UserError(
            "was not written by cardiac-mtl", where=where, fix="give a checkpoint that `fit` wrote"
        )
    return checkpoint


def starting_weights(path: Any) -> dict[str, str]:  # noqa: ANN401 - Lightning's own union
    """Return what tells a run that starts from the weights of a file from one that does not.

    Raises:
        UserError: the file is no checkpoint.
    """
    if not path:
        return {}
    read_checkpoint(Path(path))
    return {"starting_weights": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def load_weights(network: "Module", checkpoint: Mapping[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint into the network that they were trained in.

    Raises:
        UserError: they are of another network.
    """
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"its weights are of another network than this {type(network).__name__}",
            where=str(path),
            fix="give the checkpoint of this run, and no --model settings beside it",
        ) from error


def _versions() -> dict[str, str]:
    return {package.lower(): version(package) for package in _PACKAGES}


def _git_commit() -> str:
    """Return the commit of the checkout that the code runs from, with `+` when it was changed."""
    folder = Path(cardiac_mtl.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
