"""The data module and its store: parts, content keys, and streams of chance (P10, P12, P13, P14)."""

import dataclasses
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from cardiac_mtl.predictor import Predictor
from data_modules.augment import Augmentation
from data_modules.manifest import ManifestDataModule, write_layout
from data_modules.offset import Offset
from data_modules.store import Plan, open_store


@pytest.fixture
def root(tmp_path, make_study):
    write_layout(tmp_path / "hearts", [make_study(f"p{n}", phases=2, seed=n) for n in range(8)])
    return tmp_path / "hearts"


def module(root, **settings):
    data = ManifestDataModule(
        root, matrix=(32, 32), cache_dir=root.parent / "cache", num_folds=4, **settings
    )
    data.setup("fit")
    return data


def transferred(data, batch):
    return data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)


def patients(data, loader):
    rows = torch.cat([batch["case"] for batch in loader])
    return set(data.case_table["patient_id"].iloc[rows.numpy()])


def stores(root):
    return sorted(path.name for path in (root.parent / "cache" / "prepared").glob("[!.]*"))


def test_the_parts_hold_the_patients_of_the_split_and_no_other(root):
    data = module(root)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    found = [patients(data, loader) for loader in loaders]
    assert found == [set(part) for part in (data.split.train, data.split.val, data.split.test)]
    assert sum(map(len, found)) == 8


def test_the_paper_protocol_trains_on_all_and_selects_on_test(root):
    data = module(root, paper_protocol=True)
    assert patients(data, data.val_dataloader()) == set(data.split.test)
    assert patients(data, data.train_dataloader()) == set(data.split.train) | set(data.split.val)


def test_an_epoch_holds_each_slice_and_its_copies(root):
    data = module(root, copies=2)
    count = sum(len(batch["case"]) for batch in data.train_dataloader())
    assert count == 3 * len(data.split.train) * 2 * 4


def test_a_batch_keeps_the_contract(root):
    data = module(root)
    batch = transferred(data, next(iter(data.val_dataloader())))
    assert {key: value.dtype for key, value in batch.items()} == {
        "image": torch.float32,
        "mask": torch.int64,
        "spacing": torch.float32,
        "case": torch.int64,
        "slice": torch.int64,
        "indices": torch.float32,
        "label": torch.int64,
        "transferred": torch.bool,
        "sample": torch.int64,
    }
    ring = (batch["mask"][0] == 1).sum() * 1.5625**2
    assert float(batch["indices"][0, 0]) == pytest.approx(float(ring))
    torch.testing.assert_close(batch["spacing"][0], torch.tensor([8.0, 1.5625, 1.5625]))
    assert batch["image"].shape[1:] == (1, 32, 32)


def test_areas_follow_the_transformed_mask(root):
    data = module(root, augmentation=Augmentation(probability=1.0, translation=0.5))
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    before = next(iter(data.train_dataloader()))
    still = data.indices_of(before["mask"], before["spacing"])
    batch = transferred(data, before)
    expected = (batch["mask"] == 1).sum((1, 2)) * 1.5625**2
    torch.testing.assert_close(batch["indices"][:, 0], expected)
    assert not torch.equal(batch["indices"], still)


def test_a_batch_is_turned_in_mm(root):
    data = module(root, augmentation=Augmentation(probability=1.0))
    data.trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    batch = next(iter(data.train_dataloader()))
    batch["spacing"][:, 2] *= 2
    transferred(data, batch)
    to_mm = torch.diag(torch.tensor([2.0, 1.0]))  # column, row
    turned = to_mm @ data.draws.theta[:, :, :2] @ to_mm.inverse()
    torch.testing.assert_close(turned @ turned.mT, torch.eye(2).expand_as(turned))


def test_slices_without_annotation_have_no_area():
    mask = torch.full((1, 4, 4), UNLABELLED)
    assert ManifestDataModule().indices_of(mask, torch.ones(1, 3)).isnan().all()


def test_chance_differs_by_epoch_and_rank_and_repeats_with_the_seed(root):
    def epoch(number, rank, seed):
        torch.manual_seed(seed)
        data = module(root, augmentation=Augmentation(noise=0.5, gamma=0.5))
        data.trainer = SimpleNamespace(
            training=True, current_epoch=number, global_rank=rank, world_size=2
        )
        batch = next(iter(data.train_dataloader()))
        return transferred(data, batch)["image"]

    settings = [(e, r, s) for e in (0, 1) for r in (0, 1) for s in (0, 1)]
    images = [epoch(*one) for one in settings]
    again = [epoch(*one) for one in settings]
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
    sums = {float(image.double().abs().sum()) for image in images}
    assert len(sums) == len(settings)


