"""What is read is whole: no reader ever sees a file that is being written."""

import pytest

from cardiac_mtl.files import whole


def test_the_file_is_there_once_it_is_written(tmp_path):
    path = tmp_path / "case.nii.gz"
    with whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.endswith(".nii.gz")  # libraries choose the format by it
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_half_way(path):
    with whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(path)
    assert path.read_text() == "old"
