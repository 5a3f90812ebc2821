"""A job of a study in a process that has imported everything already; for `test_crossval.py`."""

from contextlib import redirect_stderr, redirect_stdout

from cardiac_mtl.studies.job import read_study, work
from cardiac_mtl.training import outputs

if __name__ == "job":  # LEDGER and NAME are given by the test
    job = read_study(LEDGER)[NAME]  # noqa: F821
    for picture in ("overlay", "curves", "write_loop"):  # drawing would take most of the time
        setattr(outputs, picture, lambda path, *_, **__: path.touch())
    with job.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
        work(job)
