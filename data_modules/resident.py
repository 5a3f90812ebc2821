"""The prepared store in the memory of the device that trains: a batch then carries places alone."""

import numpy as np
import torch
from torch import Tensor

from cardiac_mtl.errors import UserError
from data_modules.findings import notice
from data_modules.store import PreparedStore, gigabytes

SHARE = 0.25
"""Of the free memory of a device, what the store may take unasked; the rest is for the network."""
_AT_ONCE = 256
"""Slices that are copied at once, so that the host never holds the whole store."""


class ResidentStore:
    """Images and masks of a store on a device, as small as on disk.

    Args:
        store: to copy.
        device: that gets a copy of its own.
    """

    def __init__(self, store: PreparedStore, device: torch.device) -> None:
        self.image = torch.empty(store.image.shape, dtype=torch.float16, device=device)
        self.mask = torch.empty(store.mask.shape, dtype=torch.int8, device=device)
        for first in range(0, len(self.image), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            image, mask = store.read(np.arange(len(self.image))[part])
            self.image[part], self.mask[part] = image, mask

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of some slices, bit for bit those of `PreparedStore.gather`.

        Args:
            positions: int64 (B,), on the device.
        """
        return self.image[positions].float(), self.mask[positions]


def free_bytes(device: torch.device) -> int:
    """Return the free memory of an accelerator; 0 of a CPU, or where the device does not tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def settle(
    store: PreparedStore, device: torch.device, *, wanted: bool | None
) -> ResidentStore | None:
    """Copy a store to a device where it fits, and say so in one line.

    Args:
        store: to copy.
        device: that trains.
        wanted: or not, whatever its share of the free memory; None to go by that, which leaves it
            on disk for a CPU.

    Raises:
        UserError: it is wanted, and larger than the free memory.
    """
    needed, free = store.image.nbytes + store.mask.nbytes, free_bytes(device)
    if wanted and 0 < free < needed:
        raise UserError(
            f"the prepared store takes {gigabytes(needed)}, {gigabytes(free)} are free on {device}",
            where="data.resident",
            fix="leave it out, and batches are read from disk",
            code="device_full",
        )
    stays = needed <= SHARE * free if wanted is None else wanted
    if free and wanted is not False:
        what = "is copied to" if stays else f"stays on disk: it is over {SHARE:.0%} of"
        room = f"{device}, where {gigabytes(free)} are free"
        notice("resident", store.folder, f"{gigabytes(needed)}, {what} {room}", "note")
    return ResidentStore(store, device) if stays else None
