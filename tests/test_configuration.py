"""Shipped names, and jsonargparse's sixty lines as one that names key and nearest name (P34)."""

import subprocess
import sys

import pytest

from cardiac_mtl.catalogue import experiments, find_config, header, overlays, read_yaml
from cardiac_mtl.configuration import build, explain, resolve_configs
from cardiac_mtl.errors import UserError

UNION = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'data_modules.base.CardiacDataModule'>, <class 'NoneType'>]
  Errors:
    - data.nested: inner
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'init_args': {'fodl': 8}}"""


def test_a_shipped_file_by_any_of_its_names():
    path = find_config("mtn_uncertainty")
    assert path.name == "mtn_uncertainty.yaml"
    assert find_config("experiments/mtn_uncertainty.yaml").samefile(path)
    assert find_config("manifest").samefile(find_config("data/manifest"))


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match="did you mean 'mtn_uncertainty'"):
        find_config("mtn_uncertanty")


def test_words_keep_their_order():
    words = resolve_configs(["fit", "--config=mtn_unet", "--data.fold", "1", "-c", "manifest"])
    assert [w.rsplit("/", 1)[-1] for w in words] == [
        "fit", "--config", "mtn_unet.yaml", "--data.fold", "1", "--config", "manifest.yaml",
    ]  # fmt: skip


def test_a_nested_message_becomes_one_line():
    inner = explain("Option 'fodl' is not accepted", ["fold", "root"])
    error = explain(UNION.replace("data.nested: inner", str(inner)), [])
    assert str(error) == "data: Option 'fodl' is not accepted; did you mean 'fold'?"


def test_a_message_without_a_near_name_still_says_what_to_do():
    error = explain("unrecognized arguments: --zzz 3", ["fold"])
    assert (
        str(error) == "configuration: unrecognized arguments: --zzz 3; see `cardiac-mtl fit --help`"
    )


def test_yaml_that_is_none_names_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("trainer:\n  max_epochs: [8\n")
    with pytest.raises(UserError, match=r"a\.yaml, line 3: is not YAML"):
        read_yaml(path)


def test_yaml_must_be_a_mapping(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="is not a mapping"):
        resolve_configs(["fit", "--config", str(path)])


def test_every_experiment_says_what_it_is():
    for path in experiments():
        assert list(header(path)) == ["paper", "row", "data", "tasks"], path.name
    for path in overlays():
        assert path.read_text().startswith("# "), path.name


def test_whole_numbers_stay_whole_whatever_was_imported_before():
    """Else the same words would be another run in another process, and 1 batch be all of them."""
    code = """
from lightning import Trainer
# as `typing` hands it out where a library made Union[float, int] first
Trainer.__init__.__annotations__["limit_train_batches"] = float | int | None
from cardiac_mtl.cli import main
main(["fit", "--config", "mtn_unet", "--config", "debug", "--print_config"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "limit_train_batches: 2\n" in done.stdout


def test_a_configuration_of_another_version_is_one_line():
    described = {"class_path": "cardiac_mtl.papers.mtn.MTN", "init_args": {"widht": 4}}
    data = {"class_path": "data_modules.stacom.StacomDataModule"}
    with pytest.raises(UserError, match=r"model: Option 'widht' is not accepted; did you mean 'wi"):
        build({"model": described, "data": data})
