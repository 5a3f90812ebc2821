"""Tiny data, made once a test run, and a cache folder that is not the user's."""

import pytest

from cardiac_mtl.phantom_cohort import write_cohort


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep prepared stores and phantoms out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def lvsc(tmp_path_factory):
    """An LVSC folder of six phantom patients with two phases."""
    root = tmp_path_factory.mktemp("data") / "lvsc"
    write_cohort("lvsc", root, patients=6, phases=2, seed=0)
    return root


@pytest.fixture(scope="session")
def hearts(tmp_path_factory):
    """The same phantoms behind a manifest."""
    root = tmp_path_factory.mktemp("data") / "hearts"
    write_cohort("manifest", root, patients=6, phases=2, seed=0)
    return root
