"""Slices in any order, from any batch, back to whole volumes."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiac_mtl.contracts import UNLABELLED, Batch, Prediction


@dataclass(frozen=True)
class CollectedCase:
    """One volume with all that was predicted of it, on the prepared grid."""

    row: int
    """Row of the case table."""
    slices: NDArray[np.int64]
    """(S,), base to apex."""
    image: NDArray[np.float32]
    """(S, H, W), the first channel, and of a cine the first phase."""
    reference: NDArray[np.int8]
    """(S, H, W), -1 where a slice is not annotated."""
    predicted: NDArray[np.uint8] | None
    """(S, H, W), None when the paper predicts no mask."""
    spacing: tuple[float, float, float]
    """Distance between slices, rows and columns in mm."""
    indices: NDArray[np.float32] | None
    """(S, K), predicted, None when the paper predicts none."""
    reference_indices: NDArray[np.float32]
    """(S, K), NaN where missing."""
    label: int = UNLABELLED
    """True class."""
    label_prob: NDArray[np.float32] | None = None
    """(S, K), predicted for each class, None when the paper predicts none."""
    frames: NDArray[np.float16] | None = None
    """(T, S, H, W), all phases of a cine; None where a case is one phase."""
    probability: NDArray[np.float32] | None = None
    """(S, H, W), of the first class after the background; None unless it was asked for."""

    def within(self, rows: slice, columns: slice) -> "CollectedCase":
        """Return what lies in a part of the grid."""
        names = ("image", "reference", "predicted", "frames", "probability")
        arrays = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: a[..., rows, columns] for name, a in arrays.items() if a is not None}
        )


class _Slice(NamedTuple):
    image: NDArray[np.float16]
    reference: NDArray[np.int8]
    predicted: NDArray[np.uint8] | None
    spacing: tuple[float, float, float]
    indices: NDArray[np.float32] | None
    reference_indices: NDArray[np.float32]
    label: int
    label_prob: NDArray[np.float32] | None
    frames: NDArray[np.float16] | None
    probability: NDArray[np.float32] | None


class CaseCollector:
    """Gathers predictions by case. A slice that comes twice counts once (P4).

    Args:
        probabilities: keep the probability of each pixel too, of the first class.
    """

    def __init__(self, probabilities: bool = False) -> None:
        self._probabilities = probabilities
        self._cases: dict[int, dict[int, _Slice]] = defaultdict(dict)

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Add one batch, on any device."""
        image = _numpy(batch["image"][:, 0], torch.float16)
        cine = image.ndim == 4
        reference = _numpy(batch["mask"], torch.int8)
        spacing = _numpy(batch["spacing"], torch.float32).tolist()
        targets = _numpy(batch["indices"], torch.float32)
        labels = batch["label"].tolist()
        mask = indices = classes = probability = None
        if "mask_prob" in prediction:
            mask = _numpy(prediction["mask_prob"].argmax(1), torch.uint8)
            if self._probabilities:
                probability = _numpy(prediction["mask_prob"][:, 1], torch.float32)
        if "indices" in prediction:
            indices = _numpy(prediction["indices"], torch.float32)
        if "label_prob" in prediction:
            classes = _numpy(prediction["label_prob"], torch.float32)
        places = zip(batch["case"].tolist(), batch["slice"].tolist(), strict=True)
        for k, (case, number) in enumerate(places):
            self._cases[case][number] = _Slice(
                image[k, 0] if cine else image[k],
                reference[k],
                None if mask is None else mask[k],
                tuple(spacing[k]),
                None if indices is None else indices[k],
                targets[k],
                labels[k],
                None if classes is None else classes[k],
                image[k] if cine else None,
                None if probability is None else probability[k],
            )

    def cases(self) -> Iterator[CollectedCase]:
        """Return the volumes in the order of the case table, slices base to apex."""
        for row, by_number in sorted(self._cases.items()):
            numbers = sorted(by_number)
            slices = [by_number[number] for number in numbers]
            yield CollectedCase(
                row=row,
                slices=np.asarray(numbers),
                image=np.stack([s.image for s in slices]).astype(np.float32),
                reference=np.stack([s.reference for s in slices]),
                predicted=_stack([s.predicted for s in slices]),
                spacing=slices[0].spacing,
                indices=_stack([s.indices for s in slices]),
                reference_indices=np.stack([s.reference_indices for s in slices]),
                label=slices[0].label,
                label_prob=_stack([s.label_prob for s in slices]),
                frames=_stack([s.frames for s in slices], axis=1),
                probability=_stack([s.probability for s in slices]),
            )


def _numpy(tensor: Tensor, dtype: torch.dtype) -> NDArray:  # type: ignore[type-arg]
    return tensor.detach().to("cpu", dtype).numpy()


def _stack(arrays: list, axis: int = 0) -> NDArray | None:  # type: ignore[type-arg]
    return None if arrays[0] is None else np.stack(arrays, axis)
