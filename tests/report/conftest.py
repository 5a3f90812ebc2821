"""Runs as `fit` and `test` leave them, with masks moved by chance, and a report on them."""

import json

import numpy as np
import pandas as pd
import pytest

from cardiac_mtl.cli import main
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.evaluation.rows import assemble, score_case, write_csv
from cardiac_mtl.report.pictures.gallery import write_gallery

PHASES = 3


def ring(shift, inner, size=40):
    rows, columns = np.ogrid[:size, :size]
    radius = np.hypot(rows - 20, columns - 20 - shift)
    return ((radius < inner + 6) & (radius >= inner)).astype(np.int8)


def _write_run(folder, experiment, fold, patients, rng, protocol="honest", **facts):
    """Leave what `fit` and `test` leave, with masks moved by chance."""
    rows, volumes = [], []
    for patient in patients:
        for phase in range(PHASES):
            reference = np.stack([ring(0, 8 - phase)] * 6)
            predicted = np.stack([ring(rng.integers(0, 4), 8 - phase)] * 6).astype(np.uint8)
            areas = (predicted > 0).sum((1, 2)).astype(np.float32)[:, None] + rng.normal(0, 20)
            case = CollectedCase(
                row=0,
                slices=np.arange(6),
                image=rng.normal(size=reference.shape).astype(np.float32),
                reference=reference,
                predicted=predicted,
                spacing=(8.0, 1.0, 1.0),
                indices=areas if experiment == "mtn_uncertainty" else None,
                reference_indices=areas,
            )
            case_id = f"{patient}_ph{phase:02d}"
            info = {
                "case_id": case_id, "patient_id": patient, "phase": str(phase),
                "pathology": "normal" if patient < "p3" else "scar", "centre": "", "vendor": "",
            }  # fmt: skip
            volumes.append((case_id, case))
            rows.append(score_case(case, info, {"myocardium": 1}, ("area_mm2",)))
    folder.mkdir(parents=True)
    frames = assemble(rows, protocol)
    for name, frame in frames._asdict().items():
        write_csv(folder / f"{name}.csv", frame)
    write_gallery(folder / "gallery", frames.cases, volumes)
    epochs = pd.DataFrame({
        "epoch": [0, 1, 2], "train/loss/mask": [0.5, 0.3, 0.2], "val/dice_vol": [0.5, 0.6, 0.7],
        "s/mask": [0.0, -0.1, -0.2], "weight/mask": [1.0, 1.1, 1.2],
    })  # fmt: skip
    epochs.to_csv(folder / "metrics.csv", index=False)
    identity = {
        "run_id": folder.name, "experiment": experiment, "data": "hearts", "fold": fold, "seed": 0,
        "protocol": protocol, "selected_on": "val", "monitor": "val/dice_vol", "best_value": 0.7,
        "epochs": 3, "split_sha256": "ab" * 32, "git_commit": "cd" * 20,
        "started_at": "2026-01-01T00:00:00+00:00", "command": "cardiac-mtl fit",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(identity | facts))


@pytest.fixture
def write_run():
    """Return the maker of a run: folder, experiment, fold, patients, chance, protocol, facts."""
    return _write_run


@pytest.fixture(scope="session")
def runs(once):
    """Two experiments of two folds each."""

    def write(root):
        rng = np.random.default_rng(0)
        for experiment in ("mtn_uncertainty", "mtn_unet"):
            for fold, patients in enumerate((["p1", "p2", "p3"], ["p4", "p5", "p6"])):
                _write_run(root / experiment / f"fold{fold}", experiment, fold, patients, rng)

    return once("runs", write)


@pytest.fixture(scope="session")
def report(once, runs):
    def write(out):
        assert main(["report", str(runs), "--output", str(out)]) == 0

    return once("report", write)
