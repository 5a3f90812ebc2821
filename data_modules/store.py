"""The prepared store: every slice resampled once, memory-mapped, keyed by content and settings."""

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from cardiac_mtl.contracts import UNLABELLED, Batch
from cardiac_mtl.errors import UserError
from data_modules.cases import Case
from data_modules.digests import digests
from data_modules.findings import notice
from data_modules.parallel import parallel_map

VERSION = 3
"""Part of every key: raise it when the preparation changes."""

IMAGE, MASK, INDEX, ABOUT = "image.float16", "mask.int8", "index.npz", "about.json"
BYTES_A_PIXEL = 3
RESIDENT_BYTES = 64 << 20
"""How much of the arrays may stay in the memory of the process: what is beyond goes back to the
page cache of the system, from where the next batch has it at once."""


@dataclass(frozen=True)
class PreparedCase:
    """One volume on the prepared grid."""

    image: NDArray[np.float32]
    """(S, H, W)."""
    mask: NDArray[np.int8]
    """(S, H, W), `UNLABELLED` where not annotated."""
    spacing: tuple[float, float, float]
    """Distance between slices, rows and columns in mm."""


@dataclass(frozen=True)
class Plan:
    """What a store will hold, known before anything is read."""

    slices: tuple[int, ...]
    """Of each case."""
    matrix: tuple[int, int]

    @property
    def starts(self) -> list[int]:
        """Return the first slice of each case within the arrays."""
        return [0, *accumulate(self.slices)][:-1]

    @property
    def bytes(self) -> int:
        """Return the size of the arrays."""
        return sum(self.slices) * self.matrix[0] * self.matrix[1] * BYTES_A_PIXEL


def cache_folder() -> Path:
    """Return the folder for what can be made again: `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cardiac-mtl"


def store_key(cases: Sequence[Case], settings: Mapping[str, object], cache: Path) -> str:
    """Return a hash of everything that the prepared arrays depend on.

    Args:
        cases: in the order of the case table.
        settings: of the preparation, JSON-able.
        cache: remembers the digests of files that have not changed.

    Returns:
        64 hexadecimal digits. The bytes of every file count, not its name or its date (P12).
    """
    known = iter(
        digests([file for case in cases for file in (*case.image, *case.mask) if file], cache)
    )
    content = [
        [case.frame, [next(known) for _ in case.image], [p and next(known) for p in case.mask]]
        for case in cases
    ]
    described = json.dumps([VERSION, dict(settings), content], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def open_store(
    folder: Path,
    cases: Sequence[Case],
    prepare: Callable[[Case], PreparedCase],
    plan: Callable[[], Plan],
    about: Mapping[str, object],
) -> "PreparedStore":
    """Open a prepared store, making it first where it is absent.

    A store in the making is a hidden folder beside the place where it will be; each case leaves a
    mark there once it is written. A process that is killed loses the cases that it had in hand;
    the next one goes on from the marks. Two processes that want the same store wait for each other.

    Args:
        folder: of this store alone; its name holds the key.
        cases: in the order of the case table.
        prepare: reads and resamples one case.
        plan: says what the store will hold; asked only when it has to be made.
        about: what `cardiac-mtl cache list` shows of it, JSON-able.

    Raises:
        UserError: the disk is too small, or a case cannot be prepared.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            notice("store_wait", folder, "another process prepares it; waiting for its end", "note")
            lock.acquire()
        try:
            if not folder.is_dir():  # else another process has made it meanwhile
                _make(folder, cases, prepare, plan(), about)
        finally:
            lock.release()
    return PreparedStore(folder)


