"""What was found in a data set: one line each, with a severity and a code."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import override

from cardiac_mtl.errors import UserError

Severity = Literal["error", "warning", "note"]
"""An error cannot be used, a warning deserves a look, a note was dealt with."""

OnError = Callable[[UserError], None]
"""What a search for cases does with a fault: raise it, or write it down and go on."""

_log = logging.getLogger("data_modules")


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong with one file."""

    severity: Severity
    code: str
    case: str
    """Pseudonymous case id; empty where the file belongs to no case, or to many."""
    file: str
    """Path of the file."""
    message: str
    """What is wrong, what was expected, and what to do about it."""

    def __str__(self) -> str:
        """Return the line that `check` prints."""
        where = f"{self.case}, {self.file}" if self.case else self.file
        return f"{self.severity}: {where}: {self.message} [{self.code}]"


def of_error(error: UserError, case: str = "") -> Finding:
    """Return what `check` says of an error that stops everything else."""
    return Finding("error", error.code, case, error.where, f"{error.what}; {error.fix}")


def refuse(error: UserError) -> None:
    """Raise the error: what everything but `check` does with it."""
    raise error


def notice(code: str, file: Path, message: str, severity: Severity = "warning") -> None:
    """Say that a file was used although something about it is odd.

    Args:
        code: one word for the kind of oddity.
        file: its path; the log shows its name alone.
        message: what is odd, and what was made of it.
        severity: `warning`, or `note` where nothing can come of it.
    """
    level = logging.WARNING if severity == "warning" else logging.INFO
    finding = Finding(severity, code, "", str(file), message)
    _log.log(level, "%s: %s", file.name, message, extra={"finding": finding})


@contextmanager
def noticed() -> Iterator[list[Finding]]:
    """Collect what is noticed inside, in place of logging it."""
    found: list[Finding] = []
    handler = _Collector(found)
    before = _log.propagate, _log.level, _log.handlers
    _log.propagate, _log.handlers = False, [handler]
    _log.setLevel(logging.INFO)
    try:
        yield found
    finally:
        _log.propagate, _log.handlers = before[0], before[2]
        _log.setLevel(before[1])


class _Collector(logging.Handler):
    def __init__(self, found: list[Finding]) -> None:
        super().__init__()
        self.found = found

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(finding := getattr(record, "finding", None), Finding):
            self.found.append(finding)
