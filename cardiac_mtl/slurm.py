"""What we ask of SLURM, through its own commands."""

import os
import subprocess

_ENDED = {"CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "DEADLINE"}


def requeue() -> bool:
    """Have SLURM start this job again, unless a person cancelled it.

    Returns:
        Whether it will; False outside SLURM.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or state(job) in _ENDED:
        return False
    return subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0  # noqa: S603, S607


def state(job: str) -> str:
    """Return how a job stands, in SLURM's word; empty when SLURM does not know it."""
    shown = _ask("scontrol", "show", "job", "--oneliner", job)
    fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
    return fields.get("JobState", "")


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
