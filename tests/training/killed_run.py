"""A run that kills itself at a chosen moment, as the power fails; for `test_resume.py`."""

import os
import signal
from pathlib import Path

import torch

from cardiac_mtl.cli import main
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.training.metrics_csv import RunMetrics
from cardiac_mtl.training.resume import StopOnSignal, WholeFiles


def at_call(number, before=None):
    """Wrap a function so that its process dies at a call of it, counted from 1."""

    def wrap(function):
        calls = []

        def wrapped(*given, **named):
            calls.append(1)
            if len(calls) < number:
                return function(*given, **named)
            if before is not None:
                before(function, *given, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return wrapped

    return wrap


def half(save, content, file, *_, **__):
    """Write the first half of a checkpoint."""
    whole = Path(file.name).with_name("whole")
    save(content, whole)
    file.write(whole.read_bytes()[: whole.stat().st_size // 2])
    file.flush()
    whole.unlink()


def whole(write, *given, **named):
    write(*given, **named)


MOMENTS = {
    "in a step": (StopOnSignal, "on_train_batch_end", at_call(5)),
    "in a validation": (Paper, "validation_step", at_call(5)),
    # of the first epoch there are two checkpoints, of others one or two
    "half a checkpoint written": (torch, "save", at_call(3, half)),
    "between two checkpoints": (WholeFiles, "save_checkpoint", at_call(3, whole)),
    "a row half written": (RunMetrics, "_write", at_call(6)),
    "an epoch just ended": (RunMetrics, "_write", at_call(6, whole)),
    "before anything was kept": (Paper, "training_step", at_call(1)),
}


if __name__ == "die":  # MOMENT and WORDS are given by the test
    torch.set_num_threads(1)
    place, name, wrap = MOMENTS[MOMENT]  # noqa: F821
    setattr(place, name, wrap(getattr(place, name)))
    main(WORDS)  # noqa: F821
