"""`cv`: every job once, what is finished never again, what was lost again; one report."""

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from filelock import FileLock

from cardiac_mtl.catalogue import experiments
from cardiac_mtl.cli import main
from cardiac_mtl.errors import UserError
from cardiac_mtl.studies import crossval, slurm
from cardiac_mtl.studies.crossval import plan
from cardiac_mtl.studies.job import (
    LOST,
    RUNNING,
    STOPPED,
    Job,
    read_study,
    save_study,
)

# jobs are forked from a process that has imported everything and computed nothing
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["cardiac_mtl.training.fit"])
HELPER = Path(__file__).with_name("forked_job.py")


def words(hearts, root, *more, experiments="mtn_uncertainty,mtn_unet"):
    return [
        "cv", "--config", experiments, "--config", "manifest", "--config", "debug",
        "--data.root", str(hearts), "--trainer.accelerator", "cpu", "--folds", "2",
        "--run_root", str(root), *more,
    ]  # fmt: skip


def fork(job, _):
    """Start a job as `cv` does, without the seconds that a fresh interpreter imports for."""
    given = {"LEDGER": job.ledger, "NAME": job.name}
    process = processes.Process(target=runpy.run_path, args=(str(HELPER), given, "job"))
    process.start()
    return SimpleNamespace(
        poll=lambda: process.exitcode,
        terminate=process.terminate,
        kill=process.kill,
        wait=process.join,
    )


