"""Splits: laws that hold for any cohort, and a hash that no machine may change."""

import json
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cardiac_mtl.errors import UserError
from data_modules.splits import (
    Split,
    check_fold,
    digest,
    leave_one_out,
    make_splits,
    read_splits,
    save_splits,
    take_validation,
    thin,
)

PINNED = "c53a23c718f968b2ccaa52961e0d4632389032e145361c7214910af2a444593c"

cohorts = st.dictionaries(
    st.text("abcdefgh0123456789", min_size=1, max_size=6),
    st.sampled_from(["normal", "infarct", "dilated"]),
    min_size=6,
    max_size=60,
)


@given(cohorts, st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=60)
def test_parts_are_disjoint_and_complete_and_each_patient_is_tested_once(strata, folds, seed):
    splits = make_splits(strata, folds, seed)
    for split in splits:
        parts = [*split.train, *split.val, *split.test]
        assert sorted(parts) == sorted(strata)
        assert split.train
        assert split.val
    assert sorted(p for split in splits for p in split.test) == sorted(strata)


@given(cohorts, st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=60)
def test_every_stratum_and_the_whole_are_balanced_within_one(strata, folds, seed):
    splits = make_splits(strata, folds, seed)
    for stratum in set(strata.values()):
        counts = [Counter(strata[p] for p in split.test)[stratum] for split in splits]
        assert max(counts) - min(counts) <= 1
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@given(cohorts, st.randoms())
@settings(max_examples=30)
def test_the_order_of_the_input_does_not_matter(strata, random):
    items = list(strata.items())
    random.shuffle(items)
    assert make_splits(dict(items), 3) == make_splits(strata, 3)


def test_another_seed_deals_otherwise():
    strata = {f"p{n}": "" for n in range(40)}
    assert make_splits(strata, 5, seed=0) != make_splits(strata, 5, seed=1)


def test_the_hash_is_the_same_on_every_machine():
    splits = make_splits({f"p{n}": "ab"[n % 2] for n in range(10)}, 5, seed=0)
    assert digest(splits) == PINNED


def test_the_validation_part_takes_its_share():
    strata = {f"p{n}": "ab"[n % 2] for n in range(100)}
    split = make_splits(strata, 5, val_fraction=0.1)[0]
    assert (len(split.train), len(split.val), len(split.test)) == (72, 8, 20)
    assert Counter(strata[p] for p in split.val) == {"a": 4, "b": 4}


def test_saved_with_hash_and_folds(tmp_path):
    splits = make_splits({f"p{n}": "" for n in range(6)}, 3)
    save_splits(tmp_path / "splits.json", "toy", splits, seed=0)
    saved = json.loads((tmp_path / "splits.json").read_text())
    assert saved["sha256"] == digest(splits)
    assert saved["folds"][2]["test"] == list(splits[2].test)


@pytest.mark.parametrize(("patients", "folds"), [(3, 5), (10, 1), (2, 2)])
def test_too_few_patients_or_folds_are_refused(patients, folds):
    with pytest.raises(UserError, match=r"data\.num_folds"):
        make_splits({f"p{n}": "" for n in range(patients)}, folds)


@pytest.mark.parametrize("fold", [7, 5, -1])
def test_a_fold_that_does_not_exist_is_refused(fold):
    with pytest.raises(UserError, match=rf"data\.fold: fold {fold} of 5; choose from 0 to 4"):
        check_fold(fold, 5)


@pytest.mark.parametrize("fold", [0, 4])
def test_the_first_and_the_last_fold_exist(fold):
    check_fold(fold, 5)


@given(cohorts, st.integers(0, 9))
@settings(max_examples=60)
def test_leaving_out_a_group_tests_all_of_it_and_trains_on_none_of_it(groups, seed):
    names = sorted(set(groups.values()))
    assume(len(groups) - max(Counter(groups.values()).values()) >= 2)
    splits = leave_one_out(groups, dict.fromkeys(groups, ""), seed)
    assert len(splits) == len(names)
    for name, split in zip(names, splits, strict=True):
        assert {groups[p] for p in split.test} == {name}
        assert name not in {groups[p] for p in (*split.train, *split.val)}
        assert sorted([*split.train, *split.val, *split.test]) == sorted(groups)


