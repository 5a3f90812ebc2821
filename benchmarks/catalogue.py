"""Which benchmarks there are, and what the page shows of the file that each of them writes.

Imports nothing heavy: listing and page run without torch.
"""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Row = tuple[str, ...]
Shown = Callable[[Mapping[str, Any]], list[Row]]
"""From the content of a results file to the rows of a table, its header first."""


class Benchmark(NamedTuple):
    """One of the suite."""

    suite: bool = False
    """Whether it needs no data, and `make bench` runs it."""
    against: str = ""
    """What its figures are compared with: another implementation, or a limit of the machine."""
    target: str = ""
    """What we aim at."""
    shown: Shown | None = None
    """None for those that measure no speed and no memory."""
    missed: str = ""
    """Why a target is missed, and what was tried."""


def of_three(found: Any, unit: str = "") -> str:  # noqa: ANN401 - JSON
    """Return a median with its spread; a single number as it is."""
    if not isinstance(found, Mapping):
        return f"{_short(found)}{unit}"
    least, largest = _short(found["least"]), _short(found["largest"])
    return f"{_short(found['median'])}{unit} ({least} to {largest})"


def _short(value: Any) -> str:  # noqa: ANN401 - JSON
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(*names: tuple[str, str, str]) -> Shown:
    """Return what shows some entries: what it is called, its keys joined by points, its unit."""

    def shown(result: Mapping[str, Any]) -> list[Row]:
        rows = []
        for title, path, unit in names:
            if (found := figure(result, path)) is not None:
                rows.append((title, of_three(found, unit)))
        return [("what", "median (least to largest)"), *rows]

    return shown


def _roofline(result: Mapping[str, Any]) -> list[Row]:
    ceilings = result["ceilings"]
    head = (
        "setting", "what", "precision", "GFLOP", "MiB", "operations", "ms", "floor, ms", "reached",
        "bound by",
    )  # fmt: skip
    rows = [
        (
            row["setting"],
            row["what"],
            row["precision"],
            _short(row["flops"] / 1e9),
            _short(row["bytes"] / 2**20),
            str(row["operations"]),
            of_three({name: 1e3 * value for name, value in row["seconds"].items()}),
            _short(1e3 * max(row["compute_floor_s"], row["memory_floor_s"])),
            f"{100 * row['achieved']:.0f} %",
            row["bound_by"],
        )
        for row in result["rows"]
    ]
    said = {"32-true": "product in fp32, GFLOP/s", "bf16-mixed": "product in bf16, GFLOP/s"}
    limits = [
        (said.get(name, f"{name}, GB/s"), f"{value / 1e9:.4g}") for name, value in ceilings.items()
    ]
    return [head, *rows, *(("ceiling", *limit) for limit in limits)]


def _memory(result: Mapping[str, Any]) -> list[Row]:
    head = ("setting", "batch", "peak of a step, MiB", "after 50 steps", "after 200 steps")
    return [
        head,
        *(
            (
                row["setting"],
                " x ".join(map(str, row["batch"])),
                *(_short(row.get(key, "")) for key in ("peak_mib", "at_50_mib", "at_200_mib")),
            )
            for row in result["rows"]
        ),
    ]


def _fused(result: Mapping[str, Any]) -> list[Row]:
    ways = ("one_by_one_over_fused", "one_by_one_s", "fused_s")
    head = ("setting", "step one by one over fused", "step one by one, s", "step fused, s")
    return [
        head,
        *((row["setting"], *(of_three(row[way]) for way in ways)) for row in result["rows"]),
    ]


def _training(result: Mapping[str, Any]) -> list[Row]:
    ours, theirs = result["ours"], result["nnunet"]
    never = "never" if theirs else "not measured"
    levels = [
        (
            f"to a Dice of {row['dice']:.2f}",
            _or(row["ours_s"], "never"),
            _or(row["ours_from_command_s"], "never"),
            _or(row["nnunet_s"], never),
            _or(row["nnunet_over_ours"]),
        )
        for row in result["levels"]
    ]
    names = {
        "training ends after, s": "final_s",
        "Dice then": "final_dice",
        "Dice then, worst patient": "final_worst",
        "Dice of its own, mirrored validation": "mirrored_dice",
        "threads": "threads",
        "workers besides": "workers",
        "parameters": "parameters",
    }
    facts = [
        (what, _or(ours.get(key)), "", _or((theirs or {}).get(key))) for what, key in names.items()
    ]
    head = ("", "ours, s", "ours from the command, s", "nnU-Net, s", "nnU-Net over ours")
    return [head, *levels, *facts]


def _or(value: float | None, without: str = "") -> str:
    return without if value is None else _short(value)


