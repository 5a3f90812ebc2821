"""`cardiac-mtl` with norms that look at each sample by itself, for `test_distributed.py`.

With `STOP_AT` in the environment, the first of its processes gets SIGTERM in that step.
"""

import itertools
import os
import signal
import sys

import torch

from cardiac_mtl.cli import main
from cardiac_mtl.papers.base import Paper


def interrupted(step, at):
    calls = itertools.count(1)

    def wrapped(*given):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    return wrapped


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.nn.BatchNorm2d = lambda channels, **_: torch.nn.GroupNorm(1, channels)
    torch.nn.BatchNorm3d = torch.nn.BatchNorm2d
    if "STOP_AT" in os.environ and "LOCAL_RANK" not in os.environ:
        Paper.training_step = interrupted(Paper.training_step, int(os.environ["STOP_AT"]))
    sys.exit(main(sys.argv[1:]))