@given(cohorts, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 9))
@settings(max_examples=60)
def test_smaller_shares_of_the_training_part_are_nested_and_balanced(strata, one, other, seed):
    split = make_splits(strata, 3)[0]
    small, large = (thin(split, share, strata, seed) for share in sorted((one, other)))
    assert set(small.train) <= set(large.train) <= set(split.train)
    assert (small.val, small.test) == (split.val, split.test)
    for stratum in {strata[p] for p in split.train}:
        whole, kept = (sum(strata[p] == stratum for p in s.train) for s in (split, large))
        assert abs(kept - max(one, other) * whole) < 1


def test_the_whole_share_changes_nothing():
    split = make_splits({f"p{n}": "" for n in range(9)}, 3)[0]
    assert thin(split, 1.0, dict.fromkeys(split.train, "")) == split
    with pytest.raises(UserError, match=r"data\.train_fraction: 1\.5; give a number above 0"):
        thin(split, 1.5, {})


def test_folds_of_ones_own_are_read_with_and_without_hash(tmp_path):
    splits = make_splits({f"p{n}": "" for n in range(6)}, 3)
    save_splits(tmp_path / "ours.json", "toy", splits, seed=0)
    assert read_splits(tmp_path / "ours.json") == splits
    bare = [{"train": ["b", "a"], "val": ["c"], "test": ["d"]}]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    assert read_splits(tmp_path / "bare.json", list("abcd")) == [
        Split(0, ("a", "b"), ("c",), ("d",))
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[", "cannot be read"),
        ("{}", "holds no folds"),
        ("[3]", "fold 0 has no list of patients under 'train'"),
        ('[{"train": ["a"], "val": [], "test": ["b"]}]', "under 'val'"),
        (
            '[{"train": ["a"], "val": ["b"], "test": ["a"]}]',
            "patient 'a' is in two parts of fold 0",
        ),
        ('[{"train": ["a"], "val": ["b"], "test": ["z"]}]', "names 1 patients .* such as 'z'"),
        (
            '{"sha256": "00", "folds": [{"train": ["a"], "val": ["b"], "test": ["c"]}]}',
            "not those of its sha256",
        ),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_folds_that_cannot_be_are_one_line(tmp_path, text, message):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_splits(tmp_path / "folds.json", ["a", "b", "c"])


@pytest.mark.parametrize("groups", [{"a": "x", "b": "x"}, {"a": "x", "b": "", "c": "y"}])
def test_groups_that_cannot_be_left_out_are_refused(groups):
    with pytest.raises(UserError, match=r"data\.leave_out: .* groups"):
        leave_one_out(groups, dict.fromkeys(groups, ""))


def test_validation_patients_are_chosen_among_the_candidates_and_the_others_train():
    split = Split(0, ("a", "b", "c"), ("d",), ("e",))
    none = take_validation(split, ["a", "b"], 0)
    assert (none.train, none.val, none.test) == (("a", "b", "c", "d"), (), ("e",))
    one = take_validation(split, ["a", "b", "e"], 1)
    assert set(one.val) < {"a", "b"}
    assert sorted(one.train + one.val) == ["a", "b", "c", "d"]
    with pytest.raises(UserError, match=r"data\.val_patients: 2 of 2 labelled patients"):
        take_validation(split, ["a", "b", "e"], 2)


def test_transductive_patients_are_kept_hashed_and_of_the_test_part(tmp_path):
    split = Split(0, ("a",), (), ("b", "c"), ("c",))
    save_splits(tmp_path / "folds.json", "toy", [split], seed=0)
    assert read_splits(tmp_path / "folds.json", without_val=True) == [split]
    assert digest([split]) != digest([Split(0, ("a",), (), ("b", "c"))])
    with pytest.raises(UserError, match="no list of patients under 'val'"):
        read_splits(tmp_path / "folds.json")
    text = '[{"train": ["a"], "val": ["b"], "test": ["c"], "transductive": ["a"]}]'
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(UserError, match="'a' is transductive and not in the test part of fold 0"):
        read_splits(tmp_path / "folds.json")
