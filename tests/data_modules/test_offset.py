"""Masks beside their images: measured where the truth is known, and kept by augmentation."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cardiac_mtl.cli import main
from data_modules.augment import ON_IMAGE, Augmentation, draw, transform
from data_modules.cases import Case
from data_modules.cine import INFARCT, MYOCARDIUM, CineDataModule
from data_modules.offset import Offset, mask_offset, measurable, offset_of, typical

SIDE = 48
PIXELS = st.floats(-1.4, 1.4)


def smooth(edge, radius):
    return 1 / (1 + np.exp((radius - edge) / 0.6))


def hearts(place=(0.0, 0.0), *, slices=4, noise=0.0, blood=1.0, centre=(0.0, 0.0), seed=0):
    """Return images (S, H, W) and muscle that lies beside them by `place`, column and row."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    rng = np.random.default_rng(seed)
    image, muscle = np.zeros((2, slices, SIDE, SIDE))
    for k, (x, y) in enumerate(rng.uniform(-2, 2, (slices, 2)) + centre):
        radius = np.hypot(axis - x, axis[:, None] - y)
        image[k] = 0.4 * smooth(13, radius) * -blood + 1.2 * blood * smooth(8, radius)
        drawn = np.hypot(axis - x - place[0], axis[:, None] - y - place[1])
        muscle[k] = (drawn < 13) & (drawn >= 8)
    image += noise * rng.normal(size=image.shape)
    return image.astype(np.float32), muscle.astype(bool)


@settings(max_examples=15, deadline=None)
@given(column=PIXELS, row=PIXELS, blood=st.sampled_from([1.0, -1.0]))
def test_a_known_offset_is_found_whichever_is_the_brighter(column, row, blood):
    found = mask_offset(*hearts((column, row), blood=blood, noise=0.1))
    assert found == pytest.approx((column, row), abs=0.1)


def test_noise_does_not_prefer_half_pixels():
    place = (0.2, -0.2)
    found = [mask_offset(*hearts(place, slices=10, noise=0.2, seed=s)) for s in range(12)]
    assert np.mean(found, axis=0) == pytest.approx(place, abs=0.05)


def test_a_heart_at_the_border_of_its_image_is_measured_too():
    found = mask_offset(*hearts((0.5, -0.5), centre=(9, 9)))
    assert found == pytest.approx((0.5, -0.5), abs=0.1)


