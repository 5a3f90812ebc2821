"""What every benchmark does the same way: the machine, paired rounds, a results file."""

import json
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cardiac_mtl.runs import provenance

RESULTS = Path(__file__).parent / "results"


def paired(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Let contenders take turns, so that all see the same machine; return what each measured."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
            print(f"round {number + 1} of {rounds}: {name} {measured[name][-1]:.4g}", flush=True)
    return measured


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    """Return the median and the spread of the ratio of two contenders, round by round."""
    values = [a / b for a, b in zip(over, under, strict=True)]
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "largest": round(max(values), 3),
    }


def write(name: str, result: Mapping[str, Any]) -> Path:
    """Write figures beside what they were measured on."""
    facts = provenance()
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": facts["accelerator"],
    }
    path = RESULTS / f"{name}.json"
    kept = {key: facts[key] for key in ("git_commit", "versions", "python")}
    path.write_text(json.dumps({**result, "machine": machine, **kept}, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    print(path)
    return path
