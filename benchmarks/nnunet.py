"""nnU-Net v2, 2d, in an environment of its own: data, plan, trainer. No benchmark by itself."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine, timed

NAME = "Dataset001_hearts"
TRAINER = Path(__file__).with_name("nnunet_trainer.py")


class NNUNet:
    """A folder with one data set, its plan and what is trained on it.

    Args:
        root: folder to fill.
        commands: folder of nnU-Net's commands and of its Python.
    """

    def __init__(self, root: Path, commands: Path) -> None:
        self.root, self.commands = root, commands
        folders = {name: root / name for name in ("nnUNet_raw", "nnUNet_preprocessed")}
        self.raw, self.prepared = (folder / NAME for folder in folders.values())
        folders["nnUNet_results"] = root / "results"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.environment |= {name: str(folder) for name, folder in folders.items()}
        self.environment["nnUNet_def_n_proc"] = str(torch.get_num_threads())

    @property
    def log(self) -> Path:
        """What the latest command said."""
        return self.root / "nnunet.log"

    def timed(self, command: str, *words: str) -> float:
        """Return the seconds of one of its commands."""
        return timed([str(self.commands / command), *words], self.log, self.environment)

    def plan(self) -> None:
        """Plan and prepare configuration 2d for what is in `raw`."""
        plan = ["-d", "1", "-c", "2d", "-npfp", "1", "-np", "1"]
        self.timed("nnUNetv2_plan_and_preprocess", *plan)

    def trainer(self, task: str, *words: str) -> None:
        """Run a task of `nnunet_trainer.py`."""
        code = TRAINER.read_text(encoding="utf-8")
        self.timed("python", "-c", code, task, str(self.prepared), *words)


def lay_out(raw: Path, names: Sequence[str]) -> list[tuple[Path, Path]]:
    """Describe a data set in nnU-Net's raw layout, and make its folders.

    Args:
        raw: folder of the data set, which may exist.
        names: of the cases.

    Returns:
        Where image and mask of each case belong, NIfTI; masks hold 1 in the myocardium.
    """
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    described = {
        "channel_names": {"0": "cine"},
        "labels": {"background": 0, "myocardium": 1},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return [(raw / "imagesTr" / channel_of(n), raw / "labelsTr" / f"{n}.nii.gz") for n in names]


def check_comparable(facts: Mapping[str, Any]) -> None:
    """Refuse what a curve says of its training where ours cannot be compared with it.

    Args:
        facts: of the curve; what it does not say is not asked for.

    Raises:
        SystemExit: it was trained elsewhere, or the training was stopped.
    """
    here = machine()
    if facts.get("machine", here) != here:
        raise SystemExit("nnU-Net's curve is of another machine or other threads: train it here")
    if "epochs" in facts and "mirrored_dice" not in facts:  # its first fact, and its last
        raise SystemExit("nnU-Net's curve is of a training that was stopped: train it again")


def channel_of(name: str) -> str:
    """Return the file that nnU-Net wants of the only channel of a case."""
    return f"{name}_0000.nii.gz"
