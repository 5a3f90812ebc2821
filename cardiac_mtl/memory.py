"""How the process asks the system for memory."""

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next batch in place of giving it back each time.

    Tensors of some megabytes would otherwise be mapped, zeroed page by page and unmapped at every
    step: a third of the time of augmentation on the CPU (`benchmarks/input_pipeline.py`), a tenth
    of a step of MuTGAN (`benchmarks/convlstm.py`). Nothing happens where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_MMAP_MAX, 0)


def leave_imports_to_rest() -> None:
    """Have the garbage collector look no more at what is in memory now: the imports, mostly.

    A list of tens of thousands of files would have it go through all of torch several times: 0.4 s
    of the 1.3 s that it took to find and compare the files of LVSC (`benchmarks/preparation.py`).
    """
    gc.collect()
    gc.freeze()
