"""Tiny data, made once a test run, and a cache folder that is not the user's."""

import numpy as np
import pytest
import torch

from cardiac_mtl.catalogue import experiments, find_config
from cardiac_mtl.configuration import read_yaml
from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.phantom_cohort import write_cohort


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep prepared stores and phantoms out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def seeded():
    """Give every test the same random numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch):
    """Have `test` and `report` leave pictures empty: drawing takes most of their time."""

    def leave_empty(picture, folder):
        path = folder / f"{picture.name}.svg"
        path.write_text("<svg/>")
        path.with_suffix(".png").touch()
        return path

    for name in ("overlay", "curves"):
        monkeypatch.setattr(f"cardiac_mtl.testing.{name}", lambda path, *_, **__: path.touch())
    monkeypatch.setattr("cardiac_mtl.reporting.save", leave_empty)


@pytest.fixture(scope="session")
def lvsc(tmp_path_factory):
    """An LVSC folder of six phantom patients with two phases."""
    root = tmp_path_factory.mktemp("data") / "lvsc"
    write_cohort("lvsc", root, patients=6, phases=2, seed=0)
    return root


@pytest.fixture(scope="session")
def hearts(tmp_path_factory):
    """The same phantoms behind a manifest."""
    root = tmp_path_factory.mktemp("data") / "hearts"
    write_cohort("manifest", root, patients=6, phases=2, seed=0)
    return root


@pytest.fixture(scope="session")
def cines(tmp_path_factory):
    """Six phantom patients, five of them with an infarct, as cine of three phases."""
    root = tmp_path_factory.mktemp("data") / "cines"
    write_cohort("cine", root, patients=6, phases=3, seed=0)
    return root


@pytest.fixture(scope="session")
def sequences(tmp_path_factory):
    """Six phantom patients in three sequences, three of them with an LGE mask."""
    root = tmp_path_factory.mktemp("data") / "sequences"
    write_cohort("mscmr", root, patients=6, seed=0, scale=8)
    return root


@pytest.fixture(scope="session")
def maps(tmp_path_factory):
    """Native T1 maps of six phantom patients, one of them diseased, of 64 x 54 pixels."""
    root = tmp_path_factory.mktemp("data") / "maps"
    write_cohort("t1", root, patients=6, seed=0, scale=4)
    return root


@pytest.fixture(scope="session")
def small_data(hearts, cines, sequences, maps):
    """Return the words that give an experiment tiny data of its kind."""

    def words(experiment):
        wanted = find_config(experiment).read_text()
        if "CineDataModule" in wanted:
            return ["--data.root", str(cines), "--data.matrix", "[32, 32]", "--data.frames", "3"]
        if "MSCMRDataModule" in wanted:  # whose protocol of roles has one fold
            alone = ["--model.pretrain_epochs", "1"]
            return ["--data.root", str(sequences), "--data.fold", "0", *alone]
        if "T1DataModule" in wanted:
            return ["--data.root", str(maps), "--data.matrix", "[64, 64]"]
        return ["--config", "manifest", "--data.root", str(hearts)]

    return words


def one_a_class():
    """Return the first experiment of each LightningModule."""
    classes = {}
    for path in experiments():
        classes.setdefault(read_yaml(path)["model"]["class_path"], path.stem)
    return sorted(classes.values())


def pytest_generate_tests(metafunc):
    if "experiment_of_class" in metafunc.fixturenames:
        metafunc.parametrize("experiment_of_class", one_a_class())


def oblique_affine(spacing=(1.4, 1.6, 8.0)):
    """Voxel (column, row, slice) to LPS mm, slices running left, forward and down."""
    normal = np.array([0.6, -0.48, -0.64])
    row_axis = np.cross(normal, [0.0, 0.0, 1.0])
    row_axis /= np.linalg.norm(row_axis)
    affine = np.eye(4)
    affine[:3, 0] = row_axis * spacing[0]
    affine[:3, 1] = np.cross(normal, row_axis) * spacing[1]
    affine[:3, 2] = normal * spacing[2]
    affine[:3, 3] = [-50.0, -120.0, 90.0]
    return affine


def study(patient_id, phases=3, slices=4, shape=(20, 24), seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    radius = np.hypot(rows - 10, columns - 12)
    ring = ((radius > 4) & (radius < 7)).astype(np.uint8) + 2 * (radius <= 4).astype(np.uint8)
    mask = np.broadcast_to(ring, (phases, slices, *shape)).astype(np.uint8)
    return CineStudy(
        patient_id=patient_id,
        image=rng.integers(0, 900, mask.shape).astype(np.uint16),
        mask=mask,
        affine=oblique_affine(),
        pathology="normal",
        truth={"cavity_ml": [3.0] * phases},
    )


@pytest.fixture(scope="session")
def make_study():
    """Return the maker of studies: patient, phases, slices, shape, seed."""
    return study


@pytest.fixture(scope="session")
def studies():
    return [study("DET0000201", seed=1), study("DET0000101", seed=2)]
