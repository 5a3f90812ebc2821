"""What is read is whole: no reader ever sees a file that is being written."""

import pytest

from cardiac_mtl.files import remove_halves, whole


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
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_one_file_do_not_meet(tmp_path):
    """Two reports into one folder; they shared a hidden name, and the second found it gone."""
    path = tmp_path / "rows.csv"
    with whole(path) as one, one.open("w") as file:
        file.write("one")
        with whole(path) as other:
            other.write_text("the other")
        assert path.read_text() == "the other"
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_can_be_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".lock").touch()
    killed = [whole(tmp_path / "run.json"), whole(tmp_path / "checkpoints/last.ckpt")]
    for writer in killed:  # none of them comes to its end
        writer.__enter__().touch()
    assert len(list(tmp_path.rglob(".half-*"))) == 2
    remove_halves(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"checkpoints", ".lock"}
