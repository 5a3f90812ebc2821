"""Many files by several processes: reading, decoding and resampling hold one processor each."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

import SimpleITK as sitk
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cardiac_mtl.errors import UserError
from cardiac_mtl.memory import keep_freed_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 8
"""Below this many items the processes would take longer to start than they save."""

_work: Callable[[Any], Any]


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], label: str = ""
) -> Iterator[Result]:
    """Apply a function to every item, several at a time.

    Args:
        function: plain input and output; what it raises is raised here. It must not call torch,
            whose threads do not survive the fork.
        items: in any number.
        label: of the progress bar that a person at a terminal sees.

    Yields:
        The results in the order of the items, each as soon as it and those before it are there.

    Raises:
        UserError: a process was killed, as happens when memory runs out.
    """
    with _progress() as progress:
        task = progress.add_task(label, total=len(items))
        for result in _results(function, items):
            progress.advance(task)
            yield result


def _results(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    jobs = processors()
    if jobs == 1 or len(items) < FEW or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, items)
        return
    # forked children have torch and our modules already; a spawned one would import for seconds
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("fork"), initializer=_begin, initargs=(function,)
    )
    try:
        yield from pool.map(_do, items, chunksize=max(1, min(16, len(items) // (8 * jobs))))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that read the data was killed",
            where="data",
            fix="free some memory and start again: what was prepared is kept",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - one function a process
    _work = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # the threads of ITK's pool did not survive the fork: a filter would wait for them for ever
    sitk.ProcessObject.SetGlobalDefaultThreader("Platform")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    """End when the parent was killed: we would wait for work, and hold its lock, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _do(item: Any) -> Any:  # noqa: ANN401 - whatever the function takes
    return _work(item)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
