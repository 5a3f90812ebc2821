"""What files hold, as hashes that are remembered: a file is read again only when it changed."""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from data_modules.parallel import parallel_map

MEMORY = "digests.sqlite"

_SCHEMA = "CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, content TEXT)"


def digests(files: Sequence[Path], cache: Path) -> dict[Path, str]:
    """Return a hash of the content of each file.

    Args:
        files: all must be there.
        cache: folder that remembers what was read before.

    Returns:
        40 hexadecimal digits a file, of SHA-1: it tells contents apart as well as SHA-256 where
        nobody forges them, in less than half the time. A file whose size, time of change and
        inode are those of last time is not read again, as git does it.
    """
    here = os.getcwd()  # noqa: PTH109
    stamps = {file: _stamp(file, here) for file in dict.fromkeys(files)}
    cache.mkdir(parents=True, exist_ok=True)
    with closing(_open(cache / MEMORY)) as memory:
        known = dict(memory.execute("SELECT stamp, content FROM files"))
        found = {file: known.get(stamp) for file, stamp in stamps.items()}
        new = [file for file, digest in found.items() if digest is None]
        # a hundred at a time: handing one small file to a process takes as long as reading it
        some = [new[first : first + 100] for first in range(0, len(new), 100)]
        hashed = (digest for part in parallel_map(_contents, some, "comparing") for digest in part)
        fresh = dict(zip(new, hashed, strict=True))
        rows = [(stamps[file], digest) for file, digest in fresh.items()]
        if rows:
            with memory:
                memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", rows)
    return {file: fresh.get(file) or found[file] or "" for file in stamps}


def _open(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(path, timeout=60)
    try:
        memory.execute(_SCHEMA)
    except sqlite3.DatabaseError:  # damaged: it is only a memory
        memory.close()
        path.unlink()
        memory = sqlite3.connect(path, timeout=60)
        memory.execute(_SCHEMA)
    return memory


def _stamp(file: Path, here: str) -> str:
    """Return what changes when the file does; hashed, as a path may name a patient.

    Strings, as tens of thousands of files are asked for at each start.
    """
    path = os.path.join(here, file)  # noqa: PTH118
    status = os.stat(path)  # noqa: PTH116
    text = f"{path}\n{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
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
