"""The prepared store under kills, rivals and small disks; memory that stays bounded."""

import hashlib
import json
import multiprocessing
import random
import shutil
import sqlite3
import time
from collections import namedtuple
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiac_mtl.errors import UserError
from data_modules import store as store_module
from data_modules.cases import Case
from data_modules.digests import digests
from data_modules.geometry import prepare_image, prepare_mask
from data_modules.manifest import find_cases, write_layout
from data_modules.masks import read_mask
from data_modules.readers import read_volume
from data_modules.store import Plan, PreparedCase, PreparedStore, open_store, store_key

FORK = multiprocessing.get_context("fork")
MATRIX = (96, 96)


@pytest.fixture(scope="module")
def cases(tmp_path_factory, make_study):
    root = tmp_path_factory.mktemp("hearts") / "hearts"
    studies = [
        make_study(f"p{n}", phases=2, slices=2 + n % 3, shape=(80, 90), seed=n) for n in range(12)
    ]
    write_layout(root, studies)
    return find_cases(root)


def prepare(case: Case) -> PreparedCase:
    volume = read_volume(case.image, case.frame)
    mask = read_mask(case.mask, volume, {"myocardium": 1}, case.frame)
    return PreparedCase(
        prepare_image(volume, MATRIX, 1.2), prepare_mask(mask, MATRIX, 1.2), (8.0, 1.2, 1.2)
    )


def make(folder, cases):
    plan = Plan(tuple(2 + n // 2 % 3 for n in range(len(cases))), MATRIX)
    return open_store(folder, cases, prepare, lambda: plan, {"matrix": MATRIX, "spacing_mm": 1.2})


def content(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start(folder, cases):
    process = FORK.Process(target=make, args=(folder, cases))
    process.start()
    return process


def test_a_preparation_killed_at_random_moments_ends_in_the_same_store(cases, tmp_path):
    began = time.perf_counter()
    start(tmp_path / "whole", cases).join()
    duration = time.perf_counter() - began
    expected = content(tmp_path / "whole")
    assert set(expected) == {"image.float16", "mask.int8", "index.npz", "about.json"}
    chance = random.Random(0)
    interrupted = 0
    for moment in range(20):
        folder = tmp_path / f"killed{moment}"
        process = start(folder, cases)
        process.join(chance.uniform(0.0, 0.9 * duration))
        process.kill()
        process.join()
        interrupted += not folder.is_dir()
        again = start(folder, cases)
        again.join(60)
        assert again.exitcode == 0
        assert content(folder) == expected
    assert interrupted >= 5


def test_two_processes_that_want_one_store_make_it_once(cases, tmp_path):
    rivals = [start(tmp_path / "store", cases) for _ in range(2)]
    for process in rivals:
        process.join(60)
    assert [process.exitcode for process in rivals] == [0, 0]
    alone = start(tmp_path / "alone", cases)
    alone.join(60)
    assert content(tmp_path / "store") == content(tmp_path / "alone")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["alone", "store"]


def test_what_was_prepared_is_not_prepared_again(cases, tmp_path):
    few = cases[:5]
    plan = Plan(tuple(2 + n // 2 % 3 for n in range(5)), MATRIX)
    prepared = []

    def fails_once(case):
        if case is few[3] and len(prepared) == 3:
            prepared.append("failed")
            raise UserError("planted", where="here", fix="none")
        prepared.append(case.case_id)
        return prepare(case)

    with pytest.raises(UserError, match="planted"):
        open_store(tmp_path / "store", few, fails_once, lambda: plan, {})
    open_store(tmp_path / "store", few, fails_once, lambda: plan, {})
    assert prepared == [*(c.case_id for c in few[:3]), "failed", *(c.case_id for c in few[3:])]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(cases, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(UserError, match=r"needs 2\.0 MB, 0\.0 MB are free; see `cardiac-mtl cache"):
        make(tmp_path / "store", cases)
    assert not list(tmp_path.glob("*/image*"))


def test_a_header_that_lies_about_its_slices_is_named(cases, tmp_path):
    with pytest.raises(UserError, match=r"_image\.nii\.gz: has 2 slices, its header promised 7"):
        open_store(tmp_path / "s", cases[:1], prepare, lambda: Plan((7,), MATRIX), {})


def test_reading_lets_go_of_memory_and_reads_the_same(cases, tmp_path, monkeypatch):
    make(tmp_path / "store", cases[:4])
    store = PreparedStore(tmp_path / "store")
    positions = np.arange(4)
    first = store.gather(positions)
    monkeypatch.setattr(store_module, "RESIDENT_BYTES", 1)
    again = store.gather(positions)
    last = store.gather(positions)
    for a, b, c in zip(first, again, last, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_the_key_follows_content_and_not_names_or_dates(cases, tmp_path):
    moved = tmp_path / "moved.nii.gz"
    shutil.copy(cases[0].image[0], moved)
    other = Case("x", "x", (moved,), cases[0].mask)
    same = Case("y", "y", cases[0].image, cases[0].mask)
    settings = {"matrix": (4, 4)}
    assert store_key([other], settings, tmp_path) == store_key([same], settings, tmp_path)
    assert store_key([other], settings, tmp_path) != store_key([other], {}, tmp_path)
    moved.write_bytes(moved.read_bytes() + b" ")
    assert store_key([other], settings, tmp_path) != store_key([same], settings, tmp_path)


def test_one_image_of_two_patients_is_one_line(cases, tmp_path):
    """One of them would be tested on, or chosen by, while the other trains."""
    copy = tmp_path / "copy.nii.gz"
    shutil.copy(cases[0].image[0], copy)
    other = replace(cases[0], case_id="x", patient_id="x", image=(copy,))
    with pytest.raises(UserError, match=rf"copy.nii.gz: is a copy of .* {cases[0].case_id}, of"):
        store_key([*cases, other], {}, tmp_path)
    again = replace(other, patient_id=cases[0].patient_id)  # twice scanned, as the table has it
    assert store_key([*cases, again], {}, tmp_path)


def test_digests_are_remembered_and_a_damaged_memory_is_made_anew(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"heart")
    expected = [hashlib.sha1(b"heart").hexdigest()]
    assert digests([file], tmp_path / "cache") == expected
    assert digests([file, file], tmp_path / "cache") == expected * 2
    memory = tmp_path / "cache" / "digests.sqlite"
    assert b"/a" not in memory.read_bytes()
    memory.write_bytes(b"not a database, but long enough to look like one" * 50)
    assert digests([file], tmp_path / "cache") == expected


def test_a_memory_that_cannot_be_written_is_left_alone(tmp_path, monkeypatch):
    """In use by another process, on a full disk, or in a folder that others keep."""
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode())
    expected = digests(files[:1], tmp_path)
    connect = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **_: connect(path, timeout=0.01))
    before = (tmp_path / "digests.sqlite").stat().st_ino
    for begin in ("BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"):  # none may read; none may write
        with closing(connect(tmp_path / "digests.sqlite", isolation_level=None)) as other:
            other.execute(begin)
            assert digests(files, tmp_path)[:1] == expected
    assert (tmp_path / "digests.sqlite").stat().st_ino == before
    (tmp_path / "other" / "digests.sqlite").mkdir(parents=True)  # no file can be opened there
    assert digests(files[:1], tmp_path / "other") == expected


def test_the_store_says_what_it_holds(cases, tmp_path):
    make(tmp_path / "store", cases[:4])
    about = json.loads((tmp_path / "store" / "about.json").read_text())
    assert (about["cases"], about["slices"], about["matrix"]) == (4, 10, [96, 96])
