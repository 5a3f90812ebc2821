"""`check`: read every file of a data set once, and name what is wrong in one line each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cardiac_mtl.configuration import build_data
from cardiac_mtl.console import quiet_libraries, say
from cardiac_mtl.errors import UserError
from cardiac_mtl.options import OptionParser
from data_modules.base import CardiacDataModule
from data_modules.cases import Case, case_table, check_cases


def run(arguments: Sequence[str]) -> int:
    """Check the data set that a configuration describes; status 1 when something is wrong."""
    quiet_libraries()
    parser = OptionParser(
        prog="cardiac-mtl check", description="Read every file and name what is wrong."
    )
    parser.add_argument("--config", required=True, action="append", help="experiment or overlay")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="data folder")
    options = parser.parse_args(arguments[1:])
    data = build_data(options.config)
    cases = data.find_cases(options.root)
    check_cases(cases, options.root)
    faults = [fault for case in cases for fault in _faults(data, case)]
    _describe(cases)
    for fault in faults:
        say(f"error: {fault}")
    say(f"{len(cases)} cases, {len(faults)} errors")
    return 1 if faults else 0


def _faults(data: CardiacDataModule, case: Case) -> list[str]:
    try:
        prepared = data.prepare_case(case)
    except UserError as error:
        return [f"{case.case_id}: {error}"]
    annotated = prepared.mask[prepared.mask.max(axis=(1, 2)) >= 0]
    if len(annotated) and not (annotated > 0).any():
        return [f"{case.case_id}: the mask has no foreground; draw it or leave `mask` empty"]
    return []


def _describe(cases: Sequence[Case]) -> None:
    table = case_table(cases)
    say(f"patients   {table['patient_id'].nunique()}")
    for column in ("phase", "pathology", "centre", "vendor"):
        counts = Counter(value for value in table[column] if value)
        if counts:
            say(f"{column:<10} " + ", ".join(f"{v} {n}" for v, n in sorted(counts.items())))