def test_a_wall_that_encloses_nothing_tells_nothing():
    image, muscle = hearts()
    muscle[:, :, : SIDE // 2] = False
    assert mask_offset(image, muscle) is None
    assert mask_offset(np.ones_like(image), hearts()[1]) is not None  # nor does one brightness


def test_an_infarct_of_a_cine_is_wall_and_no_blood():
    """It lies along the blood, on the left of these hearts, and is as dark as the muscle."""
    place = (0.4, -0.3)
    image, muscle = hearts(place, noise=0.1)
    blood = np.stack([ndimage.binary_fill_holes(one) & ~one for one in muscle])
    along = ndimage.binary_dilation(blood, np.ones((1, 3, 3)), iterations=2)
    infarct = muscle & along & (np.arange(SIDE) < SIDE // 2)
    mask = torch.tensor(np.where(infarct, INFARCT, MYOCARDIUM * muscle))
    frames = torch.tensor(image)[:, None].expand(-1, 3, -1, -1)
    store = SimpleNamespace(slices_of=lambda _: [0], gather=lambda _: (frames, mask))
    found = offset_of(store, [0], CineDataModule().wall)
    assert found is not None
    assert found.place == pytest.approx(place, abs=0.1)


def test_hearts_are_summed_up_by_their_median():
    found = typical([(0.5, 0.1), None, (0.4, 0.3), (-3.0, 0.2)])
    assert found is not None
    assert (found.place, found.hearts) == ((0.4, 0.2), 3)
    assert found.error == pytest.approx(
        (np.std([0.5, 0.4, -3], ddof=1) / math.sqrt(3), 0.1 / math.sqrt(3))
    )
    assert typical([None]) is None


def test_the_first_case_of_a_patient_that_may_be_looked_at_is_measured():
    path = Path("m.nii.gz")
    one = Case("a_ed", "a", (path,), (path,))
    others = [
        replace(one, case_id="a_es"),
        Case("b", "b", (path,), ()),
        replace(one, patient_id="c", sequence="LGE"),
        replace(one, patient_id="c", sequence="lge "),
        replace(one, patient_id="d", withheld=True),
        replace(one, patient_id="e", transferred="C0"),
        replace(one, patient_id="f", sequence="C0"),
    ]
    assert measurable([one, *others]) == {"a": 0, "f": 7}


def test_an_offset_is_said_in_words():
    said = str(Offset(-0.5, 0.25, (0.1, 0.02), 7))
    assert said == (
        "0.50 ± 0.10 pixels to the left of the images and 0.25 ± 0.02 below (7 patients)"
    )


def test_one_patient_has_no_error_to_tell():
    found = typical([(0.4, -0.3)])
    assert str(found) == "0.40 pixels to the right of the images and 0.30 above (1 patient)"


@pytest.mark.parametrize(("kept", "expected"), [(True, (0.6, -0.2)), (False, (0.0, 0.0))])
def test_masks_lie_beside_turned_images_as_beside_their_own_where_that_is_kept(kept, expected):
    place, count = (0.6, -0.2), 60
    image, muscle = hearts(place, slices=count)
    turns = Augmentation(probability=1, translation=0.05, flip=True)
    moved, mask = transform(
        torch.tensor(image)[:, None],
        torch.tensor(muscle, dtype=torch.int8),
        draw(turns, count, (SIDE, SIDE), torch.Generator().manual_seed(0)),
        offset=place if kept else ON_IMAGE,
    )
    found = mask_offset(moved[:, 0].numpy(), mask.numpy() > 0)
    assert found == pytest.approx(expected, abs=0.1)


def test_samples_that_chance_left_alone_keep_their_masks():
    image, muscle = hearts((0.6, -0.2))
    still = draw(Augmentation(probability=0), len(image), (SIDE, SIDE), torch.Generator())
    before = torch.tensor(muscle, dtype=torch.int8)
    _, mask = transform(torch.tensor(image)[:, None], before, still, offset=(0.6, -0.2))
    assert torch.equal(mask, before)


@pytest.fixture
def write(tmp_path):
    """Return the maker of a folder of patients whose masks lie alike."""

    def make(patients, place=(0.4, 0.3), sequence=""):
        rows = ["case_id,patient_id,image,mask,sequence"]
        for n in range(patients):
            for kind, array in zip("im", hearts(place, noise=0.1, seed=n), strict=True):
                volume = nib.Nifti1Image(array.astype(np.float32).T, np.diag([1.4, 1.4, 8, 1]))
                nib.save(volume, tmp_path / f"{n}_{kind}.nii.gz")
            rows.append(f"p{n},p{n},{n}_i.nii.gz,{n}_m.nii.gz,{sequence}")
        (tmp_path / "cases.csv").write_text("\n".join(rows))
        return tmp_path

    return make


def checked(root, capsys):
    words = ["check", "--config", "manifest", "--data.root", str(root), "--json"]
    status = main([*words, "--output", str(root / "check")])
    return status, json.loads(capsys.readouterr().out)


def test_check_tells_of_masks_that_lie_beside_their_images(write, capsys):
    root = write(6)
    status, (finding,) = checked(root, capsys)
    assert (status, finding["severity"], finding["code"]) == (0, "warning", "mask_offset")
    assert finding["file"] == str(root)
    assert "pixels to the right of the images" in finding["message"]
    assert "--data.augmentation.keep_offset true" in finding["message"]


@pytest.mark.parametrize(
    "cohort",
    [
        {"patients": 6, "place": ON_IMAGE},
        {"patients": 4},  # four may lie alike by chance
        {"patients": 6, "sequence": "LGE"},  # where scars are as bright as blood
    ],
)
def test_check_is_silent_where_nothing_is_known_to_be_wrong(cohort, write, capsys):
    assert checked(write(**cohort), capsys) == (0, [])


def test_a_run_measures_its_training_patients_and_writes_it_down(write, tmp_path, capsys):
    words = "fit --config mtn_unet --config manifest --data.matrix [48,48] --data.spacing_mm null"
    quick = "--model.width 4 --trainer.fast_dev_run true --trainer.accelerator cpu"
    folders = ["--data.root", str(write(6)), "--run_root", str(tmp_path / "runs")]
    keep = ["--data.augmentation.keep_offset", "true"]
    assert main([*words.split(), *quick.split(), *folders, *keep]) == 0
    (run,) = (tmp_path / "runs").rglob("run.json")
    facts = json.loads(run.read_text())
    assert facts["mask_offset_px"] == pytest.approx((0.4, 0.3), abs=0.1)
    assert "; augmentation keeps that" in capsys.readouterr().out