def test_chance_goes_on_in_the_middle_of_an_epoch(root):
    """A run that resumes at batch 3 augments it as the run that was not stopped did."""

    def batches(skip):
        data = module(root, batch_size=4, augmentation=Augmentation(noise=0.5))
        data.trainer = SimpleNamespace(training=True, current_epoch=1, global_rank=0, world_size=1)
        return [transferred(data, b)["image"] for b in list(data.train_dataloader())[skip:]]

    torch.manual_seed(0)
    whole, rest = batches(0), batches(3)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_slices_are_normalised_alone_where_asked(root):
    image = module(root, normalise="slice", spacing_mm=1.0).store.image.astype(np.float32)
    assert np.abs(image.mean((1, 2))).max() < 0.05
    assert len(stores(root)) == 1


def test_without_a_spacing_the_pixels_are_those_of_the_files(root, make_study):
    data = module(root, spacing_mm=None, normalise="slice")
    (place,) = np.flatnonzero(data.case_table["case_id"] == "p3_ph01")
    image = data.store.image[data.store.slices_of([place])].astype(np.float32)
    assert image.shape[1:] == (32, 32)
    np.testing.assert_allclose(data.store.spacing, [[8.0, 1.6, 1.4]] * len(data.store.case))
    slices = make_study("p3", phases=2, seed=3).image[1].astype(np.float32)
    scaled = (slices - slices.mean((1, 2), keepdims=True)) / slices.std((1, 2), keepdims=True)
    np.testing.assert_allclose(image[:, 6:26, 4:28], scaled, atol=2e-3)
    assert not image[:, :6].any()


def test_an_area_regressed_on_a_placed_grid_is_predicted_as_it_is(root):
    data = module(root, spacing_mm=None)
    predictor = Predictor.__new__(Predictor)
    predictor.data, predictor.paper = data, SimpleNamespace(index_names=("area_mm2",))
    prepared = data.prepare_input(data.cases[0])
    columns = predictor._columns({"indices": torch.ones(4, 1)}, prepared)
    assert columns == {"regressed_area_mm2": [1.0] * 4}


def test_the_store_is_made_once_and_read_from_disk(root):
    first, second = module(root), module(root)
    assert len(stores(root)) == 1
    assert not second.store.image.flags.owndata
    np.testing.assert_array_equal(first.store.image, second.store.image)


def test_other_content_or_settings_make_another_store(root):
    module(root)
    module(root, fold=1, batch_size=3)
    assert len(stores(root)) == 1
    module(root, spacing_mm=2.0)
    assert len(stores(root)) == 2
    images = sorted(root.glob("*_image.nii.gz"))
    images[0].write_bytes(images[1].read_bytes())  # the same name, another content
    module(root, spacing_mm=2.0)
    assert len(stores(root)) == 3


def test_a_module_of_the_users_own_has_a_store_of_its_own_until_its_file_changes(
    root, tmp_path, monkeypatch
):
    code = """
from data_modules.manifest import ManifestDataModule

class Own(ManifestDataModule):
    def read_mask(self, case, image):
        return super().read_mask(case, image) * {factor}
"""
    ours = module(root)
    monkeypatch.syspath_prepend(tmp_path)
    made = []
    for name, factor in (("own", 0), ("own", 0), ("edited", 1)):
        (tmp_path / f"{name}.py").write_text(code.format(factor=factor))
        own = importlib.import_module(name).Own(root, matrix=(32, 32), cache_dir=ours.cache_dir)
        own.setup("fit")
        made.append(own.store)
    assert ours.store.mask.any()
    assert [bool(store.mask.any()) for store in made] == [False, False, True]
    assert len(stores(root)) == 3


def test_a_preparation_that_fails_leaves_nothing_that_looks_whole(tmp_path):
    def fail(_):
        raise UserError("planted", where="here", fix="none")

    plan = Plan((2,), (8, 8))
    with pytest.raises(UserError, match="planted"):
        open_store(tmp_path / "store", [None], fail, lambda: plan, {})
    assert not (tmp_path / "store").exists()


def test_a_column_that_is_not_there_is_named(root):
    with pytest.raises(UserError, match=r"no column 'colour' .* choose from case_id"):
        module(root, stratify_by="colour")


