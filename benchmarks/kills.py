"""Killing a training at random moments, and going on: does it end as if nothing had happened?

    python -m benchmarks kills [--kills 20] [--epochs 6]

MTN on phantom hearts, prepared before: once straight, then once for each kill: SIGKILL after a
random part of the straight run's time, the same command again until it ends. Counted: runs that
ended in the same weights, optimiser state and metrics.csv, bit for bit; files that were left
half-written; epochs that each kill cost. A run that ends before its kill is not counted.
"""

import itertools
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import OURS, options_of, positive, write
from cardiac_mtl.phantom_files import write_cohort
from cardiac_mtl.runs import BEST, IDENTITY, LAST, METRICS


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("--kills", type=positive, default=20)
    parser.add_argument("--epochs", type=positive, default=6)
    options = parser.parse_args()
    chance = random.Random(0)  # noqa: S311 - not for secrets
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cohort("manifest", root / "hearts", patients=6, phases=2, seed=0)
        for place in ("first", "straight"):  # the first prepares the store, which takes it longer
            started = time.monotonic()
            if status := fit(root, place, options.epochs).wait():
                raise SystemExit(f"the straight run ended with {status}")
            duration = time.monotonic() - started
        straight = outcome(root / "straight")
        same, halves, resumed, moments = 0, 0, [], []
        numbers = itertools.count()
        while len(moments) < options.kills:
            moment = round(chance.uniform(0.2, 0.95) * duration, 2)
            place = f"killed{next(numbers)}"
            if not killed(fit(root, place, options.epochs), moment):
                print(f"it ended within {moment} s, before it was killed: another one")
                continue
            moments.append(moment)
            unread = unreadable(root / place)
            again = fit(root, place, options.epochs)
            again.wait()
            halves += unread
            same += again.returncode == 0 and equal(outcome(root / place), straight)
            resumed.append(after(root / place))
            print(f"kill {len(moments)} at {moment} s: went on after epoch {resumed[-1]}")
    write(
        "kills",
        {
            "kills": options.kills,
            "epochs": options.epochs,
            "straight_run_s": round(duration, 1),
            "killed_at_s": moments,
            "went_on_after_epoch": resumed,
            "ended_bit_identical": same,
            "unreadable_checkpoints_after_a_kill": halves,
        },
        options,
    )


def fit(root: Path, place: str, epochs: int) -> subprocess.Popen[bytes]:
    """Start the training."""
    words = [
        "fit", "--config", "mtn_uncertainty", "--config", "manifest", "--config", "debug",
        "--data.root", str(root / "hearts"), "--data.cache_dir", str(root / "cache"),
        "--data.num_folds", "3", "--data.copies", "5", "--data.augmentation.noise", "0.1",
        "--trainer.limit_train_batches", "1.0", "--trainer.accelerator", "cpu",
        "--trainer.max_epochs", str(epochs), "--run_root", str(root / place),
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*OURS, *words], stdout=quiet, stderr=quiet)  # noqa: S603


def killed(process: subprocess.Popen[bytes], moment: float) -> bool:
    """Kill a process after some seconds; say whether it was still there to be killed."""
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


def outcome(run_root: Path) -> tuple[object, object, str]:
    """Return weights, optimiser state and curves of the one run below a folder."""
    (identity,) = run_root.rglob(IDENTITY)
    run = identity.parent
    last = torch.load(run / LAST, weights_only=True)  # noqa: TID251 - to compare
    return last["state_dict"], last["optimizer_states"][0]["state"], (run / METRICS).read_text()


def equal(one: object, other: object) -> bool:
    """Say whether two outcomes are the same, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def unreadable(run_root: Path) -> int:
    """Count the checkpoints under their own name that cannot be read."""
    count = 0
    for path in (*run_root.rglob(Path(LAST).name), *run_root.rglob(Path(BEST).name)):
        try:
            torch.load(path, weights_only=True)  # noqa: TID251 - to count
        except Exception as error:  # noqa: BLE001 - whatever it is, it counts
            print(f"{path}: {error}")
            count += 1
    return count


def after(run_root: Path) -> int:
    """Return the epoch, from 1, after which the second start went on; 0 when it began anew."""
    (identity,) = run_root.rglob(IDENTITY)
    resumed = json.loads(identity.read_text()).get("resumed", [])
    return resumed[-1]["after_epoch"] + 1 if resumed else 0
