"""What SLURM is told, and what it answers, without a cluster."""

import os
import subprocess
import sys

import pytest

from cardiac_mtl.errors import UserError
from cardiac_mtl.studies import job, slurm


def test_the_batch_script_survives_spaces_and_per_cents(tmp_path, monkeypatch):
    ledger = tmp_path / "a study 50%"
    text = slurm.script(ledger, ["one", "two"], [1], 3, ["--partition=gpu"])
    assert f"#SBATCH --output='{ledger}%/slurm-%A_%a.log'" in text
    assert "#SBATCH --array=1%3\n" in text
    assert "#SBATCH --partition=gpu\n" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    seen = tmp_path / "seen"
    (tmp_path / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    subprocess.run(["bash"], input=text, text=True, check=True)
    words = seen.read_text().splitlines()
    assert words[1] == f"--output={ledger}%/two.log"
    assert words[-4:] == [sys.executable, job.__file__, str(ledger), "two"]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Return what makes `scontrol` fail a number of times, and a list of what it was asked."""
    asked = tmp_path / "asked"

    def fails(times):
        asked.write_text("")
        (tmp_path / "scontrol").write_text(f"""#!/bin/sh
echo "$@" >> {asked}
[ $(wc -l < {asked}) -gt {times} ] && exit
echo "7_0-1: Requested partition\nconfiguration not available now" >&2
exit 1
""")
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return lambda: asked.read_text().splitlines()

    return fails


def test_a_job_is_released_though_slurm_is_busy_for_a_moment(scontrol):
    asked = scontrol(2)
    slurm.release("7", pauses=(0, 0, 0))
    assert asked() == ["release 7"] * 3


def test_a_job_that_slurm_does_not_release_says_so_in_the_words_of_slurm(scontrol):
    asked = scontrol(9)
    with pytest.raises(UserError) as caught:
        slurm.release("7", pauses=(0,))
    assert asked() == ["release 7"] * 2
    (line,) = str(caught.value).splitlines()
    assert "7_0-1: Requested partition configuration not available now" in line