def test_folds_may_be_centres_and_a_column_of_the_users_own(root):
    table = (root / "cases.csv").read_text().splitlines()
    places = [f"{row},{'ab'[n // 2 % 2]}" for n, row in enumerate(table[1:])]
    (root / "cases.csv").write_text("\n".join([f"{table[0]},site", *places]))
    data = module(root, leave_out="site", stratify_by="site", fold=1)
    sites = data.case_table.groupby("patient_id")["site"].first()
    assert set(sites[list(data.split.test)]) == {"b"}
    assert set(sites[[*data.split.train, *data.split.val]]) == {"a"}
    with pytest.raises(UserError, match="fold 2 of 2; choose from 0 to 1"):
        module(root, leave_out="site", fold=2)


def test_a_patient_with_two_values_cannot_be_left_out_by_them(root):
    with pytest.raises(UserError, match=r"data\.leave_out: patient 'p0' has more than one phase"):
        module(root, leave_out="phase")


def test_the_order_of_rows_changes_no_fold(root):
    """Though the rows of a patient differ in what the folds are stratified by."""
    head, *rows = (root / "cases.csv").read_text().splitlines()
    sites = [f"{row},{'' if n % 2 else 'ab'[n // 2 % 2]}" for n, row in enumerate(rows)]
    found = set()
    for ordered in (sites, sites[::-1]):
        (root / "cases.csv").write_text("\n".join([f"{head},site", *ordered]))
        found.add(module(root, stratify_by="site").split_sha256)
    assert len(found) == 1


def test_folds_of_a_file_and_a_share_of_the_training_part(root, tmp_path):
    first = module(root)
    first.save_splits(tmp_path / "folds.json")
    again = module(root, splits=tmp_path / "folds.json")
    assert again.split_sha256 == first.split_sha256
    half = module(root, splits=tmp_path / "folds.json", train_fraction=0.5)
    assert len(half.split.train) == -(-len(first.split.train) // 2)
    assert half.split.test == first.split.test


def test_slices_run_from_base_to_apex_whatever_the_order_of_the_file(tmp_path, make_study):
    one = make_study("p", phases=1)
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (one.image.shape[1] - 1)
    affine[:3, 2] *= -1
    turned = dataclasses.replace(
        one, image=one.image[:, ::-1], mask=one.mask[:, ::-1], affine=affine
    )
    prepared = []
    for name, study in (("as_is", one), ("turned", turned)):
        write_layout(tmp_path / name, [study])
        data = ManifestDataModule(tmp_path / name, matrix=(32, 32))
        (case,) = data.find_cases(tmp_path / name)
        prepared.append(data.prepare_case(case))
    np.testing.assert_allclose(prepared[0].image, prepared[1].image, atol=1e-5)
    np.testing.assert_array_equal(prepared[0].mask, prepared[1].mask)


def test_phantoms_know_that_they_are(hearts, root):
    assert ManifestDataModule(hearts).is_phantom
    assert ManifestDataModule().is_phantom
    assert not ManifestDataModule(root).is_phantom
    (root / "truth.csv").touch()  # all that phantoms of earlier versions had
    assert ManifestDataModule(root).is_phantom


def test_a_grid_without_pixels_is_refused():
    with pytest.raises(UserError, match=r"data.matrix: 0; give 1 or more"):
        ManifestDataModule(matrix=(64, 0))


def test_the_offset_of_training_masks_is_kept_by_augmentation_alone(root, monkeypatch):
    asked = []

    def measured(_, cases, wall):
        asked.append((sorted(cases), wall))
        return Offset(0.4, -0.3, (0.1, 0.1), len(cases))

    monkeypatch.setattr("data_modules.base.offset_of", measured)
    data = module(root, augmentation=Augmentation(keep_offset=True))
    table = data.case_table
    ((cases, wall),) = asked
    assert sorted(table["patient_id"][cases]) == sorted(data.split.train)
    assert wall == (data.labels["myocardium"],)
    data.setup("fit")
    assert len(asked) == 1  # once a run
    assert module(root).offset is None
    data.setup("test")


def test_masks_without_a_ring_have_no_offset_to_keep(root, monkeypatch):
    monkeypatch.setattr("data_modules.base.offset_of", lambda *_: None)
    with pytest.raises(UserError, match="no training patient has a closed ring") as told:
        module(root, augmentation=Augmentation(keep_offset=True))
    assert told.value.where == "data.augmentation.keep_offset"
    assert "keep_offset false" in told.value.fix  # a preset may have asked for it, not the user
