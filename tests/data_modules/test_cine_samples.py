"""Samples of cine 2D+T: batches, indices of the infarct, what moves them, their scale."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cardiac_mtl.metrics.shape import INDEX_NAMES, infarct_indices
from data_modules.augment import Augmentation, draw, transform_mask
from data_modules.cine import CineDataModule, write_layout
from data_modules.cine_table import find_cases

PHASES = 6  # of the studies that beat
STEP = (1.6, 1.4)  # rows, columns


def batch_of(data, loader):
    (batch,) = loader
    return data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)


def test_a_batch_keeps_the_contract(clean_cine):
    data = clean_cine.module()
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


def test_indices_are_those_of_the_mask_of_the_file(clean_cine, beating):
    data = clean_cine.module()
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


def test_without_any_myocardium_the_percentage_is_of_the_crop_and_one_line_says_so(cine, caplog):
    cine.edit(lambda rows: [row[:5] for row in rows])
    data = cine.module()
    data.setup("test")
    assert caplog.text.count("no myocardium: infarct is in % of the whole crop") == 1
    share = 100 * (data.store.mask == 1).mean((1, 2))
    np.testing.assert_allclose(data.known_indices()[:, 1], share, rtol=1e-5)


def test_a_case_that_lacks_the_myocardium_of_the_others_has_no_percentage(cine, caplog):
    cine.edit(lambda rows: [*rows[:2], [*rows[2][:5], ""], *rows[3:]])
    known = cine.module().known_indices()
    assert "1 of 4 masks have no myocardium beside them" in caplog.text
    assert known[:, 1].isnan().tolist() == [False] * 3 + [True] * 3 + [False] * 6
    assert not known[:, 0].isnan().any()


def test_columns_take_the_place_of_what_is_measured(cine):
    cine.one_slice(size_mm2="123.5", centroid_y_mm="40", centroid_x_mm="30")
    data = cine.module()
    plain = data.indices_of(
        torch.tensor(np.array(data.store.mask)), torch.tensor(data.store.spacing)
    )
    known = data.known_indices()
    assert float(known[0, 0]) == 123.5
    np.testing.assert_allclose(known[0, 3:5], [40, 30] - data.store.origin[0], rtol=1e-5)
    torch.testing.assert_close(known[0, 5:], plain[0, 5:])
    torch.testing.assert_close(known[1:], plain[1:])


def test_columns_are_enough_where_there_is_no_mask(cine):
    cine.one_slice(size_mm2="123.5")
    cine.edit(lambda rows: [rows[0], *([*row[:4], "", *row[5:]] for row in rows[1:])])
    known = cine.module(splits=cine.folds(["p0"], ["p1", "p2"], ["p3"])).known_indices()
    assert known.isfinite().sum() == 1


def training(data):
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    return data


def test_nothing_is_transformed_by_default(clean_cine):
    data = training(clean_cine.module(batch_size=99))
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


def test_indices_follow_the_moved_mask_and_those_of_the_table_do_not(cine):
    cine.one_slice(size_mm2="123.5")
    settings = {"probability": 0.6, "translation": 0.1, "rotation_deg": 90.0}
    data = training(
        cine.module(
            augmentation=Augmentation(**settings),
            copies=9,
            batch_size=99,
            splits=cine.folds(["p0", "p1"], ["p2"], ["p3"]),
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


def test_the_scale_is_that_of_the_training_patients(cine):
    parts = cine.folds(["p0", "p1"], ["p2"], ["p3"])
    data = cine.module(splits=parts)
    scale = data.target_scale()
    known = data.known_indices()[:6].double()
    np.testing.assert_allclose(scale.mean[:7], np.nanmean(known, 0)[:7], rtol=1e-5)
    np.testing.assert_allclose(scale.sd[:7], np.nanstd(known, 0)[:7], rtol=1e-5)
    assert (float(scale.mean[7]), float(scale.sd[7])) == (0, 90)
    cine.rewrite("p3_mask", lambda v: v[::-1])
    cine.rewrite("p2_mask", lambda v: v[::-1])
    changed = cine.module(splits=parts)
    assert all(torch.equal(a, b) for a, b in zip(scale, changed.target_scale(), strict=True))
    assert changed.store.folder != data.store.folder
    optimistic = cine.module(splits=parts, paper_protocol=True).target_scale()
    assert not torch.equal(scale.mean, optimistic.mean)


def test_a_scale_of_one_value_is_above_zero(cine):
    cine.one_slice()
    scale = cine.module(splits=cine.folds(["p0"], ["p1", "p2"], ["p3"])).target_scale()
    assert bool((scale.sd > 0).all())
