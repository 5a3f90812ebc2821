"""docs/performance.md from the results files: what was measured, where, against what.

    python -m benchmarks page

Nothing on the page is typed by hand but what `catalogue.py` says of a benchmark.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import (
    BENCHMARKS,
    TARGETS,
    Benchmark,
    Row,
    figure,
    of_three,
    summary_of,
)

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/performance.md", ROOT / "benchmarks/results"
_HEAD = """# Performance

Made by `python -m benchmarks page` from the files in `benchmarks/results/`; do not edit it. Figures
with two others in brackets are medians, least and largest of repeats, which take turns with what
they are compared with. Seconds are those of the machine that is named; ratios vary less. A commit
with a `+` was measured with changes that are not in it.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(results(RESULTS)), encoding="utf-8")
    print(PAGE)


def results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the content of the results files by benchmark, each with the name of its `file`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        name = content.get("benchmark") or _by_file(path.stem)
        found.setdefault(name, []).append(_as_today(content) | {"file": path.name})
    return found


def _as_today(content: dict[str, Any]) -> dict[str, Any]:
    """Give the ratio of the oldest file its key of today."""
    before = {"median": "ratio_median", "least": "ratio_min", "largest": "ratio_max"}
    if not set(before.values()) <= set(content):
        return content
    return content | {"command_over_bare": {name: content[key] for name, key in before.items()}}


def _by_file(stem: str) -> str:
    """Return the benchmark that wrote a file of the time when files did not say it."""
    written = stem.replace("-", "_")
    names = [name for name in BENCHMARKS if written.startswith(name)]
    return max(names, key=len, default=written)


def page(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the page.

    Args:
        found: contents of results files, by benchmark.
    """
    sections = [
        section(name, benchmark, found.get(name, []))
        for name, benchmark in BENCHMARKS.items()
        if benchmark.shown is not None
    ]
    return "\n".join([_HEAD, *targets(found), "", *sections])


def targets(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the table of what we aim at and where we are, a figure for each results file."""
    rows: list[Row] = [("what", "against", "target", "measured, median (least to largest)")]
    for target in TARGETS:
        measured = [
            f"{of_three(value)}, `{result['file']}`"
            for result in found.get(target.benchmark, [])
            if (value := figure(result, target.path)) is not None
        ]
        rows.append(
            (target.what, target.against, target.aim, "; ".join(measured) or "not measured")
        )
    return ["## Targets", "", *table(rows)]


def section(name: str, benchmark: Benchmark, found: Sequence[Mapping[str, Any]]) -> str:
    """Return what the page says of one benchmark."""
    said = [summary_of(name)]
    if benchmark.against:
        said.append(f"Compared with: {benchmark.against}.")
    if benchmark.target:
        said.append(f"Target: {benchmark.target}.")
    parts = [f"## {name}\n", " ".join(said), ""]
    if not found:
        parts.append(f"Not measured: `python -m benchmarks {name}`.\n")
    assert benchmark.shown is not None
    for result in found:
        parts += [where(name, result), "", *table(benchmark.shown(result)), ""]
        if "limited_by" in result:
            parts += [f"What limits now: {result['limited_by']}.", ""]
    if found and benchmark.missed:
        parts += [benchmark.missed, ""]
    return "\n".join(parts)


def where(name: str, result: Mapping[str, Any]) -> str:
    """Return the line about command, machine, repeats, commit and file of a result."""
    facts = [
        f"`{result.get('command') if 'benchmark' in result else f'python -m benchmarks {name}'}`",
        machine(result.get("machine")),
    ]
    if "rounds" in result:
        facts.append(f"{result['rounds']} repeats")
    changed = "+" if result["git_commit"].endswith("+") else ""
    facts.append(f"commit {result['git_commit'][:10]}{changed}")
    facts.append(f"`benchmarks/results/{result['file']}`")
    return "; ".join(facts) + ":"


def machine(described: Any) -> str:  # noqa: ANN401 - JSON
    """Return the machine in words."""
    if not isinstance(described, Mapping) or "cores" not in described:
        return "a machine that was not described"
    words = [
        described["processor"],
        f"{described['cores']} cores",
        f"{described['threads']} threads",
        f"{described['memory_gib']} GiB",
        *described["instructions"],
    ]
    if described["accelerator"]:
        words.insert(0, described["accelerator"])
    return ", ".join(words)


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table; short rows are filled up."""
    width = len(rows[0])
    lines = ["| " + " | ".join((*row, *[""] * (width - len(row)))) + " |" for row in rows]
    return [lines[0], "|" + "---|" * width, *lines[1:]]
