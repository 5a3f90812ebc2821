"""A report over two methods of five folds: seconds from rows to the page.

    python -m benchmarks report [--volumes 2191] [--rounds 5]

Rows drawn by chance, with the columns, counts and failures of a real run: 97 patients with about
22 phases of 12 slices each, dealt to five folds. No gallery: its cost does not grow with volumes.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import options_of, positive, spread, write
from cardiac_mtl.cli import main as cardiac_mtl
from cardiac_mtl.evaluation.function import PATIENT_COLUMNS
from cardiac_mtl.evaluation.rows import CASE_COLUMNS, MEASURES, SLICE_COLUMNS

PATIENTS, SLICES, FOLDS = 97, 12, 5


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__)
    parser.add_argument("--volumes", type=positive, default=2191)
    options = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        for number, experiment in enumerate(("mtn_uncertainty", "mtn_unet")):
            write_runs(runs, experiment, options.volumes, np.random.default_rng(number))
        for _ in range(options.rounds):
            started = time.perf_counter()
            assert cardiac_mtl(["report", str(runs), "--output", f"{folder}/report"]) == 0
            measured.append(time.perf_counter() - started)
        size = (Path(folder) / "report/index.html").stat().st_size / 1e6
    write(
        "report",
        {
            "methods": 2,
            "folds": FOLDS,
            "volumes_of_each_method": options.volumes,
            "slices_of_each_method": options.volumes * SLICES,
            "seconds": spread(measured),
            "page_mb": round(size, 1),
        },
        options,
    )


def write_runs(root: Path, experiment: str, volumes: int, rng: np.random.Generator) -> None:
    """Leave five runs as `test` does."""
    number = np.arange(volumes)
    patient = number % PATIENTS
    cases = pd.DataFrame({
        "case_id": [f"p{p}_ph{k // PATIENTS:02d}" for k, p in zip(number, patient, strict=True)],
        "patient_id": [f"p{p}" for p in patient],
        "phase": [str(k // PATIENTS) for k in number],
        "cardiac_phase": [{0: "ED", 1: "ES"}.get(k // PATIENTS, "") for k in number],
        "pathology": [("normal", "infarct", "hypertrophy")[p % 3] for p in patient],
        "centre": "",
        "vendor": "",
        "label": "myocardium",
    })  # fmt: skip
    cases = measured_by_chance(cases, rng)
    cases["volume_ml"] = rng.normal(120, 20, volumes)
    cases["reference_volume_ml"] = cases["volume_ml"] + rng.normal(0, 8, volumes)
    slices = cases.loc[np.repeat(number, SLICES)].reset_index(drop=True)
    slices = measured_by_chance(slices, rng)
    slices["slice"] = np.tile(np.arange(SLICES), volumes)
    slices["region"] = np.tile(["basal"] * 2 + ["mid"] * 8 + ["apical"] * 2, volumes)
    slices["reference_area_mm2"] = rng.normal(1800, 300, len(slices))
    for name in ("area_mm2", "regressed_area_mm2"):
        slices[name] = slices["reference_area_mm2"] + rng.normal(0, 200, len(slices))
    for name, column in (("", "area_mm2"), ("regressed_", "regressed_area_mm2")):
        slices[f"{name}area_error_mm2"] = (slices[column] - slices["reference_area_mm2"]).abs()
    slices["area_disagreement_mm2"] = (slices["area_mm2"] - slices["regressed_area_mm2"]).abs()
    patients = pd.DataFrame({"patient_id": [f"p{p}" for p in range(PATIENTS)], "chamber": "lv"})
    for name in ("edv_ml", "esv_ml", "sv_ml", "ef_percent", "mass_g", "ed_wall_mm"):
        patients[f"reference_{name}"] = rng.normal(100, 20, PATIENTS)
        patients[name] = patients[f"reference_{name}"] + rng.normal(0, 5, PATIENTS)
    for fold in range(FOLDS):
        folder = root / experiment / f"fold{fold}"
        folder.mkdir(parents=True)
        tables = {
            "slices": (slices, [*SLICE_COLUMNS]),
            "cases": (cases, [*CASE_COLUMNS]),
            "patients": (patients, [*PATIENT_COLUMNS, "protocol"]),
        }
        for name, (frame, columns) in tables.items():
            held = frame["patient_id"].str[1:].astype(int) % FOLDS == fold
            frame[held].reindex(columns=columns).to_csv(folder / f"{name}.csv", index=False)
        identity = {"experiment": experiment, "data": "drawn", "fold": fold, "seed": 0}
        (folder / "run.json").write_text(json.dumps(identity | {"protocol": "honest"}))


def measured_by_chance(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Fill the measures; one row in a hundred is missed."""
    count = len(frame)
    missed = rng.random(count) < 0.01
    values = {
        name: np.where(missed, 0.0, rng.beta(20, 4, count))
        if "mm" not in name and "voxels" not in name
        else np.where(missed, 300.0, rng.gamma(2, 2, count))
        for name in MEASURES
    }
    state = np.where(missed, "missed", "ok")
    return frame.assign(**values, state=state, tolerance_mm=2.0, protocol="honest")
