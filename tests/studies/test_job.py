"""A job of a study: how it stands, whoever asks and whatever became of its process."""

import os
import signal
import subprocess
import sys

import pytest

from cardiac_mtl.studies import slurm
from cardiac_mtl.studies.job import LOST, RUNNING, STOPPED, WAITING, Job, table


def test_a_job_whose_process_was_killed_is_lost(tmp_path):
    job = Job(tmp_path, "mtn_unet", 0, 0, ())
    code = f"""
import time
from pathlib import Path
from cardiac_mtl.studies.job import RUNNING, Job
job = Job(Path({str(tmp_path)!r}), "mtn_unet", 0, 0, ())
with job.lock:
    job.write(state=RUNNING)
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert job.state()["state"] == RUNNING
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert job.state()["state"] == LOST


def test_a_run_whose_directory_was_renamed_is_run_again(tmp_path):
    job = Job(tmp_path, "mtn_unet", 0, 0, ())
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    job.write(state="finished", run=str(run))
    assert job.state()["state"] == "finished"
    run.rename(tmp_path / "before")
    assert job.state()["state"] == WAITING
    assert "waiting" in table([job])


def test_a_job_of_slurm_stands_as_slurm_says_and_is_not_lost_where_slurm_is_silent(tmp_path):
    job = Job(tmp_path, "mtn_unet", 0, 0, ())
    job.write(state=RUNNING, slurm="7_0")
    for queue, expected in (
        ({"7_0": "RUNNING"}, RUNNING), ({"7_0": "PENDING"}, "queued"), ({}, LOST), (None, RUNNING),
    ):  # fmt: skip
        assert job.state(lambda queue=queue: queue)["state"] == expected
    job.write(state=STOPPED, slurm="7_0")
    assert job.state(lambda: {"7_0": "PENDING"})["state"] == "queued"


def test_a_job_whose_metrics_have_no_epoch_yet_stands_in_the_table(tmp_path):
    """LearningRateMonitor logs before the first epoch ends."""
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 3}\n")
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("lr-Adam,step\n0.1,0\n")
    job = Job(tmp_path, "mtn_unet", 0, 0, ())
    job.write(state="failed", run=str(tmp_path), started_at="2026-01-01T00:00:00+00:00")
    assert "0/3" in table([job])


@pytest.mark.parametrize("state", ["queued", RUNNING])
def test_a_job_that_is_queued_again_stands_in_the_table(tmp_path, monkeypatch, state):
    """It has a run with epochs, and no time at which it was started."""
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 3}\n")
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("epoch,step\n0,1\n")
    there = {"7_0": "RUNNING" if state == RUNNING else "PENDING"}
    monkeypatch.setattr(slurm, "queue", lambda: there)
    job = Job(tmp_path, "mtn_unet", 0, 0, ())
    job.write(state="queued", slurm="7_0", run=str(tmp_path))
    shown = table([job])
    assert "1/3" in shown
    assert f"1 {state}" in shown
