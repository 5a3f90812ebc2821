"""The `cardiac-mtl` command. Imports nothing heavy until a sub-command is chosen."""

import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from cardiac_mtl.errors import Stopped, UserError
from cardiac_mtl.studies import slurm

COMMANDS = {
    "fit": ("cardiac_mtl.training.fit", "train an experiment, into a run directory of its own"),
    "validate": ("cardiac_mtl.training.fit", "score a run on its validation patients"),
    "test": ("cardiac_mtl.training.fit", "score a run on its test patients: rows, table, pictures"),
    "predict": ("cardiac_mtl.commands.predict", "write masks and indices for any images"),
    "cv": (
        "cardiac_mtl.studies.crossval",
        "every fold and seed of one or several experiments, reported",
    ),
    "evaluate": ("cardiac_mtl.commands.evaluate", "score masks of any tool into the same rows"),
    "report": (
        "cardiac_mtl.commands.report",
        "tables, figures and one page from any number of runs",
    ),
    "list": ("cardiac_mtl.catalogue", "list the experiments, data sets and presets"),
    "phantom": ("cardiac_mtl.commands.phantom", "write a cohort of phantom hearts to disk"),
    "cache": ("cardiac_mtl.commands.cache", "list or clear what was prepared"),
    "audit": (
        "cardiac_mtl.commands.audit",
        "prove or refute the protocol of a run, a line a claim",
    ),
    "check": ("cardiac_mtl.commands.check", "read every file of a data set and name what is wrong"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: the words after `cardiac-mtl`; the command line when absent.

    Returns:
        The exit status: 0 done, 1 done and found wanting, 2 the user can mend it, 128 + the
        number of the signal that stopped it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(import_module("cardiac_mtl").__version__)
        return 0
    try:
        return _run(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"cardiac-mtl: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"cardiac-mtl: {stopped}; the same command goes on", file=sys.stderr)
        slurm.requeue(stopped.signal_number)
        return 128 + stopped.signal_number
    except KeyboardInterrupt:
        print("cardiac-mtl: stopped", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    """Run a sub-command, and say what the system refuses it: rights, a full disk, a folder."""
    try:
        status = int(_module(arguments[0]).run(arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough; what is left must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if not error.strerror:  # not the system's: of a library
            raise
        raise UserError(
            error.strerror,
            where=str(error.filename or "disk"),
            fix="check this path, your rights to it and the space on its disk",
        ) from error


def _module(command: str) -> ModuleType:
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        raise UserError(
            f"no sub-command {command!r}",
            where="command line",
            fix=f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(COMMANDS)}",
        )
    return import_module(COMMANDS[command][0])


def _help() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cardiac-mtl COMMAND [options]",
            "",
            *lines,
            "",
            "cardiac-mtl COMMAND --help shows the options of a command;",
            "--debug anywhere shows the traceback of an error.",
        ]
    )
