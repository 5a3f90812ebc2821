"""Numbers of pitfalls lead to docs/pitfalls.md, and from there to what guards against them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"\bP\d{1,2}\b(?=[:,;)]|$)", re.MULTILINE)
PLACES = ("cardiac_mtl", "data_modules", "tests")


def test_every_number_that_is_named_is_explained_and_none_is_idle():
    page = (ROOT / "docs/pitfalls.md").read_text()
    explained = set(re.findall(r"^\| (P\d+) \|", page, re.MULTILINE))
    files = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
    named = {number for path in files for number in NUMBER.findall(path.read_text())}
    assert named == explained
