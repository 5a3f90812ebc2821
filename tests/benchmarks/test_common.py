"""What all benchmarks share: options, commit, command, memory; and how they refuse."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import common, fused, kills, real_hearts

NOTHING = [sys.executable, "-c", ""]
FOR_EVER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture(autouse=True)
def _words(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)  # a benchmark that is called sets its own


@pytest.mark.parametrize(("name", "work"), [("all", "run_suite"), ("page", "run_one")])
def test_help_starts_nothing(name, work, monkeypatch, capsys):
    monkeypatch.setattr(command, work, lambda *_: pytest.fail("it was started"))
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m benchmarks {name}" in capsys.readouterr().out


def test_the_suite_takes_no_options(monkeypatch):
    monkeypatch.setattr(command, "run_suite", lambda: pytest.fail("it was started"))
    with pytest.raises(SystemExit) as ended:
        command.main(["all", "--rounds", "1"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("training --data NOWHERE --only ours", "NOWHERE: no such file or folder"),
        ("preparation NOWHERE", "NOWHERE/Training: No such file or directory"),
        ("memory --settings mtn_unet mutgn", "no such file 'mutgn'"),
        ("roofline --settings mtn_unet mutgn", "no such file 'mutgn'"),
    ],
)
def test_what_is_not_there_is_one_line_at_once(words, said, capsys):
    assert command.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words.split()[0] + ": ")
    assert said in line


@pytest.mark.parametrize("rounds", ["0", "-1", "2.5", "many"])
def test_repeats_are_counted_from_one(rounds, capsys):
    with pytest.raises(SystemExit) as ended:
        common.options_of("").parse_args([f"--rounds={rounds}"])
    assert ended.value.code == 2
    assert "give a whole number, 1 or more" in capsys.readouterr().err


def test_folds_that_nobody_tested_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["real_hearts", str(tmp_path), "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match="no tested run"):
        real_hearts.main()


def test_a_command_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="nnUNetv2_predict: No such file or directory"):
        common.timed([str(tmp_path / "nnUNetv2_predict")], tmp_path / "log")


def test_examples_hold():
    assert doctest.testmod(common).failed == 0


@pytest.fixture
def commits(monkeypatch):
    """Return the commits that the checkout comes to stand on, one a question."""
    common.start.cache_clear()
    found = ["before", "after"]
    facts = {"started_at": "", "versions": {}, "python": ""}
    monkeypatch.setattr(common, "provenance", lambda: facts | {"git_commit": found.pop(0)})
    yield found
    common.start.cache_clear()


def test_the_commit_is_that_of_the_start(commits, tmp_path):
    options = common.options_of("").parse_args(["--results", str(tmp_path)])
    path = common.write("x", {}, options)
    assert '"git_commit": "before"' in path.read_text()
    assert commits == ["after"]


def test_figures_alone_change_no_code(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    results = tmp_path / "benchmarks/results"
    results.mkdir(parents=True)
    (results / "x.json").write_text("1")
    (tmp_path / "code.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    monkeypatch.setattr(common, "RESULTS", results)
    (results / "x.json").write_text("2")
    assert common.commit_of_code("abc+") == "abc"
    (tmp_path / "code.py").write_text("2")
    assert common.commit_of_code("abc+") == "abc+"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is passed on")
def test_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    ballast = np.ones(100_000_000)
    code = "from benchmarks.common import largest_resident; print(largest_resident())"
    said = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True,
        cwd=common.RESULTS.parents[1],
    ).stdout  # fmt: skip
    assert 10e6 < int(said) < ballast.nbytes


def test_only_what_was_still_there_was_killed():
    assert not kills.killed(subprocess.Popen(NOTHING), 60)
    assert kills.killed(subprocess.Popen(FOR_EVER), 0.1)


def test_fused_and_not_are_compared_in_the_precision_of_fit(monkeypatch):
    asked = []

    def train(_paper, _batch, steps, callbacks, **settings):
        asked.append(settings["precision"])
        callbacks[0].seconds += [1.0] * steps

    monkeypatch.setattr(fused, "train", train)
    monkeypatch.setattr(fused, "paper_and_batch", lambda _: (None, None))
    monkeypatch.setattr("cardiac_mtl.training.precision.native_bf16", lambda: False)
    assert fused.step("mtn_uncertainty+cpu_small", 3, fused=True) == 1.0
    assert asked == ["32-true"]
