"""Names that identify a patient become pseudonyms before anything else sees them."""

import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PUBLISHED = re.compile(r"(DET|SCD)\d{7}")
"""Names of the Cardiac Atlas Project and of Sunnybrook are pseudonyms already."""
SHORTEST = 3
"""Shorter parts of a name, such as initials, occur in innocent words too."""


def pseudonym(name: str, identifiers: Sequence[str]) -> str:
    """Return a name that gives nobody away.

    Args:
        name: of a case or a patient, such as that of a folder.
        identifiers: what the header of the image says of the patient: names, numbers, dates.

    Returns:
        The name itself where no part of an identifier is in it, or where it is a published
        pseudonym; else `p` and ten digits, a keyed hash: the same on this machine each time,
        and of no use without its key.
    """
    if PUBLISHED.match(name) or not _tells(name, identifiers):
        return name
    return "p" + hashlib.blake2b(name.encode(), key=_salt(), digest_size=5).hexdigest()


def _tells(name: str, identifiers: Sequence[str]) -> bool:
    plain = _letters(name)
    parts = {_letters(part) for text in identifiers for part in re.split(r"[\W_]+", text)}
    parts |= {_letters(text) for text in identifiers}
    return any(len(part) >= SHORTEST and part in plain for part in parts)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _salt() -> bytes:
    """Return the key of this machine's pseudonyms, made on first use, for its user alone."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = base / "cardiac-mtl" / "salt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".salt-{secrets.token_hex(8)}")
        temporary.touch(mode=0o600)
        temporary.write_bytes(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was first: its key counts
            os.link(temporary, path)
        temporary.unlink()
    return path.read_bytes()