@pytest.fixture(scope="module")
def study(hearts, without_pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("study") / "runs"
    with pytest.MonkeyPatch.context() as patch, without_pictures():
        patch.setattr("cardiac_mtl.studies.crossval._start", fork)
        assert main(words(hearts, root, "--jobs", "2")) == 0
    (ledger,) = (root / "cv").iterdir()
    return root, ledger


@pytest.mark.slow
def test_a_grid_shares_its_folds_and_ends_in_one_report(study):
    root, ledger = study
    states = [json.loads(path.read_text()) for path in sorted(ledger.glob("*-fold*.json"))]
    assert [state["state"] for state in states] == ["finished"] * 4
    identities = [json.loads(path.read_text()) for path in root.rglob("run.json")]
    assert len(identities) == 4
    assert len({identity["split_sha256"] for identity in identities}) == 1
    results = pd.read_csv(ledger / "report/tables/results.csv")
    assert results["method"].unique().tolist() == ["mtn_uncertainty", "mtn_unet"]
    assert set(results.loc[results["phase"] == "all", "patients"]) == {6}
    comparisons = pd.read_csv(ledger / "report/tables/comparisons.csv")
    assert set(comparisons["patients"]) == {6}


@pytest.mark.slow
def test_what_is_finished_is_not_run_again_and_what_is_lost_is(study, hearts, capsys, monkeypatch):
    """The lost job is trained and tested in a fresh process, as users have it."""
    root, ledger = study
    reported = []
    monkeypatch.setattr("cardiac_mtl.commands.report.run", reported.append)
    path = next(iter(sorted(ledger.glob("*-fold*.json"))))
    lost = json.loads(path.read_text()) | {"state": RUNNING}
    path.write_text(json.dumps(lost))  # as a killed process leaves it: nobody holds the lock
    shutil.rmtree(lost["run"])
    assert main(words(hearts, root, "--status")) == 0
    assert "3 finished, 1 lost" in capsys.readouterr().out
    assert main(words(hearts, root)) == 0
    shown = capsys.readouterr().out
    assert shown.count("started ") == 1
    assert "4 finished" in shown
    assert len(list(root.rglob("run.json"))) == 4
    ((_, *runs, _, _),) = reported
    assert len(runs) == 4


def test_another_configuration_is_another_study(hearts, tmp_path):
    config = ["mtn_unet", "manifest"]
    one = plan(config, 2, [0], tmp_path, ["--data.root", str(hearts)])
    for other in (
        plan(config, 3, [0], tmp_path, ["--data.root", str(hearts)]),
        plan(config, 2, [0], tmp_path, ["--data.root", "elsewhere"]),
        plan([*config, "debug"], 2, [0], tmp_path, ["--data.root", str(hearts)]),
    ):
        assert other[0].ledger != one[0].ledger
    more = plan(config, 2, [0, 1], tmp_path, ["--data.root", str(hearts)])
    assert more[0].ledger == one[0].ledger  # further seeds go on with the same study
    assert [job.name for job in more] == [
        "mtn_unet-fold0-seed0", "mtn_unet-fold1-seed0", "mtn_unet-fold0-seed1",
        "mtn_unet-fold1-seed1",
    ]  # fmt: skip


def test_a_job_that_fails_says_why_and_the_others_go_on(tmp_path, hearts, capsys, monkeypatch):
    monkeypatch.setattr("cardiac_mtl.studies.crossval._start", fork)
    more = ["--data.val_fraction", "0.9"]
    assert main(words(hearts, tmp_path, "--jobs", "2", *more, experiments="mtn_unet")) == 1
    shown = capsys.readouterr().out
    assert shown.count("failed mtn_unet") == 2
    assert "2 failed" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "0"], "--folds"),
        (["--seeds", "a"], "--seeds"),
        (["--data.fold", "1"], "given to each run"),
        (["--config", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_study_is_one_line(tmp_path, capsys, more, message):
    given = ["cv", "--config", "mtn_unet", "--run_root", str(tmp_path / "runs"), *more]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_two_at_one_study_are_one_too_many(tmp_path):
    (job, _) = plan(["mtn_unet"], 2, [0], tmp_path, [])
    job.ledger.mkdir(parents=True)
    with FileLock(job.ledger / ".study.lock"):
        code = f"""
import sys
from cardiac_mtl.studies import slurm
from cardiac_mtl.cli import main
sys.exit(main(["cv", "--config", "mtn_unet", "--folds", "2", "--run_root", {str(tmp_path)!r}]))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "another `cv` runs this study" in done.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_stopped_leaves_no_job_behind(hearts, tmp_path, sign):
    code = "import sys; from cardiac_mtl.cli import main; sys.exit(main(sys.argv[1:]))"
    more = ["--trainer.max_epochs", "500", "--trainer.limit_train_batches", "1.0"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words(hearts, tmp_path, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline().startswith("started ")
    (ledger,) = (tmp_path / "cv").iterdir()
    deadline = time.monotonic() + 60
    while not list(ledger.glob("*-fold*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (path,) = ledger.glob("*-fold*.json")
    pid = json.loads(path.read_text())["pid"]
    process.send_signal(sign)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    job = Job(ledger, path.stem.partition("-")[0], 0, 0, ())
    assert job.state()["state"] in {LOST, STOPPED}


def test_what_looks_after_runs_imports_no_torch():
    code = "import sys, cardiac_mtl.studies.crossval; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_experiments_of_one_name_are_refused(tmp_path):
    """Their jobs would share state and log, and one of them would never run."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mtn.yaml").write_text(f"trainer: {{max_epochs: {len(folder)}}}")
    names = ",".join(str(tmp_path / folder / "mtn.yaml") for folder in ("a", "b"))
    with pytest.raises(UserError, match="two experiments are called 'mtn'"):
        plan([names], 2, [0], tmp_path, [])


def test_a_study_that_left_folds_out_says_so(study, capsys):
    """`--data.leave_out` and `--data.splits` have as many folds as they have."""
    _, ledger = study
    run = json.loads((ledger / "mtn_unet-fold0-seed0.json").read_text())["run"]
    assert crossval._every_fold([run], 2)
    assert not crossval._every_fold([run], 1)
    assert "only 1 of the 2 folds of the data were run: give --folds 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--data.root", "hearts"], ["--data.splits=hearts"], ["--data.init_args.root", "hearts"]],
)
def test_data_of_another_folder_are_another_study(tmp_path, monkeypatch, words):
    ledgers = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        (job, *_) = plan(["mtn_unet"], 2, [0], tmp_path / "runs", words)
        assert any(word.endswith(str(tmp_path / name / "hearts")) for word in job.words)
        ledgers.add(job.ledger)
    assert len(ledgers) == 2


@pytest.mark.parametrize("word", ["--data.init_args.fold", "--data.init_args.num_folds=3"])
def test_a_fold_by_its_longer_name_is_refused_too(tmp_path, word):
    """All jobs trained that one fold, and the study said that it had them all."""
    with pytest.raises(UserError, match="given to each run"):
        plan(["mtn_unet"], 2, [0], tmp_path, [word])


