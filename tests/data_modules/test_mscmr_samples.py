"""Samples of MS-CMRSeg: where crops lie, which masks are carried over, how batches are paired."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from lightning import LightningModule, Trainer

from cardiac_mtl.predictor import Predictor
from data_modules.augment import Augmentation
from data_modules.findings import noticed


def said(data, code):
    """Return what is noticed of each case, in this process: a pool would keep it to itself."""
    with noticed() as odd:
        for case in data.cases:
            data.prepare_case(case)
    return {finding.file: finding.message for finding in odd if finding.code == code}


def test_training_reads_crops_and_carried_over_masks_and_drops_slices_without_labels(
    make_mscmr, read_samples
):
    data = make_mscmr().fitted()
    ids, masks, carried = read_samples(data, data.train_dataloader())
    labelled = [name for name, other in zip(ids, carried.tolist(), strict=True) if not other]
    assert {name.split("_LGE_")[1] for name in labelled} == {f"crop{k}" for k in range(5)}
    # four slices of five hold labels; the base crop comes four times
    assert len(labelled) == 3 * 4 * (4 + 4)
    assert sum(name == "patient1_LGE_crop0" for name in labelled) == 16
    assert {name.split("_LGE_")[1] for name in set(ids) - set(labelled)} == {"from_C0", "from_T2"}
    assert (masks > 0).flatten(1).any(1).all()


def test_without_transfer_all_of_a_batch_is_labelled(make_mscmr):
    data = make_mscmr().fitted(transfer=False)
    batch = next(iter(data.train_dataloader()))
    assert len(batch["case"]) == 4
    assert not batch["transferred"].any()
    assert data.split.transductive == ()
    assert data.transfer_patients == ()


def test_a_batch_is_half_labelled_and_half_carried_over(make_mscmr):
    data = make_mscmr().fitted()
    for batch in data.train_dataloader():
        half = len(batch["case"]) // 2
        assert not batch["transferred"][:half].any()
        assert batch["transferred"][half:].all()
    assert len(data.train_dataloader()) == 24


def test_a_batch_keeps_the_contract(make_mscmr):
    data = make_mscmr().fitted(augmentation=Augmentation(probability=0.0))
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    batch = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
    assert batch["image"].shape == (8, 1, 32, 32)
    assert batch["mask"].dtype == torch.int64
    assert batch["indices"].shape == (8, 0)
    step = torch.tensor([8.0, 1.5, 60 / 44])
    torch.testing.assert_close(batch["spacing"], step.expand(8, 3))
    assert data.patients_seen("train", transferred=True)
    assert set(data.patients_seen("train")) == {"patient1", "patient2", "patient3"}


@pytest.mark.parametrize("shape", [(40, 44), (31, 33), (24, 52), (16, 15)])
def test_the_pixels_of_the_file_are_kept_and_every_prediction_goes_back_to_them(
    mscmr_folder, tmp_path, shape
):
    """Cropped and pasted back by `predict` itself, on the store's own mask as prediction."""
    folder = mscmr_folder(tmp_path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, *shape))
    folder.write("patient1_LGE", rng.integers(1, 90, labels.shape).astype(np.int16))
    folder.write("patient1_LGE_manual", folder.values[labels].astype(np.int16))
    data = folder.module(matrix=(24, 20))
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


def test_a_foreground_of_each_slice_has_mean_0_and_sd_1(make_mscmr):
    data = make_mscmr(own=2, helped=0, bare=1).fitted(matrix=(48, 48))
    image = data.prepare_input(data.cases[0]).image
    reached = image[:, 4:44, 2:46]
    np.testing.assert_allclose(reached.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(reached.std((1, 2)), 1, atol=1e-5)
    assert not image[:, :4].any()


def test_a_shifted_crop_that_cuts_labels_is_left_out_and_the_base_encloses_them(
    make_mscmr, read_samples
):
    folder = make_mscmr(own=2, helped=0, bare=1)
    mask = np.zeros((5, 40, 44), np.int16)
    mask[2, 1:6, 3:9] = 500  # beyond the central crop, rows 4 to 35
    folder.write("patient1_LGE_manual", mask)
    data = folder.fitted()
    told = said(data, "crop_cuts")
    assert told["patient1_LGE"].endswith("used all the same")
    ids, masks, _ = read_samples(data, data.train_dataloader())
    mine = [k for k, name in enumerate(ids) if name.startswith("patient1")]
    kept = {ids[k] for k in mine}
    assert "patient1_LGE_crop0" in kept
    assert all(int((masks[k] == 1).sum()) == 30 for k in mine)
    assert {f"patient1_LGE_crop{k}" for k in range(5)} - kept == {
        name for name in told if name != "patient1_LGE"
    }
    test = data._loader(data._dataset("test"))
    assert all("crop" not in name for name in read_samples(data, test)[0])


def test_a_number_resamples_as_other_data_modules_do(make_mscmr):
    data = make_mscmr().fitted(spacing_mm=2.0, matrix=(24, 24))
    np.testing.assert_allclose(data.store.spacing[:, 1:], 2.0)
    position = data.store.slices_of([0])[2]
    myocardium = (data.store.mask[position] == 2).sum() * 4.0
    assert myocardium == pytest.approx(np.pi * (49 - 16) * 0.93, rel=0.15)  # the RV covers a part


def test_a_source_beyond_the_lge_volume_or_without_labels_is_left_out_with_a_line(
    make_mscmr, read_samples
):
    folder = make_mscmr(own=2, helped=2, bare=0, shift_mm={"patient3_C0": 500.0})
    folder.write("patient3_T2_manual", np.zeros(folder.sizes["T2"], np.int16))
    data = folder.fitted(transfer_mode="position")
    told = said(data, "transfer")
    assert set(told) == {"patient3_LGE_from_C0", "patient3_LGE_from_T2"}
    assert "no foreground" in told["patient3_LGE_from_T2"]
    ids, _, carried = read_samples(data, data.train_dataloader())
    others = {name for name, other in zip(ids, carried.tolist(), strict=True) if other}
    assert others == {"patient4_LGE_from_C0", "patient4_LGE_from_T2"}


def test_the_store_depends_on_the_transfer_and_on_the_files_of_other_sequences(make_mscmr):
    folder = make_mscmr(own=1, helped=1, bare=0)

    def stores():
        return len(list((folder.root.parent / "cache" / "prepared").glob("[!.]*")))

    counts = []
    for settings in ({}, {"protocol": "roles"}, {"transfer_mode": "position"}, {"crop_groups": 2}):
        folder.fitted(**settings)
        counts.append(stores())
    assert counts == [1, 1, 2, 3]
    image = nib.nifti1.Nifti1Image.from_filename(folder.root / "patient2_T2.nii.gz")
    voxels = np.asarray(image.dataobj) + 1
    nib.nifti1.Nifti1Image(voxels.astype(np.int16), image.affine).to_filename(
        folder.root / "patient2_T2.nii.gz"
    )
    folder.fitted()
    assert stores() == 4


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


def test_a_run_without_validation_goes_on_within_an_epoch_as_if_it_had_not_stopped(
    make_mscmr, tmp_path
):
    folder = make_mscmr(own=1, helped=2, bare=0)

    def fit(start=None):
        torch.manual_seed(3)
        watcher = Watcher(tmp_path)
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(watcher, datamodule=folder.module(), ckpt_path=start, weights_only=True)
        return watcher.batches

    straight = fit()
    rest = fit(tmp_path / "11.ckpt")
    assert (len(straight), len(rest)) == (16, 5)
    for one, other in zip(straight[11:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(straight[0][1], straight[8][1])