def _make(
    folder: Path,
    cases: Sequence[Case],
    prepare: Callable[[Case], PreparedCase],
    plan: Plan,
    about: Mapping[str, object],
) -> None:
    making = folder.with_name(f".{folder.name}.partial")
    marks = making / "done"
    marks.mkdir(parents=True, exist_ok=True)
    todo = [k for k in range(len(cases)) if not (marks / f"{k}.json").is_file()]
    share = len(todo) / len(cases)
    _forecast(folder, plan, share, resumed=share < 1)
    for name, size in ((IMAGE, 2), (MASK, 1)):
        with (making / name).open("ab") as file:
            file.truncate(plan.bytes // BYTES_A_PIXEL * size)
    work = partial(_write_case, making, cases, prepare, plan)
    for _ in parallel_map(work, todo, label="preparing"):
        pass
    spacings = [json.loads((marks / f"{k}.json").read_text()) for k in range(len(cases))]
    np.savez(
        making / INDEX,
        case=np.repeat(np.arange(len(cases)), plan.slices),
        slice=np.concatenate([np.arange(n) for n in plan.slices]),
        spacing=np.repeat(np.asarray(spacings, dtype=np.float32), plan.slices, axis=0),
        matrix=np.asarray(plan.matrix),
    )
    facts = dict(about) | {"cases": len(cases), "slices": sum(plan.slices)}
    (making / ABOUT).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(marks)
    making.rename(folder)


def _write_case(
    making: Path,
    cases: Sequence[Case],
    prepare: Callable[[Case], PreparedCase],
    plan: Plan,
    k: int,
) -> None:
    """Prepare case k, write it into its place and leave its mark."""
    prepared = prepare(cases[k])
    if len(prepared.image) != plan.slices[k]:
        raise UserError(
            f"has {len(prepared.image)} slices, its header promised {plan.slices[k]}",
            where=str(cases[k].image[0]),
            fix="copy the file again from its source",
        )
    place = plan.starts[k] * plan.matrix[0] * plan.matrix[1]
    for name, array in ((IMAGE, prepared.image.astype(np.float16)), (MASK, prepared.mask)):
        with (making / name).open("r+b") as file:
            file.seek(place * array.itemsize)
            file.write(array.tobytes())
    temporary = making / "done" / f".{k}"
    temporary.write_text(json.dumps(prepared.spacing))
    temporary.rename(making / "done" / f"{k}.json")


def _forecast(folder: Path, plan: Plan, share: float, *, resumed: bool) -> None:
    """Say how large the store will be, and refuse when the disk is too small for it."""
    needed, free = int(plan.bytes * share), shutil.disk_usage(folder.parent).free
    if needed > 0.98 * free:
        raise UserError(
            f"the prepared store needs {gigabytes(needed)}, {gigabytes(free)} are free",
            where=str(folder.parent),
            fix="see `cardiac-mtl cache list`, or give another disk with --data.cache_dir",
            code="disk_full",
        )
    notice(
        "store_forecast",
        folder,
        f"{'going on with' if resumed else 'preparing'} {sum(plan.slices)} slices, "
        f"{gigabytes(plan.bytes)}; {gigabytes(free)} are free",
        "note",
    )


def gigabytes(count: float) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


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
        self.folder = folder
        self._maps = [_map(folder / name) for name in (IMAGE, MASK)]
        shape = (len(self.case), *map(int, matrix))
        self.image = np.frombuffer(self._maps[0], np.float16).reshape(shape)
        self.mask = np.frombuffer(self._maps[1], np.int8).reshape(shape)
        self._resident = 0

    def __reduce__(self) -> tuple[object, ...]:
        """Let another process open it for itself."""
        return PreparedStore, (self.folder,)

    def slices_of(self, cases: Sequence[int]) -> NDArray[np.intp]:
        """Return the positions of all slices of some rows of the case table."""
        return np.flatnonzero(np.isin(self.case, np.asarray(cases, dtype=self.case.dtype)))

    def gather(self, positions: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return float32 images (B, H, W) and int8 masks (B, H, W) of some slices, as copies."""
        image, mask = self.image[positions], self.mask[positions]
        self._resident += image.nbytes + mask.nbytes
        if self._resident > RESIDENT_BYTES:
            self._let_go()
        return torch.from_numpy(image).float(), torch.from_numpy(mask)

    def _let_go(self) -> None:
        """Give mapped pages back, so that a store larger than memory can be read in any order."""
        self._resident = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
        """Return a whole batch by one gather from each array.

        The mask is int8 here, an eighth of the bytes on the way to the device; the data module
        widens it there.
        """
        positions = self.positions[np.asarray(indices)]
        image, mask = self.store.gather(positions)
        case = torch.from_numpy(self.store.case[positions])
        return {
            "image": image[:, None],
            "mask": mask,
            "spacing": torch.from_numpy(self.store.spacing[positions]),
            "case": case,
            "slice": torch.from_numpy(self.store.slice[positions]),
            "indices": torch.full((len(positions), self.num_indices), torch.nan),
            "label": self.label[case],
            "sample": torch.as_tensor(indices),
        }


def unannotated_like(image: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return a mask that says nothing about a prepared image (S, H, W)."""
    return np.full(image.shape, UNLABELLED, dtype=np.int8)
