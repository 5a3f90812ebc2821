"""Start-up: seconds of `--help`, and from the command to its first training step.

    python -m benchmarks start_up [--patients 10] [--rounds 5]

Each time a new process, as a user starts it. The first step: `fit` of `mtn_uncertainty` with
`debug` on phantom hearts whose prepared store is there already, from before Python starts until
the first training step is done.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import options_of, paired, positive, spread, write
from cardiac_mtl.phantom_files import write_cohort

_COMMAND = "import sys; from cardiac_mtl.cli import main; sys.exit(main(sys.argv[1:]))"
_SAYS_WHEN = """
import sys, time
from pathlib import Path
from cardiac_mtl.cli import _module, main

training = _module("fit")
ours = training.CardiacCLI._callbacks

class SaysWhen(training.Callback):
    def on_train_batch_end(self, trainer, paper, outputs, batch, batch_idx):
        if batch_idx == 0:
            Path(sys.argv[1]).write_text(repr(time.monotonic()))

training.CardiacCLI._callbacks = lambda cli: [*ours(cli), SaysWhen()]
sys.exit(main(sys.argv[2:]))
"""


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__)
    parser.add_argument("--patients", type=positive, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cohort("lvsc", root / "lvsc", options.patients, seed=0, phases=2)
        first_step(root)  # prepares the store
        measured = paired(
            options.rounds,
            {
                "help": lambda: process("--help"),
                "fit_help": lambda: process("fit", "--help"),
                "first_step": lambda: first_step(root),
            },
        )
    write("start_up", {f"{name}_s": spread(times) for name, times in measured.items()}, options)


def process(*words: str) -> float:
    """Return the seconds of a command, from before Python starts to its end."""
    started = time.monotonic()
    run(_COMMAND, *words)
    return time.monotonic() - started


def first_step(root: Path) -> float:
    """Return the seconds until the first step of a new run is done."""
    words = ["fit", "--config", "mtn_uncertainty", "--config", "debug"]
    words += [f"--data.root={root / 'lvsc'}", f"--data.cache_dir={root / 'cache'}"]
    with tempfile.TemporaryDirectory(dir=root) as runs:
        done = Path(runs) / "done"
        started = time.monotonic()  # one clock for all processes
        run(_SAYS_WHEN, str(done), *words, f"--run_root={runs}")
        return float(done.read_text(encoding="ascii")) - started


def run(code: str, *words: str) -> None:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise SystemExit(f"cardiac-mtl ended with {done.returncode}")
