"""`cv`: every fold and seed of one or several experiments, here or on a cluster, then one report.

Started again it runs what is missing: what is finished is not run again, what is under way is
waited for, what failed or was lost goes on where it was.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path

from filelock import FileLock, Timeout

from cardiac_mtl.catalogue import find_config
from cardiac_mtl.console import say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from cardiac_mtl.studies import slurm
from cardiac_mtl.studies.job import FINISHED, QUEUED, UNDER_WAY, Job, read_study, save_study, table
from data_modules.splits import read_splits

_PLACES = ("--data.root", "--data.splits")
_POLL_SECONDS = 0.2
_POLL_QUEUE_SECONDS = 2
_PATIENCE_SECONDS = 20
_OURS = ("--data.fold", "--data.num_folds", "--seed_everything", "--experiment", "--run_root")
_ENOUGH = 2
"""Runs of an experiment that fail with the same words: the next would too."""
_LONGEST_NAME = 100
"""Of a study: file systems take 255 bytes, W&B 128."""


def run(arguments: Sequence[str]) -> int:
    """Run a study, or say how it stands; status 1 when a job failed."""
    options, words = _parser().parse_known_args(arguments[1:])
    words += _on_cluster(options)
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
        save_study(jobs)
        if options.launcher == "slurm":
            run_on_slurm(jobs, options)
        else:
            run_locally([job for job in jobs if job.state()["state"] != FINISHED], options.jobs)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
        study.release()
    say(table(jobs))
    runs = _finished(read_study(ledger).values())  # those of other seeds too, of earlier calls
    if runs:
        from cardiac_mtl.commands.report import run as report  # noqa: PLC0415 - draws, so imports much

        report(["report", *runs, "--output", str(ledger / "report")])
    return 0 if len(_finished(jobs)) == len(jobs) and _every_fold(runs, options.folds) else 1


def _finished(jobs: Iterable[Job]) -> list[str]:
    """Return the run directories of those that are done."""
    states = [job.state() for job in jobs]
    return [state["run"] for state in states if state["state"] == FINISHED]


def _every_fold(runs: Sequence[str], folds: int) -> bool:
    """Say so where the data have more folds than were run: a fold a centre, or a file of folds."""
    there = len(read_splits(Path(runs[0]) / "splits.json", without_val=True))
    if there > folds:
        say(f"only {folds} of the {there} folds of the data were run: give --folds {there}")
    return there <= folds


def _parser() -> OptionParser:
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
    parser.add_argument(
        "--launcher", choices=("local", "slurm"), default="local", help="where runs run [local]"
    )
    cluster = parser.add_argument_group("of each run on SLURM")
    cluster.add_argument("--partition", help="to submit to")
    cluster.add_argument("--account", help="to charge")
    cluster.add_argument("--time", help="limit, as 04:00:00; a run that needs more is requeued")
    cluster.add_argument("--gpus", type=int, default=0, help="on each node [0]")
    cluster.add_argument("--nodes", type=int, default=1, help="[1]")
    cluster.add_argument("--cpus", type=int, help="for each GPU, or each node without")
    cluster.add_argument("--mem", help="on each node, as 16G")
    cluster.add_argument("--sbatch", default="", help="further options, as --sbatch='--qos=low'")
    return parser


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
        if _option(word.partition("=")[0]) in _OURS:
            raise UserError(
                f"{word} is given to each run by `cv`",
                where="cv",
                fix="see `cardiac-mtl cv --help`",
            )
    if folds < 1:
        raise UserError(f"{folds} folds", where="--folds", fix="give at least 1")
    experiments, overlays = configs[0].split(","), configs[1:]
    names = [Path(name).stem for name in experiments]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(  # jobs, states and logs go by these names
            f"two experiments are called {doubled[0]!r}",
            where="--config",
            fix="give each its own file name",
        )
    run_root = run_root.resolve()  # a study may be called from any folder
    words = [_in_full(word, before) for before, word in zip(("", *words), words, strict=False)]
    files = [find_config(name) for name in (*experiments, *overlays)]
    # a changed file is another study: nothing of the old one must be taken for it
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    described = json.dumps([content, [str(p) for p in overlays], list(words), folds])
    digest = hashlib.sha256(described.encode()).hexdigest()[:8]
    name = "+".join(names)
    if len(name) > _LONGEST_NAME:
        name = f"{names[0]}+{len(names) - 1}-others"
    ledger = run_root / "cv" / f"{name}-{digest}"
    jobs = []
    for experiment, seed, fold in product(experiments, seeds, range(folds)):
        given = [word for name in (experiment, *overlays) for word in ("--config", name)]
        given += ["--data.num_folds", str(folds), "--data.fold", str(fold), *words]
        given += ["--seed_everything", str(seed), "--run_root", str(run_root)]
        jobs.append(Job(ledger, Path(experiment).stem, fold, seed, tuple(given)))
    return jobs


def _in_full(word: str, before: str) -> str:
    """Write a place in full: from another folder the same words would mean other data."""
    name, sign, value = word.partition("=")
    if sign and _option(name) in _PLACES and not Path(value).is_absolute():
        return f"{name}={Path(value).absolute()}"
    return str(Path(word).absolute()) if _option(before) in _PLACES else word


def _option(name: str) -> str:
    """Return the shorter of the two spellings that an option of the data may have."""
    return name.replace("--data.init_args.", "--data.")


def run_locally(jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs here, some at a time, each in a process of its own.

    Args:
        jobs: to run, in order.
        at_once: processes; each gets its share of the processors.
    """
    from data_modules.parallel import processors  # noqa: PLC0415 - SimpleITK takes a second

    threads = str(max(1, processors() // max(1, at_once)))
    # within an allocation of SLURM, a run that is started here is none of its jobs
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = {"OMP_NUM_THREADS": threads, **ours}
    if jobs:  # one group of W&B for the whole study
        environment = {"WANDB_RUN_GROUP": jobs[0].ledger.name, **environment}
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    refused: list[tuple[str, str | None]] = []
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
                refused.append((job.experiment, job.state().get("error")))
                if refused[-1][1] and refused.count(refused[-1]) == _ENOUGH:
                    waiting = _without(waiting, job.experiment)
    finally:  # Ctrl-C too: the jobs are lost, and run again next time
        _end(list(running.values()))


def _without(waiting: Sequence[Job], experiment: str) -> list[Job]:
    """Leave out the further runs of an experiment, which would fail as those before them did."""
    kept = [job for job in waiting if job.experiment != experiment]
    if left_out := len(waiting) - len(kept):
        say(f"{left_out} further runs of {experiment} are not started: {_ENOUGH} failed alike")
    return kept


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
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [*slurm.PROGRAM, str(job.ledger), job.name],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
        )


def run_on_slurm(jobs: Sequence[Job], options: Namespace) -> None:
    """Submit what is neither finished nor under way as one array job, and wait for all.

    Args:
        jobs: all of the study.
        options: of the command line.
    """
    queue = cache(slurm.queue)
    states = [job.state(queue)["state"] for job in jobs]
    todo = [k for k, state in enumerate(states) if state not in {FINISHED, *UNDER_WAY}]
    if todo:
        _submit(jobs, todo, options)
    say("waiting for SLURM; after Ctrl-C the jobs go on, and the same command waits again")
    waiting = [job for job, state in zip(jobs, states, strict=True) if state != FINISHED]
    while waiting:
        time.sleep(_POLL_QUEUE_SECONDS)
        queue = cache(slurm.queue)
        for job in [job for job in waiting if job.state(queue)["state"] not in UNDER_WAY]:
            waiting.remove(job)
            _tell(job)


def _submit(jobs: Sequence[Job], todo: Sequence[int], options: Namespace) -> None:
    ledger = jobs[0].ledger
    file = ledger / "job.sbatch"
    names = [job.name for job in jobs]
    file.write_text(
        slurm.script(ledger, names, todo, options.jobs, _of_cluster(options)), encoding="utf-8"
    )
    number = slurm.submit(file)
    try:
        for k in todo:  # held till now, so that no job has written its own state yet
            before = jobs[k].state()
            kept = {key: before[key] for key in ("run",) if key in before}
            jobs[k].write(state=QUEUED, slurm=f"{number}_{k}", **kept)
        slurm.release(number)
    except BaseException:  # held, they would wait for ever
        slurm.cancel(number)
        raise
    say(f"submitted {len(todo)} runs as job {number}, script: {file}")


def _on_cluster(options: Namespace) -> list[str]:
    """Return the words of `fit` that follow from the size of a run on a cluster."""
    words = []
    if options.gpus > 1:
        words += ["--trainer.devices", str(options.gpus)]
    if options.nodes > 1:
        words += ["--trainer.num_nodes", str(options.nodes)]
    return words


def _of_cluster(options: Namespace) -> list[str]:
    """Return the options of sbatch that stand for ours: one task a GPU, as Lightning wants it."""
    found = [f"--{n}={getattr(options, n)}" for n in ("partition", "account", "time", "mem")]
    found = [option for option in found if not option.endswith("=None")]
    found += [f"--nodes={options.nodes}", f"--ntasks-per-node={max(1, options.gpus)}"]
    if options.gpus:
        found.append(f"--gres=gpu:{options.gpus}")
    if options.cpus:
        found.append(f"--cpus-per-task={options.cpus}")
    return [*found, options.sbatch] if options.sbatch else found


def _tell(job: Job) -> None:
    state = job.state()
    reason = f": {state['error']}" if "error" in state else ""
    say(f"{state['state']} {job.name}{reason}")


def _seeds(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UserError(f"{text!r}", where="--seeds", fix="give numbers, as 0,1,2") from error
