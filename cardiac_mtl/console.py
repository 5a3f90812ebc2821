"""Lines on the terminal, ours only. Imports nothing heavy."""

import logging
import sys
import warnings

from rich.console import Console
from typing_extensions import override


def say(text: str) -> None:
    """Print one line for the user, whole, wherever output goes."""
    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(text)


def quiet_libraries() -> None:
    """Keep advertisements and hints to developers of other libraries off the user's terminal."""
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # of a header that we refuse
    ours = logging.getLogger("data_modules")
    ours.setLevel(logging.INFO)
    ours.handlers = [_Lines()]
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*GPU available but not used.*",
        ".*LeafSpec.*",
        ".*It is recommended to use `self.log.*",
        ".*`srun` command is available.*",
        ".*exists and is not empty.*",
        ".*Total length of `list` across ranks is zero.*",  # no patient validates: we say so
    ):
        warnings.filterwarnings("ignore", message)


class _Lines(logging.Handler):
    """One line on standard error for what the readers notice."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno < logging.WARNING else "warning: "
        print(f"{mark}{record.getMessage()}", file=sys.stderr)


def on_terminal() -> bool:
    """Say whether a person looks on."""
    return sys.stdout.isatty()
