"""What every benchmark does the same way: options, the machine, paired rounds, a results file."""

import argparse
import json
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cardiac_mtl.runs import provenance

OURS = [
    sys.executable,
    "-c",
    "import sys; from cardiac_mtl.cli import main; sys.exit(main(sys.argv[1:]))",
]
"""The command `cardiac-mtl`, whatever is installed."""
RESULTS = Path(__file__).parent / "results"
LEAST_ROUNDS = 5
"""Repeats of what is kept: fewer have no spread worth the name."""
_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Instructions that decide how fast a processor convolves, the fastest first."""
_NO_NAME = re.compile(r"\((?:r|tm)\)|@.*|\b(?:cpu|processor|[0-9]+-core)\b", re.IGNORECASE)
"""What the name of a processor holds that tells none apart."""


def options_of(description: str | None, *, rounds: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share.

    Args:
        description: docstring of the benchmark.
        rounds: whether it measures time, and so repeats.
    """
    start()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds:
        parser.add_argument("--rounds", type=positive, default=LEAST_ROUNDS, help="repeats [5]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results file")
    return parser


@cache
def start() -> dict[str, Any]:
    """Return commit, versions and time of the first call.

    A checkout may move on while it is measured: what was committed meanwhile was not measured.
    """
    facts = provenance()
    return facts | {"git_commit": commit_of_code(facts["git_commit"])}


def positive(word: str) -> int:
    """Return the number that an option is given, 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is none; argparse makes a line of that.
    """
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}; give a whole number, 1 or more")
    return int(word)


def paired(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Let contenders take turns, so that all see the same machine; return what each measured."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
            print(f"round {number + 1} of {rounds}: {name} {measured[name][-1]:.4g}", flush=True)
    return measured


def timed(words: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ) -> float:
    """Return the seconds of a command in a process of its own, from before it starts to its end.

    Raises:
        SystemExit: it failed, with the end of what it said; or there is no such command.
    """
    with log.open("w", encoding="utf-8") as said:
        started = time.monotonic()
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter, and the one that was named
                words, stdout=said, stderr=subprocess.STDOUT, env=dict(environment), check=False
            )
        except OSError as error:
            raise SystemExit(f"{words[0]}: {error.strerror}") from error
        seconds = time.monotonic() - started
    if done.returncode:
        end = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{end}\n{words[0]} ended with {done.returncode}")
    return seconds


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median, the least and the largest, to some significant digits."""
    found = {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
    }
    return {name: float(f"{value:.{digits}g}") for name, value in found.items()}


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    """Return the median and the spread of the ratio of two contenders, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)], digits=4)


def largest_resident() -> int:
    """Return the most bytes of memory that this process has held.

    Not by `getrusage` where Linux has better: it says no less than what the process held that
    started this one.
    """
    status = Path("/proc/self/status")
    text = status.read_text(encoding="utf-8") if status.is_file() else ""
    if found := re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE):
        return 1024 * int(found[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def machine() -> dict[str, Any]:
    """Describe what figures are measured on: processor, memory, accelerator."""
    name, flags = _processor()
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(gigabytes, 1),
        "instructions": [flag for flag in _FLAGS if flag in flags],
        "accelerator": "",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["accelerator"] = properties.name
        found["accelerator_memory_gib"] = round(properties.total_memory / 2**30, 1)
    return found


def _processor() -> tuple[str, set[str]]:
    """Return the name of the processor and its instructions, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    lines = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, set(facts.get("flags", facts.get("Features", "")).split())


def slug(described: Mapping[str, Any]) -> str:
    """Return the short name of a machine: that of its accelerator, or processor and cores.

    Examples:
        >>> slug({"accelerator": "NVIDIA H200"})
        'nvidia-h200'
        >>> facts = {"cores": 2, "instructions": ["amx_bf16", "avx2"], "accelerator": ""}
        >>> slug({"processor": "Intel(R) Xeon(R) CPU @ 2.60GHz", **facts})
        'intel-xeon-amx-bf16-2cores'
    """
    if described["accelerator"]:
        return _words(described["accelerator"])
    fastest = described["instructions"][:1]
    cores = f"{described['cores']}cores"
    return _words(" ".join([_NO_NAME.sub("", described["processor"]), *fastest, cores]))


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write(
    name: str, result: Mapping[str, Any], options: argparse.Namespace, variant: str = ""
) -> Path:
    """Write figures beside what they were measured on, as `<name>[-<variant>]-<machine>.json`.

    Args:
        name: of the benchmark.
        result: figures.
        options: of the command, with `results`, and `rounds` where it has some.
        variant: of one benchmark, such as the experiment.
    """
    facts, described = start(), machine()
    kept = {
        "benchmark": name,
        "command": command_of(name, sys.argv[1:]),
        "measured_at": facts["started_at"],
        **({"rounds": options.rounds} if "rounds" in options else {}),
        **result,
        "machine": described,
        **{key: facts[key] for key in ("git_commit", "versions", "python")},
    }
    options.results.mkdir(parents=True, exist_ok=True)
    places = [Path(word).stem for word in variant.split("+")]  # an overlay may be a file anywhere
    words = [name, "+".join(places), slug(described)]
    path = options.results / f"{'-'.join(word for word in words if word)}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(path)
    return path


def commit_of_code(commit: str) -> str:
    """Return a commit, marked `+` only where more was changed than figures.

    The suite itself writes those: after its first results file no checkout is as it was committed.

    Args:
        commit: of the checkout, with `+` where anything was changed.
    """
    if not commit.endswith("+"):
        return commit
    git = ["git", "-C", str(RESULTS.parents[1]), "diff", "--quiet", "HEAD", "--", "."]
    figures = [":(exclude)benchmarks/results", ":(exclude)docs/performance.md"]
    changed = subprocess.run([*git, *figures], check=False).returncode  # noqa: S603
    return commit if changed else commit.rstrip("+")


def command_of(name: str, words: Sequence[str]) -> str:
    """Return the command that was given, without places of this machine.

    Examples:
        >>> command_of("preparation", ["/my data/LVSC/", "--rounds", "5", "--results", "/tmp/x y"])
        'python -m benchmarks preparation LVSC --rounds 5'
        >>> command_of("real_hearts", ["runs/all/mtn", "--data=../hearts"])
        'python -m benchmarks real_hearts mtn --data=hearts'
        >>> command_of("training", ["--experiment", "mtn_unet+presets/debug+/tmp/mine.yaml"])
        'python -m benchmarks training --experiment mtn_unet+debug+mine.yaml'
    """
    given, left = [], iter(words)
    for word in left:
        if word == "--results":
            next(left, None)
        elif not word.startswith("--results="):
            # what comes before the last part of each path: an option may name several, joined by +
            given.append(re.sub(r"[^=+]*/(?=[^=+/])", "", word).rstrip("/"))
    return shlex.join(["python", "-m", "benchmarks", name, *given])
