"""The command is quick, and its errors are one line."""

import subprocess
import sys

import pytest

from cardiac_mtl.cli import COMMANDS, main
from cardiac_mtl.console import say


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"]])
def test_the_light_commands_import_nothing_heavy(words):
    code = (
        "import sys; from cardiac_mtl.cli import main; "
        f"assert main({words}) == 0; "
        "heavy = {'torch', 'lightning', 'monai', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("word", "hint"), [("fitt", "did you mean 'fit'?"), ("zzzz", "choose from fit, validate")]
)
def test_an_unknown_command_is_one_line(capsys, word, hint):
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"no sub-command '{word}'" in error
    assert hint in error


def test_debug_shows_the_traceback():
    code = "import sys; from cardiac_mtl.cli import main; sys.exit(main(['fitt', '--debug']))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_list_shows_paper_row_data_and_tasks(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    block = shown[shown.index("mtn_uncertainty") :].split("\n")[1:5]
    assert [line.split()[0] for line in block] == ["paper", "row", "data", "tasks"]
    assert "presets/cpu_demo" in shown
    assert "data/manifest" in shown
    assert "rows with an adversary want --model.pretrain_epochs 20 beside it\n" in shown


def test_list_takes_no_words(capsys):
    assert main(["list", "mutgan"]) == 2
    assert (
        "unrecognized arguments: mutgan; see `cardiac-mtl list --help`" in capsys.readouterr().err
    )


@pytest.mark.parametrize("inside", ["", "folder"])
def test_what_the_system_refuses_is_one_line(capsys, tmp_path, inside):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / inside
    assert main(["phantom", "--layout", "t1", "--patients", "1", "--out", str(place)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cardiac-mtl: {tmp_path / 'file'}: ")
    assert "check this path, your rights to it" in error
    assert error.count("\n") == 1


def test_a_reader_that_has_read_enough_ends_it_quietly():
    code = "import sys; from cardiac_mtl.cli import main; sys.exit(main(['list']))"
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started.stdout.close()
    assert started.stderr.read() == b""
    assert started.wait() == 128 + 13


@pytest.mark.parametrize("command", ["check", "phantom"])
def test_a_word_too_many_is_one_line(capsys, command):
    words = {"check": ["--config", "manifest", "--data.root", "x"], "phantom": ["--out", "x"]}
    assert main([command, *words[command], "extra"]) == 2
    assert "unrecognized arguments: extra; see `cardiac-mtl" in capsys.readouterr().err


def test_what_looks_like_an_emoji_stays_what_it_is(capsys):
    say("patient P1:x:2, [bold] or not")
    assert capsys.readouterr().out == "patient P1:x:2, [bold] or not\n"
