"""What we ask of SLURM, through its own commands.

Plain sbatch and not submitit: submitit hands functions over as pickles, which we read from no
disk, and hides the script that a cluster's administrators will want to see.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cardiac_mtl.errors import UserError

Queue = Callable[[], Mapping[str, str] | None]
"""See `queue`."""

_SCRIPT = """\
#!/usr/bin/env bash
# Written by `cardiac-mtl cv`; each task of the array is one run, and goes on where it was when it
# is requeued: after preemption, the loss of its node, or {notice} s before its time is up.
{options}
set -eu
jobs=(
{jobs}
)
job=${{jobs[$SLURM_ARRAY_TASK_ID]}}
cd {folder}
export WANDB_RUN_GROUP=${{WANDB_RUN_GROUP:-{study}}}
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=1 --output={log}/"$job".log --open-mode=append \\
  {program} {ledger} "$job"
"""

PROGRAM = (sys.executable, str(Path(__file__).with_name("job.py")))
"""Does a job, given its ledger and its name. A file: `python -m` would import what lies in the
working folder, which the command itself does not, and Python 3.10 cannot be told otherwise."""
NOTICE_SECONDS = 60
"""Before the end of a job's time: enough to write down that it stopped, and to requeue it."""


def script(
    ledger: Path, jobs: Sequence[str], tasks: Sequence[int], at_once: int, options: Sequence[str]
) -> str:
    """Write the batch script of an array job.

    Args:
        ledger: of the study.
        jobs: names of all its jobs.
        tasks: the jobs to run, by their place among all.
        at_once: tasks at a time.
        options: further options of sbatch, such as `--partition=gpu`.
    """
    own = [
        f"--job-name={shlex.quote(ledger.name)}",
        f"--array={','.join(map(str, tasks))}%{at_once}",
        f"--output={shlex.quote(_literal(ledger.resolve()) + '/slurm-%A_%a.log')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR1@{NOTICE_SECONDS}",
    ]
    return _SCRIPT.format(
        notice=NOTICE_SECONDS,
        options="\n".join(f"#SBATCH {option}" for option in (*own, *options)),
        jobs="\n".join(f"  {shlex.quote(job)}" for job in jobs),
        folder=shlex.quote(str(Path.cwd())),
        ledger=shlex.quote(str(ledger.resolve())),
        log=shlex.quote(_literal(ledger.resolve())),
        study=shlex.quote(ledger.name),
        program=shlex.join(PROGRAM),
    )


def _literal(path: Path) -> str:
    """Return a path for options in which SLURM reads `%` as the beginning of a pattern."""
    return str(path).replace("%", "%%")


def submit(file: Path) -> str:
    """Hand a batch script over, held; return the number of the job.

    Raises:
        UserError: there is no SLURM here, or it refuses the script.
    """
    try:
        done = subprocess.run(  # noqa: S603
            ["sbatch", "--parsable", "--hold", str(file)],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise UserError(
            "no sbatch here", where="--launcher slurm", fix="use a login node, or --launcher local"
        ) from error
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"sbatch refuses it: {' '.join(error.stderr.split())}",
            where=str(file),
            fix="change --partition, --time, --gpus or --account",
        ) from error
    return done.stdout.strip().partition(";")[0]


def release(job: str, pauses: Sequence[float] = (1.0, 5.0)) -> None:
    """Let a job that was submitted held begin.

    Args:
        job: its number.
        pauses: in seconds, before each further try: a controller that is busy or is being replaced
            answers a moment later.

    Raises:
        UserError: SLURM still refuses, in its own words.
    """
    for pause in (*pauses, None):
        try:
            _order("scontrol", "release", job)
        except _RefusalError as refusal:
            if pause is None:
                raise UserError(
                    f"SLURM does not let it begin: {refusal}",
                    where=f"job {job}",
                    fix="ask for what the cluster has, or try again",
                ) from refusal
            time.sleep(pause)
        else:
            return


def cancel(job: str) -> None:
    """Take a job out of the queue."""
    _ask("scancel", job)


def queue() -> Mapping[str, str] | None:
    """Return the state of each job of ours in the queue, by its id, `<job>_<task>` in an array.

    Returns:
        None when SLURM does not answer.
    """
    shown = _ask("squeue", "--me", "--noheader", "--array", "--format=%i %T")
    if shown is None:
        return None
    return dict(line.split(maxsplit=1) for line in shown.splitlines() if " " in line)


def own_job() -> str | None:
    """Return the id of the job that this process is part of, as `queue` has it; None outside."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue(number: int) -> None:
    """Have SLURM start this job again, unless a person stopped it; it ends this process.

    Args:
        number: of the signal that stopped it.
    """
    job = own_job()
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    if job and first and number != signal.SIGINT and _state(job) == "RUNNING":
        subprocess.run(["scontrol", "requeue", job], check=False)  # noqa: S603, S607


def _state(job: str) -> str:
    """Return how a job stands, in SLURM's word; empty when SLURM does not know it."""
    shown = _ask("scontrol", "show", "job", "--oneliner", job) or ""
    fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
    return fields.get("JobState", "")


def _ask(*command: str) -> str | None:
    """Return what a command of SLURM prints; None when it fails."""
    try:
        return _order(*command)
    except _RefusalError:
        return None


class _RefusalError(Exception):
    """What SLURM says when it does not do as it is told."""


def _order(*command: str) -> str:
    """Return what a command of SLURM prints.

    Raises:
        _RefusalError: it fails, or takes more than a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise _RefusalError(" ".join(error.stderr.split()) or str(error)) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise _RefusalError(str(error)) from error
    return done.stdout
