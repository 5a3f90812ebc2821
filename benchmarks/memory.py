"""Memory: the peak of a training step of each paper, and whether it grows over 200 steps.

    python -m benchmarks memory [--settings mtn_uncertainty ...]

Each in a process of its own, on a batch of noise. Peak: the largest resident memory of the process
after two steps at the setting's own size, optimisers and imports included; on a GPU the most that
was allocated there. Growth: resident memory after 50 and 200 steps of a narrow network on small
images, once C has given back what it need not keep.
"""

import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from benchmarks.common import largest_resident, options_of, write
from benchmarks.steps import (
    SETTINGS,
    EachStep,
    as_published,
    narrow,
    paper_and_batch,
    refuse_unknown,
    train,
)
from cardiac_mtl.console import quiet_libraries
from cardiac_mtl.contracts import Batch
from cardiac_mtl.memory import keep_freed_memory
from cardiac_mtl.training.precision import suited_precision

EARLY, LATE = 50, 200
"""Steps between which nothing may be kept."""
_MIB = 2**20
_IN_PROCESS = "import sys; from benchmarks.memory import {0}; {0}(sys.argv[1])"


def main() -> None:
    """Measure and write."""
    parser = options_of(__doc__, rounds=False)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    options = parser.parse_args()
    refuse_unknown(options.settings)
    rows = []
    for setting in options.settings:
        row = {"setting": setting, **in_process("peak", setting), **in_process("growth", setting)}
        print(json.dumps(row), flush=True)
        rows.append(row)
    write("memory", {"rows": rows}, options)


def in_process(function: str, setting: str) -> dict[str, Any]:
    """Return what a function of this module printed in a fresh process."""
    words = [sys.executable, "-c", _IN_PROCESS.format(function), setting]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own interpreter
    return json.loads(done.stdout.splitlines()[-1])


def peak(setting: str) -> None:
    """Print the peak of two steps."""
    _begin()
    batch = _trained(as_published(setting), 2, [])
    found: dict[str, Any] = {"batch": list(batch), "peak_mib": round(largest_resident() / _MIB)}
    if torch.cuda.is_available():
        found["cuda_peak_mib"] = round(torch.cuda.max_memory_allocated() / _MIB)
    print(json.dumps(found))


def growth(setting: str) -> None:
    """Print resident memory after some and after many steps of a narrow network."""
    _begin()
    watching = Resident((EARLY, LATE))
    _trained(narrow(setting), LATE + 1, [watching])
    print(json.dumps({f"at_{step}_mib": value for step, value in watching.mib.items()}))


class Resident(EachStep):
    """Reads the resident memory after some steps.

    Args:
        steps: from 1.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps
        self.mib: dict[int, float] = {}

    @override
    def after(self, batch: Batch, number: int) -> None:
        if number + 1 in self.steps:
            self.mib[number + 1] = resident()


def resident() -> float:
    """Return the MiB that the process holds, once what is free was given back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / _MIB, 1)


def _begin() -> None:
    quiet_libraries()
    keep_freed_memory()


def _trained(config: Mapping[str, Any], steps: int, callbacks: list[EachStep]) -> torch.Size:
    """Train, and return the shape of the images."""
    configured = config.get("trainer", {}).get("precision", "32-true")
    paper, batch = paper_and_batch(config)
    precision = suited_precision(configured, "auto")
    train(paper, batch, steps, callbacks, accelerator="auto", devices=1, precision=precision)
    return batch["image"].shape
