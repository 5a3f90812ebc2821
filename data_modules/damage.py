"""What libraries raise on damaged files, and the one line that users see instead."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from cardiac_mtl.errors import UserError

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    gzip.BadGzipFile,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
    InvalidDicomError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)
"""Found by changing bytes of good files at random. Catch it around calls of libraries only."""


def damaged(path: Path, what: str, error: Exception) -> UserError:
    """Return the error of a file that a library could not read."""
    return UserError(
        f"{what} ({type(error).__name__})",
        where=str(path),
        fix="copy the file again from its source",
        code="damaged",
    )
