"""Tiny data, made once a test run, and a cache folder that is not the user's."""

import copy
import os
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pydicom
import pytest
import torch
from filelock import FileLock
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cardiac_mtl.catalogue import experiments, find_config, read_yaml
from cardiac_mtl.contracts import CineStudy
from cardiac_mtl.phantom_files import LAYOUTS, write_cohort
from cardiac_mtl.phantoms.cohort import make_cohort
from data_modules.stacom import write_layout


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keep prepared stores and phantoms out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def seeded():
    """Give every test the same random numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@contextmanager
def leaving_pictures_empty():
    """Have `test` and `report` leave pictures empty: drawing takes most of their time."""

    def leave_empty(picture, folder):
        path = folder / f"{picture.name}.svg"
        path.write_text("<svg/>")
        path.with_suffix(".png").touch()
        return path

    with pytest.MonkeyPatch.context() as patch:
        for name in ("overlay", "curves", "feature_maps", "write_loop"):
            patch.setattr(
                f"cardiac_mtl.training.outputs.{name}", lambda path, *_, **__: path.touch()
            )
        patch.setattr("cardiac_mtl.commands.report.save", leave_empty)
        yield


@pytest.fixture(scope="session")
def without_pictures():
    """Return the context in which `test` and `report` draw nothing."""
    return leaving_pictures_empty


@pytest.fixture
def undrawn(without_pictures):
    with without_pictures():
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return the maker of folders that all processes of a test run share: name, what fills it."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data"
    shared.mkdir(exist_ok=True)

    def folder(name, fill):
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).is_dir():
                making = shared / f".{name}"
                fill(making)
                making.rename(shared / name)
        return shared / name

    return folder


@pytest.fixture(scope="session")
def drawn():
    """Six phantom patients with two phases: it takes seconds to draw them."""
    return cache(lambda: list(make_cohort(6, phases=2, seed=0)))


def written(layout, drawn):
    """Return what writes the phantoms in a layout."""

    def write(root):
        made = LAYOUTS[layout]._replace(make=lambda *_, **__: drawn())
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(LAYOUTS, layout, made)
            write_cohort(layout, root, patients=6, phases=2, seed=0)

    return write


@pytest.fixture(scope="session")
def lvsc(once, drawn):
    """The phantoms as an LVSC folder."""
    return once("lvsc", written("lvsc", drawn))


@pytest.fixture(scope="session")
def hearts(once, drawn):
    """The same phantoms behind a manifest."""
    return once("hearts", written("manifest", drawn))


@pytest.fixture(scope="session")
def cines(once):
    """Six phantom patients, five of them with an infarct, as cine of three phases."""
    return once("cines", partial(write_cohort, "cine", patients=6, phases=3, seed=0))


@pytest.fixture(scope="session")
def sequences(once):
    """Six phantom patients in three sequences, three of them with an LGE mask."""
    return once("sequences", partial(write_cohort, "mscmr", patients=6, seed=0, scale=8))


@pytest.fixture(scope="session")
def maps(once):
    """Native T1 maps of six phantom patients, one of them diseased, of 64 x 54 pixels."""
    return once("maps", partial(write_cohort, "t1", patients=6, seed=0, scale=4))


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


@pytest.fixture(scope="session")
def first_of_each_class():
    return one_a_class()


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


def _series(root, study, times=True):
    """Write a study as the folder of one series, files in no helpful order."""
    write_layout(root / "lvsc", [study])
    (root / "series").mkdir()
    rng = np.random.default_rng(0)
    files = sorted((root / "lvsc" / "Training" / study.patient_id).glob("*.dcm"))
    for name, file in zip(rng.permutation(len(files)), files, strict=True):
        image = pydicom.dcmread(file)
        if not times:
            del image.TriggerTime
        image.save_as(root / "series" / f"{name:04d}.dcm")
    (root / "series" / "notes.txt").write_text("not an image")
    return root / "series"


def _enhanced(root, study, order):
    """Write a study as one enhanced multi-frame file, frames in the order given."""
    series = _series(root, study)
    images = [pydicom.dcmread(file) for file in sorted(series.glob("*.dcm"))]
    images = [images[k] for k in order(len(images))]
    whole = copy.deepcopy(images[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(whole, keyword)
    del whole.TriggerTime, whole.SliceThickness, whole.SpacingBetweenSlices
    whole.NumberOfFrames = len(images)
    whole.PixelData = b"".join(image.PixelData for image in images)
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = images[0].PixelSpacing
    measures.SliceThickness = images[0].SliceThickness
    transformation = Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = "2", "-7"
    orientation = Dataset()
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([transformation])
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for image in images:
        group, position, heart = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        heart.NominalCardiacTriggerDelayTime = float(image.TriggerTime)
        group.PlanePositionSequence = Sequence([position])
        group.CardiacSynchronizationSequence = Sequence([heart])
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = Sequence(groups)
    whole.save_as(root / "enhanced.dcm")
    return root / "enhanced.dcm"


@pytest.fixture(scope="session")
def flat_folder():
    """Return the writer of one DICOM series: folder, study, with trigger times or not."""
    return _series


@pytest.fixture(scope="session")
def enhanced_file():
    """Return the writer of one enhanced DICOM file: folder, study, order of its frames."""
    return _enhanced


@pytest.fixture(scope="session")
def studies():
    return [study("DET0000201", seed=1), study("DET0000101", seed=2)]
