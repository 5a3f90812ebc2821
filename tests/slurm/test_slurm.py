"""A study on a real cluster of one node, and what clusters do to studies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cardiac_mtl.runs import LAST

SCRIPT = Path(__file__).with_name("cluster.sh")
PATIENCE = 300

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.name != "posix" or os.geteuid() != 0 or not shutil.which("slurmctld"),
        reason="needs root, and Debian's slurm-wlm and munge",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a user of the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True, timeout=60)
    # sums depend on the number of threads that share them
    yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
    subprocess.run([SCRIPT, "stop", folder], check=True, timeout=60)


def words(hearts, root, *more):
    return [
        "cv", "--config", "mtn_uncertainty", "--config", "manifest", "--config", "debug",
        "--data.root", str(hearts), "--trainer.accelerator", "cpu", "--folds", "3", "--jobs", "2",
        "--trainer.max_epochs", "6", "--data.copies", "5", "--trainer.limit_train_batches", "1.0",
        "--run_root", str(root), *more,
    ]  # fmt: skip


def start(given, environment):
    command = [Path(sys.executable).with_name("cardiac-mtl"), *given]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


class Study:
    """What a person at the cluster sees and does."""

    def __init__(self, ledger, environment):
        self.ledger, self.environment = ledger, environment

    def job(self, fold):
        return json.loads((self.ledger / f"mtn_uncertainty-fold{fold}-seed0.json").read_text())

    def epochs(self, fold):
        """Count the epochs that are on disk, the checkpoint of the last included."""
        run = Path(self.job(fold).get("run", ""))
        if not (run / LAST).is_file():
            return 0
        return len((run / "metrics.csv").read_text().splitlines()) // 2

    def until_within_an_epoch(self, fold):
        """Wait until a run has ended an epoch and works on another; return how many it ended."""
        self.until(lambda: self.job(fold)["state"] == "running" and self.epochs(fold) > 0)
        return self.epochs(fold)

    def until(self, true):
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, self.ask("squeue")
            time.sleep(0.05)

    def ask(self, *command):
        done = subprocess.run(
            command, env=self.environment, check=True, timeout=60, capture_output=True, text=True
        )
        return done.stdout

    def resumed(self, fold):
        path = Path(self.job(fold).get("run", "")) / "run.json"
        identity = json.loads(path.read_text()) if path.is_file() else {}
        return [one["after_epoch"] for one in identity.get("resumed", [])]


def test_a_study_survives_what_clusters_do_to_it(cluster, hearts, tmp_path):
    given = words(hearts, tmp_path / "runs", "--launcher", "slurm", "--mem", "1500M")
    first = start(given, cluster)
    assert first.stdout.readline().startswith("submitted 3 runs as job ")
    (ledger,) = (tmp_path / "runs/cv").iterdir()
    study = Study(ledger, cluster)

    # an administrator requeues a job; the process of another is killed, as memory runs out
    study.until_within_an_epoch(0)
    study.ask("scontrol", "requeue", study.job(0)["slurm"])
    study.until_within_an_epoch(1)
    os.kill(study.job(1)["pid"], signal.SIGKILL)

    # the end of a job's time is near: SLURM sends SIGUSR1
    study.until_within_an_epoch(2)
    study.ask("scancel", "--signal=USR1", study.job(2)["slurm"])
    study.until(lambda: study.job(2)["state"] == "stopped")

    # the machine that `cv` ran on is gone; a second call runs what is lost, and that alone
    assert "lost mtn_uncertainty-fold1-seed0\n" in iter(first.stdout.readline, "")
    first.kill()
    first.communicate()
    second = start(given, cluster)
    assert second.stdout.readline().startswith("submitted 1 runs as job ")

    # the node goes down under whatever runs, and comes back
    study.until(lambda: len(study.resumed(1)) == 1)
    done = study.until_within_an_epoch(1)
    node = study.job(1)["node"]
    study.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    study.ask("scontrol", "update", f"nodename={node}", "state=resume")

    shown, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, shown
    assert "3 finished" in shown
    assert (ledger / "report/index.html").is_file()
    assert all(study.resumed(fold) for fold in range(3))
    assert len(study.resumed(1)) == 2
    assert max(study.resumed(1)) + 1 >= done - 1

    # every run ends in the weights of one that nothing happened to
    calm = start(words(hearts, tmp_path / "calm"), cluster)
    shown, _ = calm.communicate(timeout=PATIENCE)
    assert calm.returncode == 0, shown
    ours, theirs = (sorted((tmp_path / root).rglob(LAST)) for root in ("runs", "calm"))
    assert len(ours) == len(theirs) == 3
    for path, other in zip(ours, theirs, strict=True):
        one, two = (torch.load(p, weights_only=True) for p in (path, other))
        assert all(
            torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"]
        )
        assert (path.parents[1] / "metrics.csv").read_text() == (
            other.parents[1] / "metrics.csv"
        ).read_text()


def test_a_job_that_a_person_cancels_is_not_requeued(cluster, hearts, tmp_path):
    given = words(hearts, tmp_path / "runs", "--launcher", "slurm", "--folds", "2")
    process = start(given, cluster)
    assert process.stdout.readline().startswith("submitted 2 runs as job ")
    (ledger,) = (tmp_path / "runs/cv").iterdir()
    study = Study(ledger, cluster)
    study.until_within_an_epoch(0)
    study.ask("scancel", study.job(0)["slurm"].partition("_")[0])
    shown, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "2 lost" in shown
    assert study.ask("squeue", "--noheader", "--states=PENDING,RUNNING") == ""


def test_a_run_may_have_several_tasks(cluster, hearts, tmp_path):
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--sbatch=--ntasks-per-node=2")
    given = words(hearts, tmp_path, "--launcher", "slurm", "--folds", "2", "--mem", "3000M", *more)
    process = start(given, cluster)
    shown, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, shown
    (ledger,) = (tmp_path / "cv").iterdir()
    log = (ledger / "mtn_uncertainty-fold0-seed0.log").read_text()
    assert "2 processes share the training slices" in log  # which begin when both have joined
    assert log.count("run directory: ") == 1
    run = Path(Study(ledger, cluster).job(0)["run"])
    assert "epoch" in (run / "metrics.csv").read_text()
    assert (run / "cases.csv").is_file()


@pytest.mark.parametrize(
    ("more", "words_of_slurm"),
    [
        (["--partition", "nowhere"], "invalid partition"),
        (["--sbatch=--ntasks-per-node=3"], "Requested partition configuration not available"),
    ],
)
def test_what_slurm_refuses_is_one_line(cluster, hearts, tmp_path, more, words_of_slurm):
    ask = Study(tmp_path, cluster).ask
    before = ask("squeue", "--noheader", "--format=%A").split()
    process = start(words(hearts, tmp_path, "--launcher", "slurm", *more), cluster)
    shown, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (line,) = shown.splitlines()
    assert words_of_slurm in line
    assert set(ask("squeue", "--noheader", "--format=%A").split()) <= set(before)
