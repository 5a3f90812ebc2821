"""Files that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_HALF = ".half-"
"""Begins the names of files that are being written."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the place to write a file at; it takes the name of `path` once all is written.

    Each writer has a place of its own: of two at once, the one that ends last is read. What fails
    on the way leaves `path` as it was; what is killed leaves a hidden file beside it too.
    """
    temporary = path.with_name(f"{_HALF}{uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_halves(folder: Path) -> None:
    """Remove what killed writers left in a folder, and below it, that nobody writes to now."""
    for left in folder.rglob(f"{_HALF}*"):
        left.unlink()
