"""The pinned versions: one of each requirement, and each to be had on every Python that we name."""

from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def lines(file):
    kept = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [Requirement(line) for line in kept if line]


def applies(requirement, python):
    return requirement.marker is None or requirement.marker.evaluate({"python_version": python})


def version_of(pin):
    (equal,) = pin.specifier
    return equal.version


@pytest.mark.parametrize("python", PYTHONS)
def test_each_requirement_has_one_pinned_version_that_it_allows(python):
    assert python in SpecifierSet(metadata("cardiac-mtl")["Requires-Python"])
    pins = [pin for pin in lines(ROOT / "constraints.txt") if applies(pin, python)]
    for wanted in map(Requirement, requires("cardiac-mtl")):
        name = canonicalize_name(wanted.name)
        (pin,) = [pin for pin in pins if canonicalize_name(pin.name) == name]
        assert wanted.specifier.contains(version_of(pin)), name


def test_a_version_pinned_for_every_python_is_one_that_each_of_them_can_install():
    pins = [pin for pin in lines(ROOT / "constraints.txt") if pin.marker is None]
    for pin in pins:  # of others, what is installed tells of one Python alone
        installed = metadata(pin.name)
        needs = SpecifierSet(installed.get("Requires-Python", ""))
        if installed["Version"].partition("+")[0] == version_of(pin):
            assert all(needs.contains(f"{python}.0") for python in PYTHONS), (pin.name, needs)
