"""The prepared store: every slice resampled once, memory-mapped, keyed by content and settings."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch
from data_modules.cases import Case

VERSION = 1
"""Part of every key: raise it when the preparation changes."""

IMAGE, MASK, INDEX = "image.float16", "mask.int8", "index.npz"


@dataclass(frozen=True)
class PreparedCase:
    """One volume on the prepared grid."""

    image: NDArray[np.float32]
    """(S, H, W)."""
    mask: NDArray[np.int8]
    """(S, H, W), `UNLABELLED` where not annotated."""
    spacing: tuple[float, float, float]
    """Distance between slices, rows and columns in mm."""


def cache_folder() -> Path:
    """Return the folder for what can be made again: `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cardiac-mtl"


def store_key(cases: Sequence[Case], settings: dict[str, object]) -> str:
    """Return a hash of everything that the prepared arrays depend on.

    Args:
        cases: in the order of the case table.
        settings: of the preparation, JSON-able.

    Returns:
        64 hexadecimal digits. The bytes of every file count, not its name or its date (P12).
    """
    content = [
        [case.frame, [_digest(p) for p in case.image], [p and _digest(p) for p in case.mask]]
        for case in cases
    ]
    described = json.dumps([VERSION, settings, content], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def open_store(
    folder: Path, cases: Sequence[Case], prepare: Callable[[Case], PreparedCase]
) -> "PreparedStore":
    """Open a prepared store, making it first where it is absent.

    Args:
        folder: of this store alone; its name holds the key.
        cases: in the order of the case table.
        prepare: reads and resamples one case.

    Returns:
        The open store. A store that is being made has a temporary name, so that a process that
        is killed leaves nothing that could be taken for a whole one.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(making, map(prepare, cases))
            making.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process made the same store meanwhile
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return PreparedStore(folder)


class PreparedStore:
    """Arrays of all slices of all cases, read from disk as they are needed.

    Args:
        folder: as `open_store` left it.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / INDEX) as index:
            self.case, self.slice, self.spacing, matrix = (
                index[name] for name in ("case", "slice", "spacing", "matrix")
            )
        shape = (len(self.case), *map(int, matrix))
        self.image = np.memmap(folder / IMAGE, dtype=np.float16, mode="r", shape=shape)
        self.mask = np.memmap(folder / MASK, dtype=np.int8, mode="r", shape=shape)

    def slices_of(self, cases: Sequence[int]) -> NDArray[np.intp]:
        """Return the positions of all slices of some rows of the case table."""
        return np.flatnonzero(np.isin(self.case, np.asarray(cases, dtype=self.case.dtype)))


class SliceDataset(Dataset[Batch]):
    """Some slices of a store, fetched a batch at a time.

    Args:
        store: of the whole data set.
        positions: (N,), slices of this part.
        num_indices: K, columns of `indices`; the data module fills them.
        label: (cases,), label of each row of the case table.
        repeats: passes over the slices that make one epoch.
    """

    def __init__(
        self,
        store: PreparedStore,
        positions: NDArray[np.intp],
        num_indices: int,
        label: Tensor,
        repeats: int = 1,
    ) -> None:
        self.store = store
        self.positions = np.tile(positions, repeats)
        self.num_indices = num_indices
        self.label = label

    def __len__(self) -> int:
        return len(self.positions)

    @override
    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a whole batch by one gather from each array."""
        positions = self.positions[np.asarray(indices)]
        image = self.store.image[positions].astype(np.float32)
        case = torch.from_numpy(self.store.case[positions])
        return {
            "image": torch.from_numpy(image)[:, None],
            "mask": torch.from_numpy(self.store.mask[positions]).long(),
            "spacing": torch.from_numpy(self.store.spacing[positions]),
            "case": case,
            "slice": torch.from_numpy(self.store.slice[positions]),
            "indices": torch.full((len(positions), self.num_indices), torch.nan),
            "label": self.label[case],
            "sample": torch.as_tensor(indices),
        }


def _write(folder: Path, prepared: Iterable[PreparedCase]) -> None:
    """Write case after case, so that one volume at a time is in memory."""
    counts, spacings, matrix = [], [], (0, 0)
    with (folder / IMAGE).open("wb") as images, (folder / MASK).open("wb") as masks:
        for case in prepared:
            images.write(case.image.astype(np.float16).tobytes())
            masks.write(case.mask.tobytes())
            counts.append(len(case.image))
            spacings.append(case.spacing)
            matrix = case.image.shape[1:]
    np.savez(
        folder / INDEX,
        case=np.repeat(np.arange(len(counts)), counts),
        slice=np.concatenate([np.arange(n) for n in counts]),
        spacing=np.repeat(np.asarray(spacings, dtype=np.float32), counts, axis=0),
        matrix=np.asarray(matrix),
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unannotated_like(image: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return a mask that says nothing about a prepared image (S, H, W)."""
    return np.full(image.shape, UNLABELLED, dtype=np.int8)
