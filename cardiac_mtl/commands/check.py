"""`check`: read every file of a data set once, and name what is wrong in one line each."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cardiac_mtl.configuration import build_data
from cardiac_mtl.console import quiet_libraries, say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from cardiac_mtl.report.pictures.canvas import save
from cardiac_mtl.report.pictures.figures import Thumbnail, contact_sheets
from cardiac_mtl.report.pictures.sequences import MOST_CASES, Slice, of_sequences
from data_modules.base import CardiacDataModule
from data_modules.cases import case_table, check_cases
from data_modules.examination import Examined, examine_together, examiner
from data_modules.findings import Finding, Severity, noticed, of_error
from data_modules.parallel import parallel_map

ORDER: tuple[Severity, ...] = ("error", "warning", "note")


def run(arguments: Sequence[str]) -> int:
    """Check the data set that a configuration describes; status 1 when something is wrong."""
    quiet_libraries()
    parser = OptionParser(
        prog="cardiac-mtl check",
        description="Read every file once and name what is wrong: status 1 when there are errors.",
    )
    parser.add_argument("--config", required=True, action="append", help="experiment or overlay")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="data folder")
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    parser.add_argument(
        "--output", type=Path, default=Path("check"), help="folder for the contact sheet [check]"
    )
    options = parser.parse_args(arguments[1:])
    data = build_data(options.config)
    if not options.root.exists():
        raise UserError(
            "no such file or folder", where=f"--data.root {options.root}", fix="correct the path"
        )
    findings, examined = check(data, options.root)
    sheets = _draw(examined, options.output) if any(one.size for one in examined) else []
    sheets += _draw_sequences(examined, list(data.labels), options.output)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings, examined, sheets)
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def check(data: CardiacDataModule, root: Path) -> tuple[list[Finding], list[Examined]]:
    """Read everything below a folder.

    Args:
        data: knows the layout; it need not be set up.
        root: folder of the data set.

    Returns:
        All findings, errors first, and what is known of each volume.
    """
    found: list[Finding] = []

    def write_down(error: UserError) -> None:
        found.append(of_error(error))

    with noticed() as odd:
        try:
            cases = data.find_cases(root, write_down)
        except UserError as error:
            return [*odd, of_error(error)], []
    check_cases(cases, root, write_down)
    work = examiner(data.read_image, data.read_mask, data.labels, data.wall, cases)
    examined = list(parallel_map(work, cases, label="checking"))
    found += odd
    found += [finding for one in examined for finding in one.findings]
    found += examine_together(examined)
    return _sorted(found), examined


def _sorted(found: Sequence[Finding]) -> list[Finding]:
    """Return errors first; what is said of a file with many phases is said once."""
    once = {(f.severity, f.code, f.file, f.message): f for f in reversed(found)}
    return sorted(once.values(), key=lambda f: (ORDER.index(f.severity), f.case, f.file))


def _print(
    findings: Sequence[Finding], examined: Sequence[Examined], sheets: Sequence[Path]
) -> None:
    for name, text in _facts(examined):
        say(f"{name:<15} {text}")
    for finding in findings:
        say(str(finding))
    for sheet in sheets:
        say(f"picture         {sheet}")
    counts = Counter(finding.severity for finding in findings)
    say(", ".join(f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in ORDER))


def _facts(examined: Sequence[Examined]) -> list[tuple[str, str]]:
    """Return the lines of the table: what the data set holds."""
    table = case_table([one.case for one in examined])
    facts = [("cases", str(len(table))), ("patients", str(table["patient_id"].nunique()))]
    for column in ("phase", "sequence", "pathology", "centre", "vendor", "label"):
        counts = Counter(str(value) for value in table[column] if value not in {"", -1})
        if counts:
            facts.append((column, _counted(counts)))
    read = [one for one in examined if one.size]
    if not read:
        return facts
    for name, axis in (("pixel mm", 0), ("slice step mm", 2)):
        facts.append((name, _range([one.spacing[axis] for one in read])))
    sizes = Counter(f"{one.size[0]} x {one.size[1]}" for one in read)
    facts += [
        ("matrix", _counted(sizes)),
        ("slices", _range([one.size[2] for one in read])),
    ]
    lows, highs = zip(*(one.intensity for one in read), strict=True)
    facts.append(("intensity", f"{min(lows):.4g} to {max(highs):.4g}"))
    masked = [one for one in read if one.label_ml]
    facts.append(("with mask", f"{len(masked)} of {len(read)} volumes"))
    for label in masked[0].label_ml if masked else ():
        facts.append((f"{label} ml", _range([one.label_ml[label] for one in masked])))
    return facts


def _counted(counts: Counter[str], most: int = 8) -> str:
    shown = ", ".join(f"{value} ({n})" for value, n in counts.most_common(most))
    return shown + (f" and {len(counts) - most} others" if len(counts) > most else "")


def _range(values: Sequence[float]) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def _draw(examined: Sequence[Examined], output: Path) -> list[Path]:
    """Draw one slice of each patient's first volume, those with an error first."""
    output.mkdir(parents=True, exist_ok=True)
    faulty = {
        one.case.case_id for one in examined if any(f.severity == "error" for f in one.findings)
    }
    shown = {one.case.patient_id: one for one in reversed(examined) if one.size}
    chosen = list(reversed(shown.values()))
    known = {one.case.case_id for one in chosen}
    chosen = [one for one in examined if one.size and one.case.case_id in faulty - known] + chosen
    return contact_sheets(
        output / "contact_sheet.png",
        [
            Thumbnail(one.case.case_id, one.middle, one.middle_mask, one.case.case_id in faulty)
            for one in chosen
            if one.middle is not None
        ],
    )


def _draw_sequences(examined: Sequence[Examined], names: Sequence[str], output: Path) -> list[Path]:
    """Draw the first patients of whom several sequences have a mask (weak transfer, Fig. 2)."""
    patients: dict[str, dict[str, Slice]] = {}
    for one in examined:
        if one.middle is not None and one.middle_mask is not None:
            column_mm, row_mm, _ = one.spacing
            shown = Slice(one.middle, {}, one.middle_mask, (row_mm, column_mm))
            patients.setdefault(one.case.patient_id, {}).setdefault(one.case.sequence, shown)
    several = [(patient, slices) for patient, slices in patients.items() if len(slices) > 1]
    drawn = [of_sequences(patient, slices, names) for patient, slices in several[:MOST_CASES]]
    return [save(picture, output).with_suffix(".png") for picture in drawn]
