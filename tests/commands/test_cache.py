"""`cache`: what is listed is there, what is cleared is gone, and nothing else is."""

import pytest

from cardiac_mtl.cli import main
from data_modules.manifest import ManifestDataModule
from data_modules.store import ABOUT


@pytest.fixture
def cache(hearts, tmp_path):
    for size in (32, 48):
        data = ManifestDataModule(
            hearts, matrix=(size, size), num_folds=3, cache_dir=tmp_path / "cache"
        )
        data.setup("fit")
    (tmp_path / "cache" / "mine").mkdir()
    return tmp_path / "cache"


def test_stores_are_listed_with_sizes_and_cleared_by_name(cache, capsys):
    assert main(["cache", "list", "--data.cache_dir", str(cache)]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert total.startswith("2 entries")
    names = [line.split()[0] for line in lines]
    assert any("slices of 32 x 32 at 1.5625 mm" in line for line in lines)
    assert main(["cache", "clear", names[0], "--data.cache_dir", str(cache)]) == 0
    capsys.readouterr()
    assert main(["cache", "list", "--data.cache_dir", str(cache)]) == 0
    left, _ = capsys.readouterr().out.splitlines()
    assert left.split()[0] == names[1]
    assert main(["cache", "clear", "--data.cache_dir", str(cache)]) == 0
    assert not [path for path in (cache / "prepared").glob("*") if path.is_dir()]
    assert (cache / "mine").is_dir()


def test_a_name_that_is_not_there_is_one_line(cache, capsys):
    assert main(["cache", "clear", "prepared/nothing", "--data.cache_dir", str(cache)]) == 2
    assert "no entry 'prepared/nothing'; see `cardiac-mtl cache list`" in capsys.readouterr().err


def test_a_damaged_entry_is_listed_and_a_link_is_all_that_goes(cache, tmp_path, capsys):
    damaged, linked = sorted(path for path in (cache / "prepared").iterdir() if path.is_dir())
    (damaged / ABOUT).write_text("{")
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    assert main(["cache", "list", "--data.cache_dir", str(cache)]) == 0
    assert "damaged" in capsys.readouterr().out
    assert main(["cache", "clear", "--data.cache_dir", str(cache)]) == 0
    assert not [path for path in (cache / "prepared").iterdir() if path.is_dir()]
    assert (tmp_path / "elsewhere" / ABOUT).is_file()
