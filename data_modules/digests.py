"""What files hold, as hashes that are remembered: a file is read again only when it changed."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from data_modules.parallel import parallel_map

MEMORY = "digests.sqlite"

_SCHEMA = "CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, content TEXT)"


def digests(files: Sequence[Path], cache: Path) -> list[str]:
    """Return a hash of the content of each file.

    Args:
        files: all must be there; one may come several times.
        cache: folder that remembers what was read before.

    Returns:
        40 hexadecimal digits a file, in their order, of SHA-1: it tells contents apart as well as
        SHA-256 where nobody forges them, in less than half the time. A file whose size, time of
        change and inode are those of last time is not read again, as git does it.
    """
    here = os.getcwd()  # noqa: PTH109
    stamps = [_stamp(str(file), here) for file in files]
    cache.mkdir(parents=True, exist_ok=True)
    with closing(_open(cache / MEMORY)) as memory:
        known = dict(memory.execute("SELECT stamp, content FROM files"))
        new = {stamp: file for stamp, file in zip(stamps, files, strict=True) if stamp not in known}
        if new:
            fresh = dict(zip(new, _hashed(list(new.values())), strict=True))
            known |= fresh
            # a cache that others keep, or a full disk: then the files are read again next time
            with suppress(sqlite3.OperationalError), memory:
                memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", fresh.items())
    return [known[stamp] for stamp in stamps]


def _hashed(files: Sequence[Path]) -> Iterator[str]:
    # a hundred at a time: handing one small file to a process takes as long as reading it
    some = [files[first : first + 100] for first in range(0, len(files), 100)]
    for part in parallel_map(_contents, some, "comparing"):
        yield from part


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _with_table(path)
    except sqlite3.OperationalError:  # in use for long, or not ours to write: it stays as it is
        return _with_table(":memory:")
    except sqlite3.DatabaseError:  # damaged: it is only a memory
        path.unlink()
        return _with_table(path)


def _with_table(path: Path | str) -> sqlite3.Connection:
    memory = sqlite3.connect(path, timeout=60)
    try:
        memory.execute(_SCHEMA)
    except sqlite3.DatabaseError:
        memory.close()
        raise
    return memory


def _stamp(path: str, here: str) -> str:
    """Return what changes when the file does; hashed, as a path may name a patient.

    Strings, as tens of thousands of files are asked for at each start.
    """
    status = os.stat(path)  # noqa: PTH116
    place = "" if path.startswith(os.sep) else here
    text = f"{place}/{path}\n{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _contents(files: Sequence[Path]) -> list[str]:
    buffer = bytearray(1 << 18)  # one for all: a new one for each file would be zeroed first
    view = memoryview(buffer)
    found = []
    for file in files:
        digest = hashlib.sha1(usedforsecurity=False)
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                digest.update(view[:count])
        found.append(digest.hexdigest())
    return found
