"""`cv`: every fold and seed of one or several experiments, some at a time, then one report.

The ledger of a study, `<run_root>/cv/<study>/`, holds a file and a log for each job, and the
report. What is finished is not run again; a job whose process is gone counts as lost, and is.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cardiac_mtl.catalogue import find_config
from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from cardiac_mtl.runs import CONFIG, METRICS, now, read_identity

FINISHED, RUNNING, FAILED, LOST, WAITING = "finished", "running", "failed", "lost", "waiting"
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 20
_OURS = ("--data.fold", "--seed_everything", "--experiment", "--run_root")


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

    def state(self) -> dict[str, Any]:
        """Read the state; a job that says it runs while nobody holds its lock is lost."""
        if not self.file.is_file():
            return {"state": WAITING}
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        if found["state"] == RUNNING and not _held(self.lock):
            found["state"] = LOST
        return found

    def write(self, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Write the state whole or not at all."""
        temporary = self.file.with_name(f".{self.file.name}")
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.file)

    @property
    def lock(self) -> FileLock:
        """Held by the process that runs the job; the system frees it when that process is gone."""
        return FileLock(self.ledger / f".{self.name}.lock")


def run(arguments: Sequence[str]) -> int:
    """Run a study, or say how it stands; status 1 when a job failed."""
    parser = OptionParser(
        prog="cardiac-mtl cv",
        description="Train and test every fold and seed, then report. Started again, it runs what "
        "is missing. Further options are those of `cardiac-mtl fit`.",
    )
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        help="first the experiment (several with commas make a grid on the same folds), then "
        "overlays",
    )
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation [5]")
    parser.add_argument("--seeds", default="0", help="with commas [0]")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time [1]")
    parser.add_argument("--run_root", type=Path, default=Path("runs"), help="[runs]")
    parser.add_argument("--status", action="store_true", help="print how the study stands")
    options, words = parser.parse_known_args(arguments[1:])
    jobs = plan(options.config, options.folds, _seeds(options.seeds), options.run_root, words)
    ledger = jobs[0].ledger
    if options.status:
        say(table(jobs))
        return 0
    ledger.mkdir(parents=True, exist_ok=True)
    study = FileLock(ledger / ".study.lock")
    try:
        study.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            "another `cv` runs this study", where=str(ledger), fix="wait for it, or use --status"
        ) from error
    # a script that starts us in the background has us ignore Ctrl-C, unless we say otherwise
    before = {sign: signal.signal(sign, _stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        run_locally([job for job in jobs if job.state()["state"] != FINISHED], options.jobs)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
        study.release()
    say(table(jobs))
    runs = [job.state().get("run") for job in jobs if job.state()["state"] == FINISHED]
    if runs:
        from cardiac_mtl.reporting import run as report  # noqa: PLC0415 - draws, so imports much

        report(["report", *map(str, runs), "--output", str(ledger / "report")])
    return 0 if len(runs) == len(jobs) else 1


def plan(
    configs: Sequence[str], folds: int, seeds: Sequence[int], run_root: Path, words: Sequence[str]
) -> list[Job]:
    """List the jobs of a study.

    Args:
        configs: experiments with commas, then overlays.
        folds: of the cross-validation.
        seeds: of the training; all share the folds.
        run_root: where run directories are made.
        words: further words for `fit`.

    Raises:
        UserError: a configuration is absent, or a word is ours to give.
    """
    for word in words:
        if word.partition("=")[0] in (*_OURS, "--data.num_folds"):
            raise UserError(
                f"{word} is given to each run by `cv`",
                where="cv",
                fix="see `cardiac-mtl cv --help`",
            )
    if folds < 2:
        raise UserError(f"{folds} folds", where="--folds", fix="give at least 2")
    experiments, overlays = configs[0].split(","), configs[1:]
    files = [find_config(name) for name in (*experiments, *overlays)]
    # a changed file is another study: nothing of the old one must be taken for it
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    described = json.dumps([content, [str(p) for p in overlays], list(words), folds])
    digest = hashlib.sha256(described.encode()).hexdigest()[:8]
    ledger = run_root / "cv" / f"{'+'.join(Path(name).stem for name in experiments)}-{digest}"
    jobs = []
    for experiment, seed, fold in product(experiments, seeds, range(folds)):
        given = [word for name in (experiment, *overlays) for word in ("--config", name)]
        given += ["--data.num_folds", str(folds), "--data.fold", str(fold), *words]
        given += ["--seed_everything", str(seed), "--run_root", str(run_root)]
        jobs.append(Job(ledger, Path(experiment).stem, fold, seed, tuple(given)))
    return jobs


def run_locally(jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs here, some at a time, each in a process of its own.

    Args:
        jobs: to run, in order.
        at_once: processes; each gets its share of the processors.
    """
    threads = str(max(1, (os.cpu_count() or 1) // max(1, at_once)))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, at_once):
                job = waiting.pop(0)
                running[job] = _start(job, environment)
                say(f"started {job.name}, log: {job.log}")
            time.sleep(_POLL_SECONDS)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                del running[job]
                _tell(job)
    finally:  # Ctrl-C too: the jobs are lost, and run again next time
        _end(list(running.values()))


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: in good order first, by force where that takes too long."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop(*_: object) -> None:
    """End as Ctrl-C does: the jobs are ended too, where a plain end would leave them behind."""
    raise KeyboardInterrupt


def _start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    code = "import sys; from cardiac_mtl.crossval import work; sys.exit(work(sys.argv[1]))"
    facts = {"experiment": job.experiment, "fold": job.fold, "seed": job.seed}
    described = json.dumps({"ledger": str(job.ledger), "words": job.words, **facts})
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", code, described],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
        )


def work(described: str) -> int:
    """Run one job in this process: fit, test, and the state before and after.

    Args:
        described: JSON of the job.

    Returns:
        The exit status.
    """
    from cardiac_mtl import training  # noqa: PLC0415 - the parent needs no torch

    given = json.loads(described)
    job = Job(Path(given.pop("ledger")), words=tuple(given.pop("words")), **given)
    facts: dict[str, Any] = {"node": socket.gethostname(), "pid": os.getpid(), "started_at": now()}
    with job.lock:
        if job.state()["state"] == FINISHED:  # by the process that held the lock till now
            return 0
        job.write(state=RUNNING, **facts)

        def note(run_directory: Path) -> None:
            facts["run"] = str(run_directory)
            job.write(state=RUNNING, **facts)

        try:
            training.run(["fit", *job.words], note)
            training.run(["test", "--run", facts["run"]])
        except UserError as error:
            say(f"cardiac-mtl: {error}")
            job.write(state=FAILED, error=str(error), **facts)
            return 2
        except Exception as error:
            job.write(state=FAILED, error=f"{type(error).__name__}: {error}", **facts)
            raise
        job.write(state=FINISHED, finished_at=now(), **facts)
    return 0


def table(jobs: Sequence[Job]) -> str:
    """Say how every job stands."""
    rows = pd.DataFrame([_row(job, job.state()) for job in jobs])
    counts = ", ".join(f"{n} {state}" for state, n in rows["state"].value_counts().items())
    return f"{rows.to_string(index=False)}\n{counts}; {jobs[0].ledger}"


def _row(job: Job, state: dict[str, Any]) -> dict[str, Any]:
    run_directory = Path(state["run"]) if "run" in state else None
    epoch, left = _progress(run_directory, state) if run_directory else ("", "")
    identity = read_identity(run_directory) if run_directory else {}
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


def _progress(run_directory: Path, state: dict[str, Any]) -> tuple[str, str]:
    """Return epochs done of all, and the time that the others will take at this pace."""
    import yaml  # noqa: PLC0415 - for runs under way only

    config = yaml.safe_load((run_directory / CONFIG).read_text(encoding="utf-8"))
    whole = config["trainer"]["max_epochs"]
    path = run_directory / METRICS
    done = int(pd.read_csv(path)["epoch"].max()) + 1 if path.is_file() else 0
    if not done:
        return f"0/{whole}", ""
    seconds = (pd.Timestamp(now()) - pd.Timestamp(state["started_at"])).total_seconds()
    return f"{done}/{whole}", f"{(whole - done) * seconds / done / 60:.0f} min"


def _tell(job: Job) -> None:
    state = job.state()
    reason = f": {state['error']}" if "error" in state else ""
    say(f"{state['state']} {job.name}{reason}")


def _held(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _seeds(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UserError(f"{text!r}", where="--seeds", fix="give numbers, as 0,1,2") from error