def test_a_study_of_many_experiments_has_a_name_that_a_disk_takes(tmp_path):
    names = [path.stem for path in experiments() if path.stem.startswith("fpm_")]
    (job, *_) = plan([",".join(names)], 5, [0], tmp_path, [])
    assert len("+".join(names)) > 255
    assert job.ledger.name.startswith(f"{names[0]}+{len(names) - 1}-others-")
    job.ledger.mkdir(parents=True)


def test_further_seeds_leave_those_in_the_study_that_are_queued(tmp_path):
    """A job of SLURM that began after a `cv` with other seeds did not find itself."""
    for seed in (0, 1):
        jobs = plan(["mtn_unet"], 2, [seed], tmp_path, [])
        jobs[0].ledger.mkdir(parents=True, exist_ok=True)
        save_study(jobs)
    both = plan(["mtn_unet"], 2, [0, 1], tmp_path, [])
    assert read_study(both[0].ledger) == {job.name: job for job in both}


def test_the_report_has_the_seeds_of_earlier_calls_too(tmp_path, monkeypatch):
    """It was written over with those of the last call alone."""
    reported = []

    def finish(jobs, _):
        for job in jobs:
            run = job.ledger / job.name
            run.mkdir()
            (run / "run.json").write_text("{}")
            job.write(state="finished", run=str(run))

    monkeypatch.setattr(crossval, "run_locally", finish)
    monkeypatch.setattr(crossval, "table", str)  # of the jobs, without how far their runs are
    monkeypatch.setattr(crossval, "_every_fold", lambda *_: True)
    monkeypatch.setattr("cardiac_mtl.commands.report.run", reported.append)
    for seed in ("0", "1"):
        words = ["--folds", "2", "--seeds", seed, "--run_root", str(tmp_path)]
        assert crossval.run(["cv", "--config", "mtn_unet", *words]) == 0
    assert [len(words[1:-2]) for words in reported] == [2, 4]


def test_a_job_imports_nothing_of_the_folder_that_it_is_started_in(tmp_path, monkeypatch):
    """The command itself does not either; `python -m` puts that folder before all others."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "filelock.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(here)
    (job, *_) = plan(["mtn_unet"], 2, [0], tmp_path, [])
    job.ledger.mkdir(parents=True)
    save_study([Job(job.ledger, "another", 0, 0, ())])  # so that the job ends at once
    crossval.run_locally([job], 1)
    assert f"KeyError: '{job.name}'" in job.log.read_text()
    assert not (here / "imported").exists()


def test_jobs_share_the_processors_that_are_ours(tmp_path, monkeypatch):
    """Within an allocation of four they had a thread for each of the node's 128."""
    given = {}

    def start(job, environment):
        given.update(environment)
        job.write(state="finished", run="")
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(crossval, "_start", start)
    monkeypatch.setattr("data_modules.parallel.processors", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    crossval.run_locally([Job(tmp_path, "mtn_unet", 0, 0, ())], 2)
    assert given["OMP_NUM_THREADS"] == "2"


def test_an_experiment_that_fails_twice_alike_is_not_started_again(tmp_path, monkeypatch, capsys):
    """A wrong option of twenty folds is said twice, not twenty times; other failures go on."""
    started = []

    def start(job, _):
        started.append(job.name)
        words = "wrong" if job.experiment == "a" else f"wrong in fold {job.fold}"
        job.write(state="failed", error=words)
        return SimpleNamespace(poll=lambda: 2)

    monkeypatch.setattr(crossval, "_start", start)
    jobs = [Job(tmp_path, name, fold, 0, ()) for name in ("a", "b") for fold in range(4)]
    crossval.run_locally(jobs, 1)
    of_b = [f"b-fold{fold}-seed0" for fold in range(4)]
    assert started == ["a-fold0-seed0", "a-fold1-seed0", *of_b]
    assert "2 further runs of a are not started: 2 failed alike" in capsys.readouterr().out


def test_options_of_sbatch_are_one_line_of_the_script(tmp_path):
    given = ["--config", "mtn_unet", "--sbatch=--qos low --comment='two words'"]
    options = crossval._parser().parse_args(given)
    text = slurm.script(tmp_path, ["one"], [0], 1, crossval._of_cluster(options))
    assert "#SBATCH --qos low --comment='two words'\n" in text
