"""The runs of a study, each a job: what it is, how it stands, and the process that does it.

The ledger of a study, `<run_root>/cv/<study>/`, holds `study.json` with all jobs, and of each job
a file with its state and a log. A job is done by this file as a program, given LEDGER and NAME,
here or on any node that sees the ledger; a job whose process is gone counts as lost.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.console import say
from cardiac_mtl.errors import Stopped, UserError
from cardiac_mtl.runs import CONFIG, IDENTITY, METRICS, now, read_identity, write_whole
from cardiac_mtl.studies import slurm

FINISHED, RUNNING, QUEUED, STOPPED = "finished", "running", "queued", "stopped"
FAILED, LOST, WAITING = "failed", "lost", "waiting"
UNDER_WAY = {RUNNING, QUEUED}
STUDY = "study.json"


@dataclass(frozen=True)
class Job:
    """One fold and seed of one experiment."""

    ledger: Path
    """Folder of the study."""
    experiment: str
    fold: int
    seed: int
    words: tuple[str, ...]
    """Of `cardiac-mtl fit`."""

    @property
    def name(self) -> str:
        """Name its files."""
        return f"{self.experiment}-fold{self.fold}-seed{self.seed}"

    @property
    def file(self) -> Path:
        """Where its state is written down."""
        return self.ledger / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Where it says what it does."""
        return self.ledger / f"{self.name}.log"

    @property
    def lock(self) -> FileLock:
        """Held by the process that does the job; the system frees it when that process is gone."""
        return FileLock(self.ledger / f".{self.name}.lock")

    def state(self, queue: slurm.Queue = slurm.queue) -> dict[str, Any]:
        """Read the state; a job that says it runs while nothing does it is lost.

        Args:
            queue: asked for the jobs of SLURM alone.
        """
        if not self.file.is_file():
            return {"state": WAITING}
        found = self._read()
        if found["state"] == FINISHED and not (Path(found["run"]) / IDENTITY).is_file():
            return {"state": WAITING}  # its directory was renamed, to train again
        if "slurm" in found and found["state"] in {*UNDER_WAY, STOPPED}:
            there = queue()
            if there is None:  # SLURM does not answer: nothing is known to be lost
                found["state"] = RUNNING if found["state"] == RUNNING else QUEUED
            elif found["slurm"] in there:
                found["state"] = RUNNING if there[found["slurm"]] == "RUNNING" else QUEUED
            else:
                again = self._read()  # it may have ended since it was read
                lost = again["state"] in {*UNDER_WAY, STOPPED}
                found = again | {"state": LOST} if lost else again
        elif found["state"] == RUNNING and not _held(self.lock):
            found["state"] = LOST
        return found

    def _read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text(encoding="utf-8"))

    def write(self, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Write the state whole or not at all."""
        write_whole(self.file, json.dumps(facts, indent=1) + "\n")


def save_study(jobs: Sequence[Job]) -> None:
    """Write down all jobs of a study, for the processes that will do them.

    Those of other seeds stay: an earlier call may have left them in the queue.
    """
    ledger = jobs[0].ledger
    known = read_study(ledger) if (ledger / STUDY).is_file() else {}
    described = [
        {"experiment": j.experiment, "fold": j.fold, "seed": j.seed, "words": j.words}
        for j in (known | {job.name: job for job in jobs}).values()
    ]
    write_whole(ledger / STUDY, json.dumps({"jobs": described}, indent=1) + "\n")


def read_study(ledger: Path) -> dict[str, Job]:
    """Return the jobs of a study by name."""
    described = json.loads((ledger / STUDY).read_text(encoding="utf-8"))["jobs"]
    jobs = [Job(ledger, **{**one, "words": tuple(one["words"])}) for one in described]
    return {job.name: job for job in jobs}


def work(job: Job) -> int:
    """Do one job in this process: fit, test, and the state before and after.

    Args:
        job: of a study; of several processes on it, the first alone writes and tests.

    Returns:
        The exit status.
    """
    if int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0):
        with suppress(Stopped):  # a bad exit would have SLURM kill the first process
            return _fit(job.words, None)
        return 0
    for sign in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(sign, _stop)
    try:
        with job.lock:
            if job.state()["state"] == FINISHED:  # by the process that held the lock till now
                return 0
            return _work(job)
    except Stopped as stopped:
        say(f"cardiac-mtl: {stopped}")
        slurm.requeue(stopped.signal_number)
        return 128 + stopped.signal_number


def _work(job: Job) -> int:
    facts: dict[str, Any] = {"node": socket.gethostname(), "pid": os.getpid(), "started_at": now()}
    facts["slurm"] = slurm.own_job()
    facts = {key: value for key, value in facts.items() if value is not None}
    job.write(state=RUNNING, **facts)

    def note(run_directory: Path) -> None:
        facts["run"] = str(run_directory.resolve())
        job.write(state=RUNNING, **facts)

    try:
        _fit(job.words, note)
        _test(facts["run"])
    except UserError as error:
        say(f"cardiac-mtl: {error}")
        job.write(state=FAILED, error=str(error), **facts)
        return 2
    except Stopped:
        job.write(state=STOPPED, **facts)
        raise
    except Exception as error:
        job.write(state=FAILED, error=f"{type(error).__name__}: {error}", **facts)
        raise
    job.write(state=FINISHED, finished_at=now(), **facts)
    return 0


def _fit(words: Sequence[str], announce: Callable[[Path], None] | None) -> int:
    from cardiac_mtl.training import fit  # noqa: PLC0415 - the parent needs no torch

    return fit.run(["fit", *words], announce)


def _test(run_directory: str) -> None:
    from cardiac_mtl.training import fit  # noqa: PLC0415 - the parent needs no torch

    fit.run(["test", "--run", run_directory])


def table(jobs: Sequence[Job]) -> str:
    """Say how every job stands."""
    queue = cache(slurm.queue)
    rows = pd.DataFrame([_row(job, job.state(queue)) for job in jobs])
    counts = ", ".join(f"{n} {state}" for state, n in rows["state"].value_counts().items())
    return f"{rows.to_string(index=False)}\n{counts}; {jobs[0].ledger}"


def _row(job: Job, state: dict[str, Any]) -> dict[str, Any]:
    run_directory = Path(state["run"]) if "run" in state else None
    if run_directory and not (run_directory / IDENTITY).is_file():
        run_directory = None
    identity = read_identity(run_directory) if run_directory else {}
    epoch, left = _progress(run_directory, identity, state) if run_directory else ("", "")
    best = identity.get("best_value")
    return {
        "experiment": job.experiment,
        "fold": job.fold,
        "seed": job.seed,
        "state": state["state"],
        "node": state.get("node", ""),
        "epoch": epoch,
        "best": "" if best is None else f"{best:.4f}",
        "left": left if state["state"] == RUNNING else "",
        "error": state.get("error", "")[:80],
    }


def _progress(
    run_directory: Path, identity: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[str, str]:
    """Return epochs done of all, and the time that the others will take at this pace."""
    whole = read_yaml(run_directory / CONFIG)["trainer"]["max_epochs"]
    path = run_directory / METRICS
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    # until the first epoch ends there may be but the rows of callbacks that log none
    epochs: list[float] = rows["epoch"].dropna().tolist() if "epoch" in rows else []
    done = int(max(epochs, default=-1)) + 1
    resumed = identity.get("resumed", [])
    here = done - (resumed[-1]["after_epoch"] + 1 if resumed else 0)
    if here < 1 or not whole or "started_at" not in state:  # queued again, with a run from before
        return f"{done}/{whole or '?'}", ""
    seconds = (pd.Timestamp(now()) - pd.Timestamp(state["started_at"])).total_seconds()
    return f"{done}/{whole}", f"{(whole - done) * seconds / here / 60:.0f} min"


def _stop(number: int, _: object) -> None:
    raise Stopped(number)


def _held(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


if __name__ == "__main__":
    sys.exit(work(read_study(Path(sys.argv[1]))[sys.argv[2]]))