_OVERHEAD = (
    ("step under the command over that of the bare loop", "command_over_bare", ""),
    ("step under the command", "command_s", " s"),
    ("step of the bare loop", "bare_s", " s"),
)
_OVERHEAD_MISSED = (
    "Missed the more, the faster the processor: about 4 ms of a step do not depend on the "
    "network. Timers around the parts of one epoch of `cpu_small` on 25 real hearts, two threads "
    "with AMX, step of 50.8 ms: batch augmented and moved 1.4, fetched 0.4, chance seeded anew "
    "0.15 (0.34 before what other kinds of devices ask for was left out); what is left is spent "
    "in the loop around them. The weights' average, 1.2, is not in the figures above. The bare "
    "loop has one batch, and does none of these."
)
_TRAINING_MISSED = (
    "Missed with AMX: 0.82 comes after twelve epochs of 7.3 s, also where each epoch is scored. "
    "Of the 42 ms that a step computes there without optimiser, the convolutions of oneDNN take "
    "16 (2 of them to put weights into its order), calling them 7, batch norm 6, and what goes "
    "element by element most of the rest. Tried on 28 other patients (one fold, scored each "
    "epoch, target 0.80): batches of 16, whose epochs take 0.76 of the time, need more than 82 s "
    "for the 59 s of batches of 8, and 77 s at a learning rate of 0.005; an average over fewer "
    "steps (0.9 for 0.975) 52 s, and the same from 0.804 on; a rate that falls within 16 epochs "
    "more than 59 s. nnU-Net's neighbouring scores differ by up to 0.01 around 0.82, so when it "
    "first reaches that is much of chance."
)
_START = (
    ("`cardiac-mtl --help`", "help_s", " s"),
    ("`cardiac-mtl fit --help`", "fit_help_s", " s"),
    ("from command to first training step", "first_step_s", " s"),
)
_PREDICTION = (
    ("seconds of nnU-Net over ours", "nnunet_over_ours", ""),
    ("the same without its mirroring", "nnunet_without_mirroring_over_ours", ""),
    ("the study, ours", "ours_s", " s"),
    ("the study, nnU-Net", "nnunet_s", " s"),
    ("the study, nnU-Net without its mirroring", "nnunet_without_mirroring_s", " s"),
    ("parameters, ours", "ours.parameters", ""),
    ("parameters, nnU-Net", "nnunet.parameters", ""),
)
BENCHMARKS = {
    "overhead": Benchmark(
        True, "a bare PyTorch loop", "within 3 %", _table(*_OVERHEAD), _OVERHEAD_MISSED
    ),
    "roofline": Benchmark(True, "the machine's own product of matrices, and copy", "", _roofline),
    "memory": Benchmark(True, "", "no growth from step 50 to step 200", _memory),
    "start_up": Benchmark(True, "", "`--help` 1 s, first step 8 s", _table(*_START)),
    "input_pipeline": Benchmark(
        True,
        "MONAI's `CacheDataset` and random transforms",
        "",
        _table(
            ("samples a second of ours over MONAI's", "ours_over_monai", ""),
            ("samples a second, ours", "samples_per_second.ours", ""),
        ),
    ),
    "convlstm": Benchmark(
        True,
        "the cell as it is usually written",
        "1.3",
        _table(("step with the plain cell over ours", "plain_over_ours", "")),
    ),
    "fused": Benchmark(True, "a loop over the weights", "", _fused),
    "scoring": Benchmark(
        True,
        "MONAI's metrics, one volume at a time; ours on all processors",
        "",
        _table(
            ("seconds of MONAI over ours", "monai_over_ours", ""),
            ("all volumes, ours", "whole_seconds.ours", " s"),
        ),
    ),
    "report": Benchmark(True, "", "", _table(("from rows to the page", "seconds", " s"))),
    "preparation": Benchmark(
        False,
        "a straight loop of pydicom and SimpleITK in one process; ours on all processors",
        "",
        _table(
            ("slices a second of ours over the loop's", "ours_over_straight", ""),
            ("find, compare and open again", "find_compare_and_open_s", " s"),
            ("peak memory while training", "peak_resident_gb_while_training", " GB"),
        ),
    ),
    "prediction": Benchmark(
        False, "nnU-Net v2, 2d, the same 25 volumes", "5 times faster", _table(*_PREDICTION)
    ),
    "training": Benchmark(
        False,
        "nnU-Net v2, 2d, the same patients; one run of each",
        "10 times sooner to a Dice of 0.82",
        _training,
        _TRAINING_MISSED,
    ),
    "scaling": Benchmark(
        False,
        "one process",
        "",
        _table(
            (
                "two processes that share a batch over one",
                "measured.global_batch_on_two_processes_speedup",
                "",
            ),
        ),
    ),
    "kills": Benchmark(),
    "real_hearts": Benchmark(),
    "plain_unet": Benchmark(),
    "transfer_modes": Benchmark(),
}
"""By name of the module; in the order of the page."""


class Target(NamedTuple):
    """What we aim at, whether or not a benchmark measures it yet."""

    what: str
    against: str
    aim: str
    benchmark: str = ""
    path: str = ""
    """Keys of the figure in the results file, joined by points."""


TARGETS = (
    Target("training step, CPU", "bare PyTorch loop", "1.03", "overhead", "command_over_bare"),
    Target(
        "training MTN to a Dice of 0.82 on real hearts, CPU",
        "nnU-Net v2 2D, same patients",
        "10 times sooner",
        "training",
        "target",
    ),
    Target(
        "MTN epoch of LVSC's size, batch 64, one H200",
        "9 min on a Titan Xp [paper]; 4.0 PFLOP over the measured ceiling",
        "12 s, 45 % of the ceiling",
    ),
    Target("MTN prediction, one H200", "0.663 ms a slice [paper]", "0.20 ms a slice"),
    Target("step of the GAN papers, one H200", "eager fp32 with the plain cell", "4 times faster"),
    Target("input pipeline, one H200", "the training step", "device idle under 3 %"),
    Target(
        "prediction of a 4-D study, CPU, files to files",
        "nnU-Net v2, same 25 volumes",
        "5 times faster",
        "prediction",
        "nnunet_over_ours",
    ),
    Target("`cardiac-mtl --help`", "", "1 s", "start_up", "help_s"),
    Target("first training step, warm store", "", "8 s", "start_up", "first_step_s"),
)


def figure(result: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - JSON
    """Return the entry of a results file at keys joined by points, None where there is none."""
    found: Any = result
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def summary_of(name: str) -> str:
    """Return the first line of the docstring of a benchmark, without importing it."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
