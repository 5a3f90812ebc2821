"""Run directories and checkpoints: identity, provenance, and what is refused."""

import json

import pytest
import torch

from cardiac_mtl.errors import UserError
from cardiac_mtl.runs import (
    BEST,
    IDENTITY,
    PROVENANCE,
    config_digest,
    find_run,
    load_weights,
    provenance,
    read_checkpoint,
    read_identity,
    run_directory,
    write_identity,
)


def make_run(path, started_at="2026-01-01T00:00:00+00:00", finished=True):
    (path / "checkpoints").mkdir(parents=True)
    write_identity(path, {"started_at": started_at})
    if finished:
        torch.save({PROVENANCE: {}, "state_dict": {}}, path / BEST)
    return path


def test_one_configuration_is_one_directory_of_safe_names(tmp_path):
    found = run_directory(tmp_path, "mtn", "my data/..", "fold0-seed0", "abc")
    assert found.relative_to(tmp_path).parts == ("mtn", "my-data", "fold0-seed0", "abc")


def test_the_digest_depends_on_values_and_not_on_order():
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_the_digest_knows_nothing_of_places_and_loggers():
    one = {"run_root": "a", "trainer": {"logger": True, "max_epochs": 3}}
    other = {"run_root": "b", "trainer": {"logger": False, "max_epochs": 3}}
    assert config_digest(one) == config_digest(other)
    assert config_digest(one) != config_digest({**one, "trainer": {"max_epochs": 4}})


def test_the_digest_knows_nothing_of_where_batches_are_gathered():
    def digest(**settings):
        return config_digest({"data": {"class_path": "x", "init_args": {"fold": 0, **settings}}})

    assert digest(resident=True) == digest(resident=None) == digest()
    assert digest() != digest(fold=1)


def test_a_run_that_was_stopped_is_not_the_newest_finished_one(tmp_path, capsys):
    old = make_run(tmp_path / "x" / "old")
    new = make_run(tmp_path / "x" / "new", "2026-01-02T00:00:00+00:00")
    write_identity(new, {**read_identity(new), "status": "interrupted"})
    assert find_run(tmp_path) == old
    assert capsys.readouterr().out == ""
    assert find_run(new) == new
    assert "did not train to its end: interrupted" in capsys.readouterr().out


def test_an_identity_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / IDENTITY).write_text("[]")
    with pytest.raises(UserError, match=r"run.json: cannot be read"):
        read_identity(tmp_path)


@pytest.mark.parametrize("content", ["hello", "", "model: 1", "\x80\x02}."])
def test_any_other_file_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "some.ckpt"
    path.write_text(content)
    with pytest.raises(UserError, match="is not a readable checkpoint of weights"):
        read_checkpoint(path)


def test_weights_of_another_network_are_refused(tmp_path):
    weights = {"state_dict": torch.nn.Linear(3, 1).state_dict()}
    with pytest.raises(UserError, match=r"best.ckpt: its weights are of another network"):
        load_weights(torch.nn.Linear(2, 1), weights, tmp_path / "best.ckpt")


def test_a_folder_of_runs_means_its_newest_finished_one(tmp_path):
    make_run(tmp_path / "x" / "old", "2026-01-01T00:00:00+00:00")
    new = make_run(tmp_path / "x" / "new", "2026-01-02T00:00:00+00:00")
    make_run(tmp_path / "x" / "broken", "2026-01-03T00:00:00+00:00", finished=False)
    assert find_run(tmp_path) == new
    assert find_run(tmp_path / "x" / "broken").name == "broken"


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_run_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match=r"no such folder|no finished run here"):
        find_run(tmp_path / name)


def test_a_damaged_identity_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    (run / IDENTITY).write_text("{")
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        read_identity(run)


def test_an_identity_that_lost_a_value_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"run\.json: says nothing of 'fold'; restore the file"):
        read_identity(run)["fold"]
    assert read_identity(run).get("fold") is None


def test_provenance_is_json_and_names_versions():
    facts = json.loads(json.dumps(provenance()))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["started_at"].endswith("+00:00")


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable checkpoint"),
        (b"PK\x03\x04 half a zip", "is not a readable checkpoint"),
        ({"state_dict": {}}, "was not written by cardiac-mtl"),
        ({PROVENANCE: Malicious()}, "is not a readable checkpoint"),
        (None, "no such checkpoint"),
    ],
    ids=["empty", "half", "foreign", "code", "absent"],
)
def test_a_checkpoint_that_cannot_be_trusted_is_refused(tmp_path, capsys, content, message):
    path = tmp_path / "best.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out
