"""Every command of the README is one that exists, with options that it knows."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from cardiac_mtl.catalogue import find_config
from cardiac_mtl.cli import COMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
LINES = [line.strip() for line in TEXT.splitlines()]


@pytest.mark.parametrize("line", [x for x in LINES if x.startswith("cardiac-mtl ")])
def test_a_command_of_ours(line):
    words = line.split()
    assert words[1] in COMMANDS
    for word, following in pairwise(words):
        if word == "--config":
            for name in following.split(","):  # a grid of experiments, for `cv`
                find_config(name)


@pytest.mark.parametrize("line", [x for x in LINES if re.match(r"make \w", x)])
def test_a_target_of_make(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
