"""Pool the folds of an experiment out of fold, on the prepared grid and on the grid of the files.

    python -m benchmarks real_hearts RUNS --data HEARTS

RUNS holds the runs of one experiment, one finished run a fold, each already tested. The native
scores come from `cardiac-mtl predict` on the test patients of each fold and are measured by
SimpleITK alone, independently of our metrics.
"""

import csv
import json
import tempfile
from pathlib import Path

import pandas as pd
import SimpleITK as sitk

from benchmarks.common import options_of, write
from cardiac_mtl.cli import main as cardiac_mtl
from cardiac_mtl.report.tables.summary import summary, to_text
from cardiac_mtl.runs import IDENTITY, read_identity


def native_dice(run: Path, data: Path, patients: set[str]) -> list[float]:
    """Predict the test patients of a fold and score the masks in the geometry of their files."""
    with (data / "cases.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["patient_id"] in patients]
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            words = ["predict", "--run", str(run), "--input", str(data / row["image"])]
            assert cardiac_mtl([*words, "--output", folder]) == 0
            name = row["image"].removesuffix(".gz").removesuffix(".nii")
            predicted = sitk.ReadImage(f"{folder}/{name}_mask.nii.gz", sitk.sitkUInt8)
            reference = sitk.ReadImage(str(data / row["mask"]), sitk.sitkUInt8)
            overlap = sitk.LabelOverlapMeasuresImageFilter()
            overlap.Execute(predicted, reference)
            scores.append(overlap.GetDiceCoefficient())
    return scores


def main() -> None:
    """Print the pooled table and write it."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    found = (path.parent for path in options.runs.rglob(IDENTITY))
    runs = sorted(run for run in found if (run / "cases.csv").exists())
    if not runs:
        raise SystemExit(f"{options.runs}: no tested run")
    identities = [read_identity(run) for run in runs]
    if len({(one["experiment"], one["split_sha256"]) for one in identities}) > 1:
        raise SystemExit(f"{options.runs}: runs of several experiments, or of several splits")
    cases = [pd.read_csv(run / "cases.csv", keep_default_na=True) for run in runs]
    slices = pd.concat([pd.read_csv(run / "slices.csv") for run in runs])
    pooled = pd.concat(cases)
    if pooled["patient_id"].duplicated().any():
        raise SystemExit(f"{options.runs}: a patient was tested twice; give one run a fold")
    table = summary(pooled, slices)
    print(to_text(table))
    native = [
        score
        for run, tested in zip(runs, cases, strict=True)
        for score in native_dice(run, options.data, set(tested["patient_id"]))
    ]
    result = {
        "experiment": identities[0]["experiment"],
        "data": identities[0]["data"],
        "folds": [one["fold"] for one in identities],
        "patients": len(pooled),
        "split_sha256": identities[0]["split_sha256"],
        "protocol": identities[0]["protocol"],
        "trained_at_commit": identities[0]["git_commit"],
        "commands": [
            one["command"]
            .replace(str(options.data.resolve()), "HEARTS")
            .replace(str(options.runs.resolve().parent), "RUNS")
            for one in identities
        ],
        "fold_seconds": [
            (pd.Timestamp(one["finished_at"]) - pd.Timestamp(one["started_at"])).total_seconds()
            for one in identities
        ],
        "table": json.loads(table.to_json(orient="records")),
        "native_dice": {
            "mean": pd.Series(native).mean(),
            "sd": pd.Series(native).std(),
            "worst": min(native),
        },
    }
    write("real_hearts", result, options, variant=result["experiment"])
