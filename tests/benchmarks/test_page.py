"""The page of figures is what the committed results say, and the list names what there is."""

import subprocess
import sys
from pathlib import Path

from benchmarks import __main__ as command
from benchmarks.catalogue import BENCHMARKS, of_three, summary_of
from benchmarks.page import PAGE, RESULTS, page, results

FOLDER = Path(RESULTS).parent
SHARED = {
    "__main__", "catalogue", "census", "common", "keep", "nnunet", "nnunet_trainer", "page", "steps",
}  # fmt: skip
MACHINE = {
    "processor": "AMD EPYC", "cores": 2, "threads": 2, "memory_gib": 23.5,
    "instructions": ["avx512_bf16"], "accelerator": "",
}  # fmt: skip


def test_the_committed_page_is_that_of_the_committed_results():
    assert PAGE.read_text(encoding="utf-8") == page(results(RESULTS)), "python -m benchmarks page"


def test_every_results_file_belongs_to_a_benchmark():
    assert set(results(RESULTS)) <= set(BENCHMARKS)


def test_every_benchmark_is_listed_with_a_line(capsys):
    assert {path.stem for path in FOLDER.glob("*.py")} - SHARED == set(BENCHMARKS)
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed and summary_of(name) in listed for name in BENCHMARKS)


def test_an_unknown_one_is_refused(capsys):
    assert command.main(["rofline"]) == 2
    assert "no benchmark 'rofline'" in capsys.readouterr().err


def test_what_has_no_file_is_said():
    text = page({})
    for name, benchmark in BENCHMARKS.items():
        assert (f"Not measured: `python -m benchmarks {name}`" in text) == bool(benchmark.shown)


def test_a_result_is_shown_with_where_it_was_measured():
    result = {
        "benchmark": "convlstm",
        "command": "python -m benchmarks convlstm --width 8",
        "rounds": 7,
        "plain_over_ours": {"median": 1.25, "least": 1.1, "largest": 1.5},
        "machine": MACHINE,
        "git_commit": "0123456789abcdef",
        "file": "convlstm-x.json",
        "limited_by": "starting kernels",
    }
    text = page({"convlstm": [result]})
    assert (
        "`python -m benchmarks convlstm --width 8`; AMD EPYC, 2 cores, 2 threads, 23.5 GiB, "
        "avx512_bf16; 7 repeats; commit 0123456789; `benchmarks/results/convlstm-x.json`:"
    ) in text
    assert "| step with the plain cell over ours | 1.25 (1.1 to 1.5) |" in text
    assert "What limits now: starting kernels." in text


def test_a_commit_that_was_changed_is_marked():
    text = page({"report": [{"git_commit": "0123456789abcdef+", "file": "report.json"}]})
    assert "; commit 0123456789+; " in text


def test_spreads_are_short():
    assert (
        of_three({"median": 1.04554517, "least": 1.0, "largest": 2.0}, " s") == "1.046 s (1 to 2)"
    )
    assert of_three(0.85, " s") == "0.85 s"


def test_listing_and_page_do_not_wait_for_torch():
    code = "import sys, benchmarks.__main__ as m, benchmarks.page; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=FOLDER.parent).returncode == 0
    )
