"""Names that identify a patient become pseudonyms before anything else sees them."""

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PUBLISHED = re.compile(r"(DET|SCD)\d{7}")
"""Names of the Cardiac Atlas Project and of Sunnybrook are pseudonyms already."""
_DATE = re.compile(r"\b(\d{4})(\d\d)(\d\d)\b")
"""As headers have it, year first; folders have it in other orders."""
_SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "æ": "ae", "ø": "oe"})
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
    if not _tells(PUBLISHED.sub("", name), identifiers):
        return name
    return "p" + hashlib.blake2b(name.encode(), key=_salt(), digest_size=5).hexdigest()


def _tells(name: str, identifiers: Sequence[str]) -> bool:
    plain = {_letters(name), _letters(_spelt(name))}
    # a name may be written in up to three scripts, one after the other
    whole = [text for several in identifiers for text in (several, *several.split("="))]
    whole += [day + month + year for text in whole for year, month, day in _DATE.findall(text)]
    whole += [month + day + year for text in whole for year, month, day in _DATE.findall(text)]
    split = {part for text in whole for part in (text, *re.split(r"[\W_]+", text))}
    parts = {_letters(form) for part in split for form in (part, _spelt(part))}
    return any(len(part) >= _shortest(part) and part in form for part in parts for form in plain)


def _spelt(text: str) -> str:
    """Write umlauts as those do who lack the keys: Müller is Mueller, in header or in folder."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_SPELT)


def _shortest(part: str) -> int:
    """A name in Chinese, Japanese or Korean has two or three letters."""
    return SHORTEST if part.isascii() else 2


def _letters(text: str) -> str:
    # decomposed, as macOS names files, so that an umlaut is its letter and a mark, which goes
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", text)).casefold()


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
