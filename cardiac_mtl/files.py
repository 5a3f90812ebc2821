"""Files that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the place to write a file at; it takes the name of `path` once all is written.

    What fails, or is killed, on the way leaves `path` as it was, and a hidden file beside it.
    """
    temporary = path.with_name(f".{path.name}")
    yield temporary
    temporary.replace(path)
