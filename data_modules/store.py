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
from typing import Any, cast

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

VERSION = 4
"""Part of every key: raise it when the preparation changes."""

IMAGE, MASK, INDEX, ABOUT = "image.float16", "mask.int8", "index.npz", "about.json"
RESIDENT_BYTES = 64 << 20
"""How much of the arrays may stay in the memory of the process: what is beyond goes back to the
page cache of the system, from where the next batch has it at once."""


@dataclass(frozen=True)
class PreparedCase:
    """One volume, or one cine, on the prepared grid."""

    image: NDArray[np.float32]
    """(S, H, W), or (S, T, H, W) of a cine."""
    mask: NDArray[np.int8]
    """(S, H, W), `UNLABELLED` where not annotated."""
    spacing: tuple[float, float, float]
    """Distance between slices, rows and columns in mm."""
    origin: tuple[float, ...] = ()
    """Of a cine: row and column of the first pixel of the grid, in mm from that of the file."""


@dataclass(frozen=True)
class Plan:
    """What a store will hold, known before anything is read."""

    slices: tuple[int, ...]
    """Of each case."""
    matrix: tuple[int, int]
    frames: int | None = None
    """T of a cine; None where the images have no temporal axis."""

    @property
    def starts(self) -> list[int]:
        """Return the first slice of each case within the arrays."""
        return [0, *accumulate(self.slices)][:-1]

    @property
    def slice_bytes(self) -> dict[str, int]:
        """Return the size of one slice in each array."""
        pixels = self.matrix[0] * self.matrix[1]
        return {IMAGE: 2 * pixels * (self.frames or 1), MASK: pixels}

    @property
    def bytes(self) -> int:
        """Return the size of the arrays."""
        return sum(self.slices) * sum(self.slice_bytes.values())


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

    Raises:
        UserError: two patients have one image, so that training might see those of the test part.
    """
    files = [(*case.image, *case.mask, *case.myocardium, *case.source) for case in cases]
    known = iter(digests([file for of_case in files for file in of_case if file], cache))
    content = [
        [
            case.frame,
            [next(known) for _ in case.image],
            [p and next(known) for p in case.mask],
            # nothing where there is none: the keys of data sets without it stay what they were
            *[next(known) for _ in (*case.myocardium, *case.source)],
            *([] if case.crop is None else [case.crop]),
        ]
        for case in cases
    ]
    _refuse_copies(cases, [json.dumps(of_case[:2]) for of_case in content])
    described = json.dumps([VERSION, dict(settings), content], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _refuse_copies(cases: Sequence[Case], images: Sequence[str]) -> None:
    owners: dict[str, Case] = {}
    for case, image in zip(cases, images, strict=True):
        first = owners.setdefault(image, case)
        if first.patient_id != case.patient_id:
            raise UserError(
                f"is a copy of the image of {first.case_id}, of patient {first.patient_id}",
                where=str(case.image[0]),
                fix="keep one of the two, or give both one patient_id",
                code="same_image",
            )


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
    for name, size in plan.slice_bytes.items():
        with (making / name).open("ab") as file:
            file.truncate(sum(plan.slices) * size)
    work = partial(_write_case, making, cases, prepare, plan)
    for _ in parallel_map(work, todo, label="preparing"):
        pass
    marked = [json.loads((marks / f"{k}.json").read_text()) for k in range(len(cases))]
    measures = np.repeat(np.asarray(marked, dtype=np.float32), plan.slices, axis=0)
    index: dict[str, Any] = {
        "case": np.repeat(np.arange(len(cases)), plan.slices),
        "slice": np.concatenate([np.arange(n) for n in plan.slices]),
        "spacing": measures[:, :3],
        "matrix": np.asarray(plan.matrix),
    }
    if plan.frames is not None:
        index |= {"frames": np.asarray(plan.frames), "origin": measures[:, 3:]}
    np.savez(making / INDEX, **index)
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
    for name, array in ((IMAGE, prepared.image.astype(np.float16)), (MASK, prepared.mask)):
        with (making / name).open("r+b") as file:
            file.seek(plan.starts[k] * plan.slice_bytes[name])
            file.write(array.tobytes())
    temporary = making / "done" / f".{k}"
    temporary.write_text(json.dumps([*prepared.spacing, *prepared.origin]))
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
            frames = [int(index["frames"])] if "frames" in index else []
            self.origin = index["origin"] if "origin" in index else np.zeros((len(self.case), 2))
        self.folder = folder
        self._maps = [_map(folder / name) for name in (IMAGE, MASK)]
        count, grid = len(self.case), [int(n) for n in matrix]
        self.image = np.frombuffer(self._maps[0], np.float16).reshape(count, *frames, *grid)
        self.mask = np.frombuffer(self._maps[1], np.int8).reshape(count, *grid)
        self._resident = 0

    def __reduce__(self) -> tuple[object, ...]:
        """Let another process open it for itself."""
        return PreparedStore, (self.folder,)

    def slices_of(self, cases: Sequence[int]) -> NDArray[np.intp]:
        """Return the positions of all slices of some rows of the case table."""
        return np.flatnonzero(np.isin(self.case, np.asarray(cases, dtype=self.case.dtype)))

    def gather(self, positions: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return copies of some slices.

        Returns:
            float32 images (B, H, W), or (B, T, H, W) of a cine, and int8 masks (B, H, W).
        """
        image, mask = self.read(positions)
        return image.float(), mask

    def read(self, positions: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Do as `gather`, with float16 images as on disk."""
        image, mask = self.image[positions], self.mask[positions]
        self._resident += image.nbytes + mask.nbytes
        if self._resident > RESIDENT_BYTES:
            self._let_go()
        return torch.from_numpy(image), torch.from_numpy(mask)

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
        positions: (N,), slices of this part; one that an epoch holds twice comes twice.
        indices: float32 (slices, K), of each slice of the store, NaN where the data module
            computes them of the mask of the batch.
        label: (cases,), label of each row of the case table.
        transferred: bool (cases,), whose mask was carried over from another sequence.
        resident: leave images and masks out, as they are on the device; their `position` is given.
    """

    def __init__(
        self,
        store: PreparedStore,
        positions: NDArray[np.intp],
        indices: Tensor,
        label: Tensor,
        transferred: Tensor,
        *,
        resident: bool = False,
    ) -> None:
        self.store = store
        self.positions = positions
        self.indices = indices
        self.label = label
        self.transferred = transferred
        self.resident = resident

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
        case, places = torch.from_numpy(self.store.case[positions]), torch.from_numpy(positions)
        batch = {
            "spacing": torch.from_numpy(self.store.spacing[positions]),
            "case": case,
            "slice": torch.from_numpy(self.store.slice[positions]),
            "indices": self.indices[places],
            "label": self.label[case],
            "transferred": self.transferred[case],
            "sample": torch.as_tensor(indices),
        }
        if self.resident:
            batch["position"] = places
        else:
            image, batch["mask"] = self.store.gather(positions)
            batch["image"] = image[:, None]
        return cast("Batch", batch)


def unannotated_like(image: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return a mask that says nothing about a prepared image (S, H, W)."""
    return np.full(image.shape, UNLABELLED, dtype=np.int8)
