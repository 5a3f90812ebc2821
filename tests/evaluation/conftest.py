"""Two tiny volumes as a paper would hand them over."""

import numpy as np
import pandas as pd
import pytest
import torch

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.evaluation.collect import CollectedCase


@pytest.fixture
def make_batch():
    """Return a maker of batches whose prediction is the reference moved by some columns."""
    return _make_batch


def _make_batch(case=0, slices=(0, 1, 2), size=12, shift=0):
    mask = torch.zeros(len(slices), size, size, dtype=torch.int64)
    mask[:, 3:9, 3:8] = 1
    found = torch.roll(mask, shift, dims=2)
    batch = {
        "image": torch.randn(len(slices), 1, size, size),
        "mask": mask,
        "spacing": torch.tensor([[8.0, 1.5, 2.0]]).repeat(len(slices), 1),
        "case": torch.full((len(slices),), case),
        "slice": torch.tensor(slices),
        "indices": mask.sum((1, 2))[:, None] * 3.0,
        "label": torch.full((len(slices),), UNLABELLED),
        "transferred": torch.zeros(len(slices), dtype=torch.bool),
    }
    prob = torch.stack([1.0 - found, found.float()], dim=1)
    return batch, {"mask_prob": prob, "indices": batch["indices"] + 10.0}


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "case_id": ["a_ph00", "a_ph01", "b_ph00"],
            "patient_id": ["a", "a", "b"],
            "phase": ["0", "1", "0"],
            "pathology": ["normal"] * 3,
            "centre": [""] * 3,
            "vendor": [""] * 3,
        }
    )


@pytest.fixture
def make_volume():
    """Return a maker of collected cases, 10 mm slices of 1 mm pixels."""
    return _make_volume


def _make_volume(reference, predicted=None):
    return CollectedCase(
        row=0,
        slices=np.arange(len(reference)),
        image=np.zeros(reference.shape, np.float32),
        reference=reference,
        predicted=None if predicted is None else predicted.astype(np.uint8),
        spacing=(10.0, 1.0, 1.0),
        indices=None,
        reference_indices=np.zeros((len(reference), 0), np.float32),
    )
