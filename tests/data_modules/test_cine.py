"""Cine 2D+T: what is read, where it is cropped, what is measured, and what is refused."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cardiac_mtl.cli import main
from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.metrics.shape import INDEX_NAMES, infarct_indices
from data_modules import stacom
from data_modules.augment import Augmentation, draw, transform_mask
from data_modules.cine import CineDataModule, write_layout
from data_modules.cine_table import find_cases
from data_modules.geometry import resample_beat, restore
from data_modules.inputs import find_inputs
from data_modules.readers import count_slices_of_cine, phases_in, read_cine
from data_modules.roi import box_centre, moving_centre

REAL = Path(__file__).parents[3] / "shared" / "data" / "sunnybrook_dicom"
ROWS, COLUMNS, PHASES = 48, 40, 6
STEP = (1.6, 1.4)  # rows, columns
CENTRE = (19.0, 24.0)


@pytest.fixture(scope="session")
def beating(make_study):
    """Return the maker of studies whose left ventricle beats off the centre of the image."""

    def make(name, seed=0, slices=3, infarcted=True, centre=CENTRE, noise=15.0, pathology="a"):
        study = make_study(name, PHASES, slices, (ROWS, COLUMNS))
        rng = np.random.default_rng(seed)
        y = (np.arange(ROWS) - centre[0])[:, None] * STEP[0]
        x = (np.arange(COLUMNS) - centre[1]) * STEP[1]
        radius = np.hypot(y, x)
        wall = 21.0 + seed % 3
        cavity = 13 + 3 * np.cos(2 * np.pi * np.arange(PHASES) / PHASES)[:, None, None]
        image = 60 + 190 * _within(radius, wall) + 400 * _within(radius, cavity)
        image = np.repeat(image[:, None], slices, axis=1) + rng.normal(0, noise, study.image.shape)
        inside = np.where(radius < cavity, 2, (radius < wall).astype(int))
        mask = np.broadcast_to(inside[:, None], study.mask.shape).astype(np.uint8)
        sector = np.abs(np.arctan2(-y, x) - np.deg2rad(20 * (seed + 1))) < 0.7
        infarct = (mask[0] == 1) & sector & infarcted
        infarct[0] = False  # the slice at the base is healthy
        return dataclasses.replace(
            study,
            image=image.clip(0, 4000).astype(np.uint16),
            mask=mask,
            infarct=infarct.astype(np.uint8),
            pathology=pathology,
        )

    return make


def _within(radius, edge):
    return 1 / (1 + np.exp((radius - edge) / 0.5))


@pytest.fixture(scope="module")
def clean(tmp_path_factory, beating):
    root = tmp_path_factory.mktemp("cine") / "clean"
    write_layout(root, [beating(f"p{n}", n) for n in range(8)])
    return root


@pytest.fixture
def root(tmp_path, beating):
    """A folder to spoil."""
    write_layout(tmp_path / "cine", [beating(f"p{n}", n) for n in range(4)])
    return tmp_path / "cine"


def module(root, stage="fit", **settings):
    settings = {"num_folds": 4, "cache_dir": root.parent / "cache"} | settings
    data = CineDataModule(root, **settings)
    data.setup(stage)
    return data


def batch_of(data, loader):
    (batch,) = loader
    return data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)


def rewrite(path, change=lambda v: v, affine=None):
    old = nib.load(path)
    nib.Nifti1Image(
        change(np.asanyarray(old.dataobj)), old.affine if affine is None else affine
    ).to_filename(path)


def edit(root, change):
    table = root / "cases.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join(row) for row in change(rows)) + "\n")


def one_slice(root, **columns):
    """Leave one infarcted slice of each image, and add columns for the first patient."""
    for path in root.glob("*.nii.gz"):
        rewrite(path, lambda v: v[:, :, 1:2])
    edit(
        root,
        lambda rows: [
            rows[0] + [*columns],
            rows[1] + [*columns.values()],
            *(r + [""] * len(columns) for r in rows[2:]),
        ],
    )


def test_reading_is_the_inverse_of_writing(tmp_path, beating):
    studies = [beating("p0"), dataclasses.replace(beating("p1", 1), infarct=None)]
    write_layout(tmp_path, studies)
    cases = find_cases(tmp_path)
    assert [(c.case_id, c.patient_id, c.pathology, c.frame) for c in cases] == [
        ("p0", "p0", "a", None),
        ("p1", "p1", "a", None),
    ]
    cine = read_cine(cases[0].image)
    np.testing.assert_array_equal(cine.frames, studies[0].image)
    corner = cine.volume.TransformIndexToPhysicalPoint((39, 47, 2))
    np.testing.assert_allclose(corner, (studies[0].affine @ [39, 47, 2, 1])[:3], atol=1e-3)
    data = CineDataModule()
    mask = sitk.GetArrayFromImage(data.read_mask(cases[0], cine.volume))
    expected = np.where(studies[0].infarct == 1, 1, 2 * (studies[0].mask[0] == 1))
    np.testing.assert_array_equal(mask, expected)
    assert set(np.unique(mask[0])) == {0, 2}
    assert data.read_mask(cases[1], cine.volume) is None
    assert (data.prepare_case(cases[1]).mask == UNLABELLED).all()


def test_a_folder_of_dicom_is_the_same_cine(tmp_path, beating):
    study = beating("DET0000101")
    stacom.write_layout(tmp_path, [study])
    write_layout(tmp_path, [study])
    edit(tmp_path, lambda rows: [rows[0], [*rows[1][:3], "Training/DET0000101", *rows[1][4:]]])
    (case,) = find_cases(tmp_path)
    np.testing.assert_array_equal(read_cine(case.image).frames, study.image)
    assert count_slices_of_cine(case.image) == 3
    prepared = CineDataModule().prepare_case(case)
    assert prepared.image.shape == (3, 25, 64, 64)
    assert (prepared.mask == 1).any()


def folds(root, train, val=(), test=()):
    path = root / "folds.json"
    path.write_text(json.dumps([{"train": train, "val": [*val], "test": [*test]}]))
    return path


@pytest.mark.parametrize("noise", [0.0, 60.0])
@pytest.mark.parametrize("centre", [CENTRE, (26.0, 17.0)])
def test_the_region_is_around_what_beats(beating, centre, noise):
    frames = beating("p", centre=centre, noise=noise).image.astype(np.float32)
    rng = np.random.default_rng(1)
    frames[:, :, :2] += rng.uniform(0, 3000, (PHASES, 3, 2, COLUMNS))  # flickers at the rim
    row, column = moving_centre(frames, STEP)
    assert np.hypot((row - centre[0]) * STEP[0], (column - centre[1]) * STEP[1]) < 3


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cine is not beside this checkout")
def test_the_region_of_a_real_cine_is_around_its_left_ventricle():
    files = [file for phase, _ in phases_in(REAL / "SCD0000201") for file in phase]
    cine = read_cine(files)
    assert cine.frames.shape == (20, 13, 256, 256)
    contours = (REAL / "contours" / "i-contours").glob("*.txt")
    column, row = np.mean([np.loadtxt(contour).mean(axis=0) for contour in contours], axis=0)
    found = moving_centre(cine.frames, cine.volume.GetSpacing()[1::-1])
    assert np.hypot(found[0] - row, found[1] - column) * 1.367 < 10


def test_the_region_around_the_myocardium_is_that_of_its_box():
    region = np.zeros((3, 20, 30), bool)
    region[0, 4:9, 3], region[2, 10, 12] = True, True
    assert box_centre(region) == (7.0, 7.5)
    assert box_centre(region & False) is None


def test_a_beat_is_interpolated_in_time_and_closes():
    time = np.arange(13) / 13
    frames = np.cos(2 * np.pi * time).astype(np.float32)[:, None]
    found = resample_beat(frames, 25)[:, 0]
    # a straight line between two phases misses a cosine by 1 - cos(pi / 13) at most
    np.testing.assert_allclose(found, np.cos(2 * np.pi * np.arange(25) / 25), atol=0.03)
    assert np.abs(found - np.cos(2 * np.pi * np.arange(25) / 25)).max() > 0.01
    assert found[24] == pytest.approx(frames[12, 0] * 13 / 25 + frames[0, 0] * 12 / 25, abs=1e-6)
    two = np.array([[1.0], [3.0]], np.float32)
    np.testing.assert_array_equal(resample_beat(two, 4)[:, 0], [1, 2, 3, 2])
    np.testing.assert_array_equal(resample_beat(resample_beat(frames, 26), 13), frames)


def test_as_many_phases_as_wanted_stay_what_they_are():
    frames = np.random.default_rng(0).normal(size=(25, 2, 3)).astype(np.float32)
    assert resample_beat(frames, 25) is frames


def test_a_batch_keeps_the_contract(clean):
    data = module(clean)
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch["image"].shape[1:] == (1, 25, 64, 64)
    assert batch["image"].dtype == batch["indices"].dtype == torch.float32
    assert (batch["mask"].shape[1:], batch["mask"].dtype) == ((64, 64), torch.int64)
    assert batch["indices"].shape[1:] == (8,)
    torch.testing.assert_close(batch["spacing"][0], torch.tensor([8.0, 1.77, 1.77]))
    seen = batch["image"][0, 0, :, batch["image"][0, 0].any(0)]
    assert float(seen.mean()) == pytest.approx(0, abs=1e-3)
    assert float(seen.std()) == pytest.approx(1, abs=1e-2)


def with_pixels_of(study, spacing_mm):
    affine = study.affine.copy()
    affine[:3, :2] *= spacing_mm / np.linalg.norm(affine[:3, :2], axis=0)
    return dataclasses.replace(study, affine=affine)


def test_pixels_as_large_as_wanted_are_those_of_the_file(tmp_path, beating):
    study = with_pixels_of(beating("p"), 1.77)
    write_layout(tmp_path, [study])
    (case,) = find_cases(tmp_path)
    image, _, _, (row, column) = CineDataModule(matrix=(20, 20), frames=PHASES).prepare_input(case)
    top, left = round(row - 9.5), round(column - 9.5)
    crop = study.image[..., top : top + 20, left : left + 20].swapaxes(0, 1)
    for ours, theirs in zip(image, crop, strict=True):
        np.testing.assert_allclose(ours, (theirs - theirs.mean()) / theirs.std(), atol=1e-3)


def test_indices_of_pixels_of_the_file_are_those_of_the_file(tmp_path, beating):
    study = with_pixels_of(beating("p"), 1.77)
    write_layout(tmp_path, [study])
    data = CineDataModule()
    prepared = data.prepare_case(*find_cases(tmp_path))
    ours = data.indices_of(torch.tensor(prepared.mask), torch.tensor([prepared.spacing] * 3))
    theirs = infarct_indices(study.infarct > 0, (1.77, 1.77), study.mask[0] == 1)
    theirs[:, 3:5] -= prepared.origin
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert ours[0, :2].tolist() == [0, 0]
    assert ours[0, 2:].isnan().all()


def test_indices_are_those_of_the_mask_of_the_file(clean, beating):
    data = module(clean)
    study = beating("p3", 3)
    row = int(np.flatnonzero(data.case_table["patient_id"] == "p3")[0])
    (places,) = [data.store.slices_of([row])]
    ours = data.known_indices()[places].numpy()[1]
    theirs = infarct_indices(study.infarct > 0, STEP, study.mask[0] == 1)[1]
    ours[3:5] += data.store.origin[places[1]]
    for name, tolerance in {
        "size_mm2": 0.08 * theirs[0], "segment_percent": 2.0, "perimeter_mm": 0.1 * theirs[2],
        "centroid_y_mm": 1.0, "centroid_x_mm": 1.0, "major_axis_mm": 2.0, "minor_axis_mm": 2.0,
        "orientation_deg": 5.0,
    }.items():  # fmt: skip
        k = INDEX_NAMES.index(name)
        assert ours[k] == pytest.approx(theirs[k], abs=tolerance), name


def test_the_percentage_is_of_infarct_and_myocardium():
    mask = torch.zeros(1, 10, 10, dtype=torch.int8)
    mask[0, 2, :3], mask[0, 5, :9] = 1, 2
    data = CineDataModule()
    assert float(data.indices_of(mask, torch.ones(1, 3))[0, 1]) == pytest.approx(25)
    data.percent_of_roi = True
    assert float(data.indices_of(mask, torch.ones(1, 3))[0, 1]) == pytest.approx(3)
    assert data.indices_of(mask * 0 - 1, torch.ones(1, 3)).isnan().all()


def test_without_any_myocardium_the_percentage_is_of_the_crop_and_one_line_says_so(root, caplog):
    edit(root, lambda rows: [row[:5] for row in rows])
    data = module(root)
    data.setup("test")
    assert caplog.text.count("no myocardium: infarct is in % of the whole crop") == 1
    share = 100 * (data.store.mask == 1).mean((1, 2))
    np.testing.assert_allclose(data.known_indices()[:, 1], share, rtol=1e-5)


def test_a_case_that_lacks_the_myocardium_of_the_others_has_no_percentage(root, caplog):
    edit(root, lambda rows: [*rows[:2], [*rows[2][:5], ""], *rows[3:]])
    known = module(root).known_indices()
    assert "1 of 4 masks have no myocardium beside them" in caplog.text
    assert known[:, 1].isnan().tolist() == [False] * 3 + [True] * 3 + [False] * 6
    assert not known[:, 0].isnan().any()


def test_columns_take_the_place_of_what_is_measured(root):
    one_slice(root, size_mm2="123.5", centroid_y_mm="40", centroid_x_mm="30")
    data = module(root)
    plain = data.indices_of(
        torch.tensor(np.array(data.store.mask)), torch.tensor(data.store.spacing)
    )
    known = data.known_indices()
    assert float(known[0, 0]) == 123.5
    np.testing.assert_allclose(known[0, 3:5], [40, 30] - data.store.origin[0], rtol=1e-5)
    torch.testing.assert_close(known[0, 5:], plain[0, 5:])
    torch.testing.assert_close(known[1:], plain[1:])


def test_columns_are_enough_where_there_is_no_mask(root):
    one_slice(root, size_mm2="123.5")
    edit(root, lambda rows: [rows[0], *([*row[:4], "", *row[5:]] for row in rows[1:])])
    known = module(root, splits=folds(root, ["p0"], ["p1", "p2"], ["p3"])).known_indices()
    assert known.isfinite().sum() == 1


def training(data):
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    return data


def test_nothing_is_transformed_by_default(clean):
    data = training(module(clean, batch_size=99))
    batch = batch_of(data, data.train_dataloader())
    assert data.draws is None
    places = (data.store.case == int(batch["case"][0])) & (
        data.store.slice == int(batch["slice"][0])
    )
    np.testing.assert_array_equal(batch["image"][0, 0], data.store.image[places][0])


def test_frames_mask_and_indices_move_together():
    data = CineDataModule(matrix=(32, 32))
    mask = torch.zeros(5, 32, 32, dtype=torch.int8)
    mask[:, 8:20, 10:24], mask[:, 12:16, 12:22] = 2, 1
    image = (mask == 1).float()[:, None, None] * torch.arange(1.0, 5.0)[:, None, None]
    draws = draw(
        Augmentation(probability=1.0, translation=0.1),
        5,
        (32, 32),
        torch.Generator().manual_seed(1),
    )
    moved_mask = transform_mask(mask, draws, 3)
    moved, _ = data.transform(image, moved_mask, draws)
    assert moved.shape == image.shape
    assert set(moved_mask.unique().tolist()) == {0, 1, 2}
    assert not torch.equal(moved_mask, mask)
    for t in range(4):
        share = moved[:, 0, t] / (t + 1)
        assert bool((moved_mask[share > 0.67] == 1).all())
        assert bool((moved_mask[share < 0.33] != 1).all())


def test_indices_follow_the_moved_mask_and_those_of_the_table_do_not(root):
    one_slice(root, size_mm2="123.5")
    settings = {"probability": 0.6, "translation": 0.1, "rotation_deg": 90.0}
    data = training(
        module(
            root,
            augmentation=Augmentation(**settings),
            copies=9,
            batch_size=99,
            splits=folds(root, ["p0", "p1"], ["p2"], ["p3"]),
        )
    )
    batch = batch_of(data, data.train_dataloader())
    moved = (data.draws.theta != torch.eye(2, 3)).flatten(1).any(1)
    given = batch["case"] == 0
    assert 0 < int(moved.sum()) < 20
    measured = data.indices_of(batch["mask"], batch["spacing"])
    known = data.known_indices()[batch["case"]]
    torch.testing.assert_close(batch["indices"][~moved], known[~moved])
    torch.testing.assert_close(
        batch["indices"][moved & ~given], measured[moved & ~given], equal_nan=True
    )
    assert batch["indices"][moved & given, 0].isnan().all()
    torch.testing.assert_close(
        batch["indices"][moved & given, 2:], measured[moved & given, 2:], equal_nan=True
    )
    assert bool(
        (known[moved, 3:5] - measured[moved, 3:5]).abs().nan_to_num(9).amax(1).gt(0.1).all()
    )


def test_the_scale_is_that_of_the_training_patients(root):
    parts = folds(root, ["p0", "p1"], ["p2"], ["p3"])
    data = module(root, splits=parts)
    scale = data.target_scale()
    known = data.known_indices()[:6].double()
    np.testing.assert_allclose(scale.mean[:7], np.nanmean(known, 0)[:7], rtol=1e-5)
    np.testing.assert_allclose(scale.sd[:7], np.nanstd(known, 0)[:7], rtol=1e-5)
    assert (float(scale.mean[7]), float(scale.sd[7])) == (0, 90)
    rewrite(root / "p3_mask.nii.gz", lambda v: v[::-1])
    rewrite(root / "p2_mask.nii.gz", lambda v: v[::-1])
    changed = module(root, splits=parts)
    assert all(torch.equal(a, b) for a, b in zip(scale, changed.target_scale(), strict=True))
    assert changed.store.folder != data.store.folder
    optimistic = module(root, splits=parts, paper_protocol=True).target_scale()
    assert not torch.equal(scale.mean, optimistic.mean)


def test_a_scale_of_one_value_is_above_zero(root):
    one_slice(root)
    scale = module(root, splits=folds(root, ["p0"], ["p1", "p2"], ["p3"])).target_scale()
    assert bool((scale.sd > 0).all())


def test_a_mask_goes_back_to_where_it_was(clean):
    data = module(clean)
    case = data.cases[5]
    prepared, volume, spacing, centre = data.prepare_input(case)
    assert prepared.shape == (3, 25, 64, 64)
    stored = data.store.slices_of([5])
    np.testing.assert_allclose(prepared, data.store.image[stored], atol=2e-3)
    back = restore((data.store.mask[stored] > 0).astype(np.float32), volume, spacing, centre) > 0.5
    truth = sitk.GetArrayFromImage(data.read_mask(case, volume)) > 0
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95


def test_slices_run_from_base_to_apex(tmp_path, beating):
    one = beating("p")
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 2
    affine[:3, 2] *= -1
    turned = dataclasses.replace(
        one,
        image=one.image[:, ::-1],
        mask=one.mask[:, ::-1],
        infarct=one.infarct[::-1],
        affine=affine,
    )
    prepared = []
    for name, study in (("as_is", one), ("turned", turned)):
        write_layout(tmp_path / name, [study])
        (case,) = find_cases(tmp_path / name)
        prepared.append(CineDataModule().prepare_case(case))
    np.testing.assert_array_equal(prepared[0].mask, prepared[1].mask)
    np.testing.assert_allclose(prepared[0].image, prepared[1].image, atol=1e-4)
    assert prepared[0].mask[0].max() == 2


def test_the_crop_around_the_reference_has_to_be_asked_for_and_is_said(root, caplog):
    data = module(root)
    assert (data.crop, data.crop_asks_reference) == ("113 x 113 mm around what beats", False)
    assert "cropped" not in caplog.text
    other = module(root, roi="myocardium")
    assert other.crop_asks_reference
    assert "cropped 113 x 113 mm around the myocardium of the reference, in the test" in caplog.text
    assert other.store.folder != data.store.folder
    rewrite(root / "p0_myocardium.nii.gz", lambda v: np.roll(v, 3, axis=0))
    assert module(root).store.folder != data.store.folder  # its bytes count
    edit(root, lambda rows: [*rows[:2], [*rows[2][:5], ""], *rows[3:]])
    with pytest.raises(
        UserError, match=r"^data\.roi: case 'p1' has no myocardium to crop around;"
    ) as caught:
        module(root, roi="myocardium")
    assert caught.value.code == "no_myocardium"


def test_images_to_predict_are_whole_cines(root):
    for name in ("p0_image.nii.gz", "p1_image.nii.gz"):
        (root / "new").mkdir(exist_ok=True)
        (root / name).rename(root / "new" / name)
    cases = find_inputs(root / "new", whole_cines=True)
    assert [case.case_id for case in cases] == ["p0_image", "p1_image"]
    assert CineDataModule().prepare_input(cases[0]).image.shape == (3, 25, 64, 64)
    assert len(find_inputs(root / "new")) == 2 * PHASES


def spacing_zero(path):
    file = nib.load(path)
    file.header["qform_code"], file.header["sform_code"] = 0, 2
    file.header["srow_x"][2] = file.header["srow_y"][2] = file.header["srow_z"][2] = 0
    nib.Nifti1Image(np.asanyarray(file.dataobj), None, file.header).to_filename(path)


FAULTS = {
    "3-D": (lambda r: rewrite(r / "p1_image.nii.gz", lambda v: v[..., 0]), "no_phases", r"p1_image\.nii\.gz: holds one phase, not a cine of several; give"),
    "one phase": (lambda r: rewrite(r / "p1_image.nii.gz", lambda v: v[..., :1]), "no_phases", "holds one phase, not a cine of several; give"),
    "mask with phases": (lambda r: rewrite(r / "p1_mask.nii.gz", lambda v: np.stack([v] * 6, -1)), "dimensions", r"p1_mask\.nii\.gz: has the shape \(40, 48, 3, 6\), and belongs to all phases"),
    "mask of another size": (lambda r: rewrite(r / "p1_mask.nii.gz", lambda v: v[1:]), "mask_size", "the mask has 39 x 48 x 3 voxels, its image 40 x 48 x 3"),
    "myocardium elsewhere": (lambda r: rewrite(r / "p1_myocardium.nii.gz", affine=np.eye(4)), "mask_geometry", r"p1_myocardium\.nii\.gz: the mask differs from its image in spacing"),
    "two structures": (lambda r: rewrite(r / "p1_myocardium.nii.gz", lambda v: v + (v > 0) * np.arange(3, dtype=np.uint8)), "undeclared_label", r"holds the values \[1\.0, 2\.0, 3\.0\]; keep one value"),
    "spacing zero": (lambda r: spacing_zero(r / "p1_image.nii.gz"), "spacing", "has a spacing of 1.4 x 1.6 x 0 mm"),
    "not finite": (lambda r: rewrite(r / "p1_image.nii.gz", lambda v: np.where(np.arange(6) == 4, np.nan, v).astype(np.float32)), "not_finite", r"voxels that are NaN or infinite, in slices \[0, 1, 2\]"),
    "nothing moves": (lambda r: rewrite(r / "p1_image.nii.gz", lambda v: v * 0 + v[..., :1]), "no_motion", "nothing moves: all its phases are alike; give the phases"),
    "missing file": (lambda r: (r / "p1_myocardium.nii.gz").unlink(), "missing_file", "row 3: no file 'p1_myocardium.nii.gz'"),
    "no number": (lambda r: one_slice(r, size_mm2="big"), "index_value", r"row 2: size_mm2 'big' is not a number; give"),
    "several slices": (lambda r: edit(r, lambda rows: [[*row, "size_mm2" if k == 0 else "7"] for k, row in enumerate(rows)]), "index_of_slices", "row 2: size_mm2 given for the 3 slices of its image; leave"),
    "no infarct": (lambda r: [rewrite(path, lambda v: v * 0) for path in r.glob("*_mask.nii.gz")], "no_infarct", "no infarct in any slice of the training part"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_named_in_one_line(name, root):
    spoil, code, message = FAULTS[name]
    spoil(root)
    with pytest.raises(UserError, match=message) as caught:
        module(root)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_misspelt_column_is_noticed(root, caplog):
    edit(root, lambda rows: [[*rows[0][:5], "wall"], *rows[1:]])
    find_cases(root)
    assert not caplog.text
    edit(root, lambda rows: [[*rows[0][:5], "myocardum"], *rows[1:]])
    find_cases(root)
    assert "column 'myocardum' is not read as 'myocardium': misspelt?" in caplog.text


def test_check_reads_the_layout(root, capsys):
    def check():
        words = ["check", "--config", "data/cine", "--data.root", str(root), "--json"]
        status = main([*words, "--output", str(root.parent / "out")])
        return status, [(f["code"], f["case"]) for f in json.loads(capsys.readouterr().out)]

    rewrite(root / "p2_mask.nii.gz", lambda v: v * 0)  # a heart without infarct is no fault
    edit(root, lambda rows: [*rows[:3], [*rows[3][:5], ""], *rows[4:]])
    assert check() == (0, [])
    rewrite(root / "p0_mask.nii.gz", lambda v: v[1:])
    rewrite(root / "p1_image.nii.gz", lambda v: v[..., 0])
    status, found = check()
    assert status == 1
    assert sorted(found) == [("mask_size", "p0"), ("no_phases", "")]
