"""What `pip install` delivers is what the repository holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_module_and_experiment(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("cardiac_mtl", "data_modules")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".typed"}
    }
    experiments = {
        f"cardiac_mtl/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "experiments").rglob("*.yaml")
    }
    assert sources | experiments <= shipped


def test_a_bare_name_works_from_the_wheel_away_from_a_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import cardiac_mtl; from cardiac_mtl.catalogue import find_config; "
        "print(find_config('mtn_uncertainty'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.stdout.strip() == str(
        tmp_path / "site" / "cardiac_mtl" / "experiments" / "mtn_uncertainty.yaml"
    )
