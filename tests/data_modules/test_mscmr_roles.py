"""MS-CMRSeg: who trains on which mask, and what stays unseen."""

import numpy as np
import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.findings import noticed
from data_modules.mscmr import MSCMRDataModule
from data_modules.splits import read_splits


def numbers(patients):
    return sorted(int(patient.removeprefix("patient")) for patient in patients)


def test_the_roles_of_the_paper_train_on_the_labelled_and_test_all_others(make_mscmr):
    data = make_mscmr().fitted()
    split = data.split
    assert numbers(split.train) == [1, 2, 3]
    assert split.val == ()
    assert numbers(split.test) == [4, 5, 6, 7, 8]
    assert numbers(split.transductive) == [4, 5, 6, 7]
    assert data.transfer_patients == split.transductive
    assert data.val_dataloader() == []


def test_table_1_tests_the_last_labelled_patients_and_trains_nowhere_on_them(
    make_mscmr, read_samples
):
    data = make_mscmr(own=5).fitted(protocol="table1")
    assert numbers(data.split.test) == [4, 5]
    assert numbers(data.split.train) == [1, 2, 3, 6, 7, 8, 9]
    assert data.split.transductive == ()
    ids, _, _ = read_samples(data, data.train_dataloader())
    assert not any(name.startswith(("patient4", "patient5")) for name in ids)


def test_folds_carry_over_only_to_training_patients(make_mscmr, read_samples):
    folder = make_mscmr(own=4, helped=4)
    for fold in range(3):
        data = folder.fitted(protocol="folds", num_folds=3, fold=fold, val_patients=1)
        ids, _, _ = read_samples(data, data.train_dataloader())
        seen = {name.split("_")[0] for name in ids}
        assert seen <= set(data.split.train)
        assert not set(data.split.transductive)
        assert len(data.split.val) == 1
        assert set(data.split.val) <= {"patient1", "patient2", "patient3", "patient4"}
    assert len(list((folder.root.parent / "cache" / "prepared").glob("[!.]*"))) == 1


@pytest.mark.parametrize("protocol", ["roles", "table1", "folds"])
def test_withheld_masks_are_read_by_the_test_part_alone(make_mscmr, read_samples, protocol):
    withheld = {"patient5", "patient6", "patient8"}
    folder = make_mscmr(own=4, helped=3, withheld=(5, 6, 8))
    data = folder.fitted(protocol=protocol, num_folds=2, val_patients=1, matrix=(40, 44))
    hidden = {case.case_id for case in data.cases if case.withheld}
    assert hidden == {f"{patient}_LGE" for patient in withheld}
    for loader in (data.train_dataloader(), data.val_dataloader()):
        ids, masks, _ = read_samples(data, loader)
        assert not hidden & set(ids)
        assert ((masks > 0).sum((1, 2)) != 1).all()
    ids, masks, _ = read_samples(data, data.test_dataloader())
    with_one = {n.split("_")[0] for n, m in zip(ids, masks, strict=True) if (m > 0).sum() == 1}
    assert with_one == withheld & set(data.split.test)


def test_a_part_that_asks_for_a_withheld_mask_does_not_get_it(
    make_mscmr, read_samples, monkeypatch
):
    """The planted fault: whatever training asks for, what is withheld is not handed out."""
    data = make_mscmr(withheld=(4,)).fitted(transfer=False)
    everything = np.arange(len(data.store.case))
    monkeypatch.setattr(MSCMRDataModule, "positions_of", lambda *_: everything)
    names = {
        part: set(read_samples(data, data._loader(data._dataset(part)))[0])
        for part in ("train", "val", "test")
    }
    assert names["test"] - names["train"] == names["test"] - names["val"] == {"patient4_LGE"}


def test_validation_patients_are_labelled_and_taken_out_of_the_training(make_mscmr, read_samples):
    data = make_mscmr().fitted(val_patients=1)
    assert len(data.split.val) == 1
    assert len(data.split.train) == 2
    ids, masks, _ = read_samples(data, data.val_dataloader())
    assert set(ids) == {f"{data.split.val[0]}_LGE"}
    assert len(masks) == 5
    assert set(masks.unique().tolist()) == {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"data\.val_patients: 3 of 3 labelled patients"):
        make_mscmr().fitted(val_patients=3)


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
def test_what_cannot_be_trained_on_is_one_line(make_mscmr, cohort, settings, message):
    folder = make_mscmr(**cohort)
    if settings.get("fold", 0) is None:  # the fold that tests the one labelled patient
        data = folder.fitted(protocol="folds", num_folds=2)
        tested = "patient1" in data.split.test
        settings = settings | {"fold": 0 if tested else 1}
    with pytest.raises(UserError, match=message):
        folder.fitted(**settings)


def test_transduction_is_said_in_one_line_and_kept_with_the_folds(make_mscmr, tmp_path):
    folder = make_mscmr()
    with noticed() as odd:
        data = folder.fitted()
    (line,) = [finding.message for finding in odd if finding.code == "transductive"]
    assert "images of 4 test patients are trained on" in line
    data.save_splits(tmp_path / "splits.json")
    assert read_splits(tmp_path / "splits.json", without_val=True) == data.splits
    with pytest.raises(UserError, match="under 'val'"):
        read_splits(tmp_path / "splits.json")


def test_volumes_without_any_mask_stay_unknown(make_mscmr, read_samples):
    data = make_mscmr().fitted()
    ids, masks, _ = read_samples(data, data.test_dataloader())
    assert len(ids) == 5 * 5
    assert (masks == UNLABELLED).all()


def test_check_sees_every_volume_of_every_sequence(make_mscmr):
    folder = make_mscmr(own=1, helped=1, bare=1, withheld=(2,))
    cases = folder.module().find_cases(folder.root)
    assert len(cases) == 9
    assert [c.case_id for c in cases if c.withheld] == ["patient2_LGE"]
    assert {c.sequence for c in cases} == set(folder.sizes)
