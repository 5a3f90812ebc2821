"""T1 maps: reading is the inverse of writing, padding is exact, units and other faults are named."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiac_mtl.cli import main
from cardiac_mtl.contracts import T1Study
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.collect import CollectedCase
from cardiac_mtl.phantom_files import write_cohort
from data_modules.cases import Case
from data_modules.findings import noticed
from data_modules.geometry import prepare_mask, restore
from data_modules.manifest import ManifestDataModule
from data_modules.t1 import T1DataModule, find_cases, reached_part, write_layout

SUNNYBROOK = Path(__file__).parents[3] / "shared" / "data" / "sunnybrook"


def study(number, label=0, slices=2, shape=(20, 26)):
    rng = np.random.default_rng(number)
    mask = np.zeros((slices, *shape), np.uint8)
    mask[:, 6:14, 8:18] = 1
    mask[:, 8:12, 10:16] = 0
    affine = np.diag([1.2, 1.3, 17.0, 1.0])
    affine[:3, 3] = [-10, 5, 7]
    return T1Study(
        patient_id=f"p{number:02d}",
        image=rng.integers(300, 1900, mask.shape).astype(np.uint16),
        mask=mask,
        affine=affine,
        label=label,
        pathology="fibrosis" if label else "healthy",
        truth={"t1_ms": 1184.5},
    )


STUDIES = [study(n, label=int(n % 5 == 4)) for n in range(15)]


@pytest.fixture
def root(tmp_path):
    write_layout(tmp_path / "maps", STUDIES)
    return tmp_path / "maps"


def module(root, **changes):
    options = {"matrix": (32, 32), "num_folds": 3, "cache_dir": root.parent / "cache"}
    data = T1DataModule(root, **options | changes)
    data.setup("fit")
    return data


def change_image(root, change, name="p00"):
    path = root / f"{name}_image.nii.gz"
    old = nib.load(path)
    nib.Nifti1Image(change(np.asanyarray(old.dataobj)), old.affine).to_filename(path)


def change_table(root, change):
    with (root / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with (root / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_reading_is_the_inverse_of_writing(root):
    data, cases = T1DataModule(), find_cases(root)
    assert [case.case_id for case in cases] == [one.patient_id for one in STUDIES]
    for one, case in zip(STUDIES, cases, strict=True):
        image = data.read_image(case)
        mask = data.read_mask(case, image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), one.image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), one.mask)
        corner = image.TransformIndexToPhysicalPoint((25, 19, 1))
        np.testing.assert_allclose(corner, (one.affine @ [25, 19, 1, 1])[:3], atol=1e-4)
        assert (case.label, case.pathology) == (one.label, one.pathology)
    assert T1DataModule(root).is_phantom


def test_a_map_is_padded_by_whole_pixels_and_scaled_as_all_are_or_alone(root):
    first = STUDIES[0].image[0].astype(np.float64)
    for fixed, (middle, unit) in {True: (0, 1000), False: (first.mean(), first.std())}.items():
        data = module(root, fixed_scale=fixed)  # in one cache: each has a store of its own
        expected = np.pad((first - middle) / unit, ((6, 6), (3, 3)))
        np.testing.assert_allclose(data.store.image[0], expected, atol=2e-3)
    np.testing.assert_array_equal(data.store.mask[0], np.pad(STUDIES[0].mask[0], ((6, 6), (3, 3))))
    np.testing.assert_allclose(data.store.spacing[0], [17.0, 1.3, 1.2])


def test_maps_are_scaled_alike_unless_told_otherwise():
    assert T1DataModule().preparation["unit_ms"] == 1000
    assert T1DataModule(fixed_scale=False).preparation["unit_ms"] is None


sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))


@settings(max_examples=60, deadline=None)
@given(size=sizes, more=st.tuples(st.integers(0, 12), st.integers(0, 12)), seed=st.integers(0, 99))
def test_there_and_back_is_exact_to_the_voxel(size, more, seed):
    rng = np.random.default_rng(seed)
    mask = sitk.GetImageFromArray(rng.integers(0, 2, (2, *size)).astype(np.int16))
    mask.SetSpacing((1.172, 1.406, 8.0))
    mask.SetOrigin((-123.4, 56.7, 8.9))
    mask.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    matrix = (size[0] + more[0], size[1] + more[1])
    data = T1DataModule(matrix=matrix)
    spacing, centre = data.spacing_of(mask), data.centre_of(Case("c", "p", ()), mask)
    prepared = prepare_mask(mask, matrix, spacing, centre)
    rows, columns = reached_part(size, matrix)
    held = sitk.GetArrayFromImage(mask)
    np.testing.assert_array_equal(prepared[:, rows, columns], held)
    assert prepared.sum() == held.sum()
    back = restore(prepared.astype(np.float32), mask, spacing, centre)
    np.testing.assert_allclose(back, held, atol=1e-6)


def test_the_papers_images_are_padded_three_columns_a_side():
    assert reached_part((256, 218), (256, 224)) == (slice(0, 256), slice(3, 221))
    assert reached_part((300, 218), (256, 224)) == (slice(0, 256), slice(3, 221))


def test_padding_is_taken_away_before_a_case_is_scored(root):
    data = module(root)
    grid = np.arange(2 * 32 * 32, dtype=np.float32).reshape(2, 32, 32)
    case = CollectedCase(
        row=0,
        slices=np.arange(2),
        image=grid,
        reference=np.zeros((2, 32, 32), np.int8),
        predicted=np.ones((2, 32, 32), np.uint8),
        spacing=(17.0, 1.3, 1.2),
        indices=None,
        reference_indices=np.zeros((2, 1), np.float32),
        probability=grid,
    )
    part = case.within(*data.scored_part(0))
    assert part.predicted.shape == part.reference.shape == (2, 20, 26)
    np.testing.assert_array_equal(part.image, grid[:, 6:26, 3:29])
    np.testing.assert_array_equal(part.probability, part.image)
    assert T1DataModule(spacing_mm=1.5).scored_part(0) == (slice(None), slice(None))


def test_maps_that_are_larger_are_cropped_and_it_is_said(root):
    with noticed() as found:
        data = module(root, matrix=(16, 16))
    assert any("15 of 15 maps are larger than 16 x 16" in one.message for one in found)
    np.testing.assert_array_equal(data.store.mask[0], STUDIES[0].mask[0][2:18, 5:21])


def test_every_fold_keeps_the_share_of_the_diseased_and_no_patient_is_in_two_parts(root):
    data = module(root)
    ill = {one.patient_id for one in STUDIES if one.label}
    for split in data.splits:
        assert len(set(split.test) & ill) == 1
        assert len(split.test) == 5
        assert not set(split.test) & {*split.train, *split.val}


def test_every_sample_is_turned_and_shifted_a_little_and_anew_in_each_epoch(root):
    data = T1DataModule(root)
    assert data.augmentation.probability == 1
    assert (data.augmentation.rotation_deg, data.augmentation.translation) == (15, 0.1)
    assert (data.copies, data.batch_size, data.matrix) == (0, 16, (256, 224))


def test_a_batch_holds_labels_and_masks(root):
    batch = next(iter(module(root).test_dataloader()))
    ill = torch.tensor([STUDIES[k].label for k in batch["case"]])
    assert batch["label"].dtype == torch.int64
    assert torch.equal(batch["label"], ill)
    assert {0, 1} == set(batch["label"].tolist()) == set(batch["mask"].unique().tolist())


def test_balanced_training_sees_each_class_equally_often(root):
    data = module(root, balance_classes=True)
    labels = torch.cat([batch["label"] for batch in data.train_dataloader()])
    assert (labels == 0).sum() == (labels == 1).sum() > 0
    plain = torch.cat([batch["label"] for batch in module(root).train_dataloader()])
    assert (plain == 0).sum() > 2 * (plain == 1).sum()
    assert len(torch.cat([b["label"] for b in data.test_dataloader()])) == 10


def test_words_and_numbers_are_labels_and_other_words_are_refused(root):
    def words(row):
        row["label"] = {"0": "healthy", "1": "diseased"}[row["label"]]

    change_table(root, words)
    assert [case.label for case in find_cases(root)] == [one.label for one in STUDIES]
    change_table(root, lambda row: row.update(label="ill"))
    with pytest.raises(UserError, match="label 'ill' is neither healthy nor diseased nor a whole"):
        find_cases(root)


def test_a_label_may_come_from_another_column(root):
    change_table(root, lambda row: row.update(label=""))
    data = T1DataModule(root, label_from="pathology", healthy="healthy")
    assert [case.label for case in data.find_cases(root)] == [one.label for one in STUDIES]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: (v / 1000).astype(np.float32), "it is in seconds; multiply it by 1000"),
        (lambda v: (v * 10).astype(np.int32), "its values are scaled; apply the rescale slope"),
        (lambda v: (v * 0.1).astype(np.float32), "its values are scaled"),
        (lambda v: v * 0, "has a median of 0, where T1 in ms has 200 to 3000"),
        (lambda v: np.stack([v] * 8, -1), "holds 8 phases, not one volume; give the volume alone"),
    ],
)
def test_what_is_no_map_in_ms_is_one_line_in_fit_and_in_check(root, capsys, change, message):
    change_image(root, change)
    with pytest.raises(UserError, match=message.partition(";")[0]) as refused:
        module(root)
    assert "\n" not in str(refused.value)
    assert (
        main(
            [
                "check",
                "--config",
                "data/t1",
                "--data.root",
                str(root),
                "--json",
                "--output",
                str(root),
            ]
        )
        == 1
    )
    errors = [f for f in json.loads(capsys.readouterr().out) if f["severity"] == "error"]
    assert len(errors) == 1
    assert message in errors[0]["message"]


def test_a_wall_that_native_myocardium_cannot_have_is_noticed(root):
    change_image(root, lambda v: v * 2)
    data = T1DataModule()
    case = find_cases(root)[0]
    with noticed() as found:
        data.read_mask(case, data.read_image(case))
    (one,) = found
    assert (one.code, one.severity) == ("t1_wall", "warning")
    assert "native is 600 to 1800" in one.message


def test_a_map_that_is_mostly_blacked_out_is_still_in_ms(root):
    change_image(
        root, lambda voxels: np.where(np.arange(len(voxels))[:, None, None] < 5, voxels, 0)
    )
    data = T1DataModule()
    voxels = sitk.GetArrayFromImage(data.read_image(find_cases(root)[0]))
    assert np.median(voxels) == 0 < np.median(voxels[voxels > 0])


def test_failed_fits_do_not_change_the_scale_of_a_map(root):
    def spoil(voxels):
        voxels = voxels.copy()
        voxels[0, 0, :2] = 32000, -32000
        return voxels

    change_image(root, spoil)
    found = sitk.GetArrayFromImage(T1DataModule().read_image(find_cases(root)[0]))
    assert (found.min(), found.max()) == (0, 3000)


def test_dicom_maps_are_rescaled_by_their_header(root, lvsc):
    source = min((lvsc / "Training").rglob("*_SA0_ph0.dcm"))
    dataset = pydicom.dcmread(source)
    pixels = np.full((dataset.Rows, dataset.Columns), 2400, np.uint16)
    pixels[:50] = 1000
    dataset.PixelData, dataset.RescaleSlope, dataset.RescaleIntercept = pixels.tobytes(), "0.5", "0"
    dataset.save_as(root / "map.dcm")
    change_table(root, lambda row: row.update(image="map.dcm", mask=""))
    case = find_cases(root)[0]
    values = sitk.GetArrayFromImage(T1DataModule().read_image(case))
    assert values.shape == (1, *pixels.shape)
    assert set(np.unique(values)) == {500, 1200}


def test_the_command_writes_maps_and_refuses_phases(tmp_path, capsys):
    words = ["phantom", "--layout", "t1", "--patients", "2", "--scale", "8"]
    assert main([*words, "--out", str(tmp_path / "a"), "--seed", "1"]) == 0
    for name in "bc":
        write_cohort("t1", tmp_path / name, patients=2, seed=1, scale=8)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "cases.csv" in files
    for file in files:
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()
    capsys.readouterr()
    assert main([*words, "--phases", "3", "--out", str(tmp_path / "d")]) == 2
    error = capsys.readouterr().err
    assert "layout t1 has no phases" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(not SUNNYBROOK.is_dir(), reason="the real hearts are not here")
def test_real_hearts_are_healthy_or_diseased_by_their_pathology(tmp_path):
    data = ManifestDataModule(
        SUNNYBROOK,
        label_from="pathology",
        healthy="normal",
        stratify_by="label",
        cache_dir=tmp_path,
    )
    data.find_and_split()
    assert data.case_table["label"].value_counts().to_dict() == {1: 28, 0: 7}
    healthy = set(data.case_table["patient_id"][data.case_table["label"] == 0])
    assert all(1 <= len(set(split.test) & healthy) <= 2 for split in data.splits)
