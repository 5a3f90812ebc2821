"""The case table: a row a case, and what is refused before anything is read."""

from dataclasses import replace
from pathlib import Path

import pytest

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.cases import COLUMNS, Case, case_table, check_cases
from data_modules.manifest import ManifestDataModule, write_layout

CASE = Case("c1", "p1", (Path("secret") / "c1.nii.gz",), phase="ED", pathology="normal")


def test_row_i_is_case_i_without_its_paths():
    cases = [replace(CASE, case_id="b"), replace(CASE, case_id="a", label=1)]
    table = case_table(cases)
    assert tuple(table.columns) == COLUMNS
    assert table["case_id"].tolist() == ["b", "a"]
    assert table["label"].tolist() == [UNLABELLED, 1]
    assert "secret" not in table.to_csv()


def test_no_case_keeps_the_columns():
    assert tuple(case_table([]).columns) == COLUMNS


def test_no_case_is_refused():
    with pytest.raises(UserError, match=r"^lvsc: no case found; check `data\.root`$"):
        check_cases([], Path("lvsc"))


def test_two_cases_of_one_name_are_refused():
    with pytest.raises(UserError, match="'c1' occurs 2 times; give every case its own"):
        check_cases([CASE, replace(CASE, case_id="c2"), CASE], Path("lvsc"))


@pytest.mark.parametrize("fold", [7, -1])
def test_setup_refuses_a_fold_that_does_not_exist(tmp_path, studies, fold):
    write_layout(tmp_path, studies)
    with pytest.raises(UserError, match=rf"fold {fold} of 2; choose from 0 to 1"):
        ManifestDataModule(tmp_path, num_folds=2, fold=fold).setup("fit")
