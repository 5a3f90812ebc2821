"""MS-CMRSeg: who trains on which mask, what stays unseen, where crops lie, how batches are paired."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from lightning import LightningModule, Trainer

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.prediction import Predictor
from data_modules.augment import Augmentation
from data_modules.findings import noticed
from data_modules.mscmr import MSCMRDataModule
from data_modules.splits import read_splits

SIZES = {"LGE": (5, 40, 44), "C0": (4, 30, 33), "T2": (3, 36, 36)}
FIELD_MM = 60.0
VALUES = np.array([0, 500, 200, 600])


def heart(shape, slices):
    """Rings about the middle of the field: 1 LV, 2 myocardium, 3 RV; nothing on the first slice."""
    rows, columns = (((np.arange(n) + 0.5) / n - 0.5) * FIELD_MM for n in shape)
    radius = np.hypot(rows[:, None], columns)
    beside = np.hypot(rows[:, None], columns - 11) < 4
    mask = np.where(radius < 4, 1, np.where(radius < 7, 2, np.where(beside, 3, 0)))
    stack = np.repeat(mask[None], slices, axis=0)
    stack[0] = 0
    return stack.astype(np.int16)


def write(path, array, shift_mm=0.0):
    """Write (S, H, W) over a field of 60 mm and 40 mm along the slices."""
    slices, rows, columns = array.shape
    affine = np.diag([FIELD_MM / columns, FIELD_MM / rows, 40 / slices, 1.0])
    affine[:3, 3] = affine.diagonal()[:3] / 2
    affine[2, 3] += shift_mm
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.nifti1.Nifti1Image(array.T, affine).to_filename(path)


@pytest.fixture
def make(tmp_path):
    """Write patients 1 to `own` with an LGE mask, `helped` more with others, and `bare` without."""

    def cohort(own=3, helped=4, bare=1, withheld=(), shift_mm=None):
        root = tmp_path / "mscmr"
        for number in range(1, own + helped + bare + 1):
            rng = np.random.default_rng(number)
            for sequence, (slices, *shape) in SIZES.items():
                mask = heart(shape, slices)
                name = f"patient{number}_{sequence}"
                image = (rng.integers(20, 90, mask.shape) + 100 * mask).astype(np.int16)
                apart = (shift_mm or {}).get(name, 0.0)
                write(root / f"{name}.nii.gz", image, apart)
                masked = number <= own if sequence == "LGE" else number <= own + helped
                if masked:
                    labels = VALUES[mask].astype(np.int16)
                    write(root / f"{name}_manual.nii.gz", labels, apart)
                elif sequence == "LGE" and number in withheld:
                    # of one pixel, so that it is told from every other mask
                    one = np.zeros_like(mask)
                    one[1, 20, 20] = 600
                    write(root / "withheld" / f"{name}_manual.nii.gz", one)
        return root

    return cohort


def module(root, **settings):
    given = {"matrix": (32, 32), "cache_dir": root.parent / "cache", "batch_size": 4} | settings
    return MSCMRDataModule(root, **given)


def fitted(root, **settings):
    data = module(root, **settings)
    data.setup("fit")
    return data


def read(data, loader):
    """Return the case ids of every sample of a loader, its masks, and which were carried over."""
    batches = list(loader)
    rows = torch.cat([batch["case"] for batch in batches]).tolist()
    masks = torch.cat([batch["mask"] for batch in batches])
    ids = [data.cases[row].case_id for row in rows]
    return ids, masks, torch.cat([batch["transferred"] for batch in batches])


def said(data, code):
    """Return what is noticed of each case, in this process: a pool would keep it to itself."""
    with noticed() as odd:
        for case in data.cases:
            data.prepare_case(case)
    return {finding.file: finding.message for finding in odd if finding.code == code}


def numbers(patients):
    return sorted(int(patient.removeprefix("patient")) for patient in patients)


def test_the_roles_of_the_paper_train_on_the_labelled_and_test_all_others(make):
    data = fitted(make())
    split = data.split
    assert numbers(split.train) == [1, 2, 3]
    assert split.val == ()
    assert numbers(split.test) == [4, 5, 6, 7, 8]
    assert numbers(split.transductive) == [4, 5, 6, 7]
    assert data.transfer_patients == split.transductive
    assert data.val_dataloader() == []


def test_table_1_tests_the_last_labelled_patients_and_trains_nowhere_on_them(make):
    data = fitted(make(own=5), protocol="table1")
    assert numbers(data.split.test) == [4, 5]
    assert numbers(data.split.train) == [1, 2, 3, 6, 7, 8, 9]
    assert data.split.transductive == ()
    ids, _, _ = read(data, data.train_dataloader())
    assert not any(name.startswith(("patient4", "patient5")) for name in ids)


def test_folds_carry_over_only_to_training_patients(make):
    root = make(own=4, helped=4)
    for fold in range(3):
        data = fitted(root, protocol="folds", num_folds=3, fold=fold, val_patients=1)
        ids, _, _ = read(data, data.train_dataloader())
        seen = {name.split("_")[0] for name in ids}
        assert seen <= set(data.split.train)
        assert not set(data.split.transductive)
        assert len(data.split.val) == 1
        assert set(data.split.val) <= {"patient1", "patient2", "patient3", "patient4"}
    assert len(list((root.parent / "cache" / "prepared").glob("[!.]*"))) == 1


@pytest.mark.parametrize("protocol", ["roles", "table1", "folds"])
def test_withheld_masks_are_read_by_the_test_part_alone(make, protocol):
    withheld = {"patient5", "patient6", "patient8"}
    root = make(own=4, helped=3, withheld=(5, 6, 8))
    data = fitted(root, protocol=protocol, num_folds=2, val_patients=1, matrix=(40, 44))
    hidden = {case.case_id for case in data.cases if case.withheld}
    assert hidden == {f"{patient}_LGE" for patient in withheld}
    for loader in (data.train_dataloader(), data.val_dataloader()):
        ids, masks, _ = read(data, loader)
        assert not hidden & set(ids)
        assert ((masks > 0).sum((1, 2)) != 1).all()
    ids, masks, _ = read(data, data.test_dataloader())
    with_one = {n.split("_")[0] for n, m in zip(ids, masks, strict=True) if (m > 0).sum() == 1}
    assert with_one == withheld & set(data.split.test)


def test_a_part_that_asks_for_a_withheld_mask_does_not_get_it(make, monkeypatch):
    """The planted fault: whatever training asks for, what is withheld is not handed out."""
    data = fitted(make(withheld=(4,)), transfer=False)
    everything = np.arange(len(data.store.case))
    monkeypatch.setattr(MSCMRDataModule, "positions_of", lambda *_: everything)
    names = {
        part: set(read(data, data._loader(data._dataset(part)))[0])
        for part in ("train", "val", "test")
    }
    assert names["test"] - names["train"] == names["test"] - names["val"] == {"patient4_LGE"}


def test_training_reads_crops_and_carried_over_masks_and_drops_slices_without_labels(make):
    data = fitted(make())
    ids, masks, carried = read(data, data.train_dataloader())
    labelled = [name for name, other in zip(ids, carried.tolist(), strict=True) if not other]
    assert {name.split("_LGE_")[1] for name in labelled} == {f"crop{k}" for k in range(5)}
    # four slices of five hold labels; the base crop comes four times
    assert len(labelled) == 3 * 4 * (4 + 4)
    assert sum(name == "patient1_LGE_crop0" for name in labelled) == 16
    assert {name.split("_LGE_")[1] for name in set(ids) - set(labelled)} == {"from_C0", "from_T2"}
    assert (masks > 0).flatten(1).any(1).all()


def test_without_transfer_all_of_a_batch_is_labelled(make):
    data = fitted(make(), transfer=False)
    batch = next(iter(data.train_dataloader()))
    assert len(batch["case"]) == 4
    assert not batch["transferred"].any()
    assert data.split.transductive == ()
    assert data.transfer_patients == ()


def test_a_batch_is_half_labelled_and_half_carried_over(make):
    data = fitted(make())
    for batch in data.train_dataloader():
        half = len(batch["case"]) // 2
        assert not batch["transferred"][:half].any()
        assert batch["transferred"][half:].all()
    assert len(data.train_dataloader()) == 24


def test_a_batch_keeps_the_contract(make):
    data = fitted(make(), augmentation=Augmentation(probability=0.0))
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    batch = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
    assert batch["image"].shape == (8, 1, 32, 32)
    assert batch["mask"].dtype == torch.int64
    assert batch["indices"].shape == (8, 0)
    step = torch.tensor([8.0, 1.5, 60 / 44])
    torch.testing.assert_close(batch["spacing"], step.expand(8, 3))
    assert data.patients_seen("train", transferred=True)
    assert numbers(data.patients_seen("train")) == [1, 2, 3]


def test_validation_patients_are_labelled_and_taken_out_of_the_training(make):
    data = fitted(make(), val_patients=1)
    assert len(data.split.val) == 1
    assert len(data.split.train) == 2
    ids, masks, _ = read(data, data.val_dataloader())
    assert set(ids) == {f"{data.split.val[0]}_LGE"}
    assert len(masks) == 5
    assert set(masks.unique().tolist()) == {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"data\.val_patients: 3 of 3 labelled patients"):
        fitted(make(), val_patients=3)


@pytest.mark.parametrize("shape", [(40, 44), (31, 33), (24, 52), (16, 15)])
def test_the_pixels_of_the_file_are_kept_and_every_prediction_goes_back_to_them(tmp_path, shape):
    """Cropped and pasted back by `predict` itself, on the store's own mask as prediction."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, *shape))
    write(tmp_path / "patient1_LGE.nii.gz", rng.integers(1, 90, labels.shape).astype(np.int16))
    write(tmp_path / "patient1_LGE_manual.nii.gz", VALUES[labels].astype(np.int16))
    data = module(tmp_path, matrix=(24, 20))
    (case,) = data.find_cases(tmp_path)
    prepared, stored = data.prepare_input(case), data.prepare_case(case)
    np.testing.assert_array_equal(prepared.image, stored.image)
    predictor = Predictor.__new__(Predictor)
    one_hot = np.eye(4, dtype=np.float32)[stored.mask].transpose(0, 3, 1, 2)
    back = sitk.GetArrayFromImage(predictor._mask(one_hot, one_hot.argmax(1), prepared))
    start = [(n - c) // 2 for n, c in zip(shape, (24, 20), strict=True)]
    window = tuple(slice(max(s, 0), max(s + c, 0)) for s, c in zip(start, (24, 20), strict=True))
    expected = np.zeros_like(labels)
    expected[(slice(None), *window)] = labels[(slice(None), *window)]
    np.testing.assert_array_equal(back, expected)


def test_a_foreground_of_each_slice_has_mean_0_and_sd_1(make):
    data = fitted(make(own=2, helped=0, bare=1), matrix=(48, 48))
    image = data.prepare_input(data.cases[0]).image
    reached = image[:, 4:44, 2:46]
    np.testing.assert_allclose(reached.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(reached.std((1, 2)), 1, atol=1e-5)
    assert not image[:, :4].any()


def test_a_shifted_crop_that_cuts_labels_is_left_out_and_the_base_encloses_them(make):
    root = make(own=2, helped=0, bare=1)
    mask = np.zeros((5, 40, 44), np.int16)
    mask[2, 1:6, 3:9] = 500  # beyond the central crop, rows 4 to 35
    write(root / "patient1_LGE_manual.nii.gz", mask)
    data = fitted(root)
    told = said(data, "crop_cuts")
    assert told["patient1_LGE"].endswith("used all the same")
    ids, masks, _ = read(data, data.train_dataloader())
    mine = [k for k, name in enumerate(ids) if name.startswith("patient1")]
    kept = {ids[k] for k in mine}
    assert "patient1_LGE_crop0" in kept
    assert all(int((masks[k] == 1).sum()) == 30 for k in mine)
    assert {f"patient1_LGE_crop{k}" for k in range(5)} - kept == {
        name for name in told if name != "patient1_LGE"
    }
    test = data._loader(data._dataset("test"))
    assert all("crop" not in name for name in read(data, test)[0])


def test_a_number_resamples_as_other_data_modules_do(make):
    data = fitted(make(), spacing_mm=2.0, matrix=(24, 24))
    np.testing.assert_allclose(data.store.spacing[:, 1:], 2.0)
    position = data.store.slices_of([0])[2]
    myocardium = (data.store.mask[position] == 2).sum() * 4.0
    assert myocardium == pytest.approx(np.pi * (49 - 16) * 0.93, rel=0.15)  # the RV covers a part


def test_a_source_beyond_the_lge_volume_or_without_labels_is_left_out_with_a_line(make):
    root = make(own=2, helped=2, bare=0, shift_mm={"patient3_C0": 500.0})
    write(root / "patient3_T2_manual.nii.gz", np.zeros(SIZES["T2"], np.int16))
    data = fitted(root, transfer_mode="position")
    told = said(data, "transfer")
    assert set(told) == {"patient3_LGE_from_C0", "patient3_LGE_from_T2"}
    assert "no foreground" in told["patient3_LGE_from_T2"]
    ids, _, carried = read(data, data.train_dataloader())
    others = {name for name, other in zip(ids, carried.tolist(), strict=True) if other}
    assert others == {"patient4_LGE_from_C0", "patient4_LGE_from_T2"}


@pytest.mark.parametrize(
    ("cohort", "settings", "message"),
    [
        ({"own": 0}, {}, "none of 5 LGE volumes has a mask"),
        ({"own": 2, "helped": 0, "bare": 0}, {}, "all 2 patients have an LGE mask"),
        ({"own": 1}, {"protocol": "table1"}, "1 patients have an LGE mask"),
        ({}, {"leave_out": "sequence"}, "'roles' says who is tested"),
        ({}, {"fold": 1}, "fold 1 of 1"),
        ({}, {"crop_groups": 6}, r"data\.crop_groups: 6"),
        ({"own": 1}, {"protocol": "folds", "num_folds": 2, "fold": None}, "no training patient"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(make, cohort, settings, message):
    root = make(**cohort)
    if settings.get("fold", 0) is None:  # the fold that tests the one labelled patient
        data = fitted(root, protocol="folds", num_folds=2)
        tested = "patient1" in data.split.test
        settings = settings | {"fold": 0 if tested else 1}
    with pytest.raises(UserError, match=message):
        fitted(root, **settings)


def test_the_store_depends_on_the_transfer_and_on_the_files_of_other_sequences(make):
    root = make(own=1, helped=1, bare=0)

    def stores():
        return len(list((root.parent / "cache" / "prepared").glob("[!.]*")))

    counts = []
    for settings in ({}, {"protocol": "roles"}, {"transfer_mode": "position"}, {"crop_groups": 2}):
        fitted(root, **settings)
        counts.append(stores())
    assert counts == [1, 1, 2, 3]
    image = nib.nifti1.Nifti1Image.from_filename(root / "patient2_T2.nii.gz")
    voxels = np.asarray(image.dataobj) + 1
    nib.nifti1.Nifti1Image(voxels.astype(np.int16), image.affine).to_filename(
        root / "patient2_T2.nii.gz"
    )
    fitted(root)
    assert stores() == 4


def test_transduction_is_said_in_one_line_and_kept_with_the_folds(make, tmp_path):
    root = make()
    with noticed() as odd:
        data = fitted(root)
    (line,) = [finding.message for finding in odd if finding.code == "transductive"]
    assert "images of 4 test patients are trained on" in line
    data.save_splits(tmp_path / "splits.json")
    assert read_splits(tmp_path / "splits.json", without_val=True) == data.splits
    with pytest.raises(UserError, match="under 'val'"):
        read_splits(tmp_path / "splits.json")


def test_volumes_without_any_mask_stay_unknown(make):
    data = fitted(make())
    ids, masks, _ = read(data, data.test_dataloader())
    assert len(ids) == 5 * 5
    assert (masks == UNLABELLED).all()


def test_check_sees_every_volume_of_every_sequence(make):
    root = make(own=1, helped=1, bare=1, withheld=(2,))
    cases = module(root).find_cases(root)
    assert len(cases) == 9
    assert [c.case_id for c in cases if c.withheld] == ["patient2_LGE"]
    assert {c.sequence for c in cases} == set(SIZES)


class Watcher(LightningModule):
    """Keeps samples and images of every batch; saves a checkpoint within the second epoch."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def training_step(self, batch, _):
        self.batches.append((batch["case"], batch["slice"], batch["image"]))
        return self.weight.sum()

    def on_train_batch_end(self, *_):
        if self.global_step == 11 and not (self.folder / "11.ckpt").exists():
            self.trainer.save_checkpoint(self.folder / "11.ckpt")

    def validation_step(self, *_):
        raise AssertionError

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_run_without_validation_goes_on_within_an_epoch_as_if_it_had_not_stopped(make, tmp_path):
    root = make(own=1, helped=2, bare=0)

    def fit(start=None):
        torch.manual_seed(3)
        watcher = Watcher(tmp_path)
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(watcher, datamodule=module(root), ckpt_path=start, weights_only=True)
        return watcher.batches

    straight = fit()
    rest = fit(tmp_path / "11.ckpt")
    assert (len(straight), len(rest)) == (16, 5)
    for one, other in zip(straight[11:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(straight[0][1], straight[8][1])
