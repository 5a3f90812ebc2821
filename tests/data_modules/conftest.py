"""Folders of cine with infarcts and of MS-CMRSeg: what reads them, and what spoils them."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest
import torch

from data_modules.cine import CineDataModule, write_layout
from data_modules.mscmr import MSCMRDataModule

ROWS, COLUMNS, PHASES = 48, 40, 6
STEP = (1.6, 1.4)  # rows, columns
CENTRE = (19.0, 24.0)


@pytest.fixture(scope="session")
def beating(make_study):
    """Return the maker of studies whose left ventricle beats off the centre of the image."""

    def make(name, seed=0, slices=3, infarcted=True, centre=CENTRE, noise=15.0, pathology="a"):
        study = make_study(name, PHASES, slices, (ROWS, COLUMNS))
        rng = np.random.default_rng(seed)
        y = (np.arange(ROWS) - centre[0])[:, None] * STEP[0]
        x = (np.arange(COLUMNS) - centre[1]) * STEP[1]
        radius = np.hypot(y, x)
        wall = 21.0 + seed % 3
        cavity = 13 + 3 * np.cos(2 * np.pi * np.arange(PHASES) / PHASES)[:, None, None]
        image = 60 + 190 * _within(radius, wall) + 400 * _within(radius, cavity)
        image = np.repeat(image[:, None], slices, axis=1) + rng.normal(0, noise, study.image.shape)
        inside = np.where(radius < cavity, 2, (radius < wall).astype(int))
        mask = np.broadcast_to(inside[:, None], study.mask.shape).astype(np.uint8)
        sector = np.abs(np.arctan2(-y, x) - np.deg2rad(20 * (seed + 1))) < 0.7
        infarct = (mask[0] == 1) & sector & infarcted
        infarct[0] = False  # the slice at the base is healthy
        return dataclasses.replace(
            study,
            image=image.clip(0, 4000).astype(np.uint16),
            mask=mask,
            infarct=infarct.astype(np.uint8),
            pathology=pathology,
        )

    return make


def _within(radius, edge):
    return 1 / (1 + np.exp((radius - edge) / 0.5))


@dataclasses.dataclass(frozen=True)
class CineFolder:
    """A folder of cine data."""

    root: Path

    def module(self, stage="fit", **settings):
        settings = {"num_folds": 4, "cache_dir": self.root.parent / "cache"} | settings
        data = CineDataModule(self.root, **settings)
        data.setup(stage)
        return data

    def rewrite(self, name, change=lambda v: v, affine=None):
        path = self.root / f"{name}.nii.gz"
        old = nib.load(path)
        nib.Nifti1Image(
            change(np.asanyarray(old.dataobj)), old.affine if affine is None else affine
        ).to_filename(path)

    def edit(self, change):
        table = self.root / "cases.csv"
        rows = [line.split(",") for line in table.read_text().splitlines()]
        table.write_text("\n".join(",".join(row) for row in change(rows)) + "\n")

    def one_slice(self, **columns):
        """Leave one infarcted slice of each image, and add columns for the first patient."""
        for path in self.root.glob("*.nii.gz"):
            self.rewrite(path.name.removesuffix(".nii.gz"), lambda v: v[:, :, 1:2])
        self.edit(
            lambda rows: [
                rows[0] + [*columns],
                rows[1] + [*columns.values()],
                *(r + [""] * len(columns) for r in rows[2:]),
            ],
        )

    def folds(self, train, val=(), test=()):
        path = self.root / "folds.json"
        path.write_text(json.dumps([{"train": train, "val": [*val], "test": [*test]}]))
        return path


@pytest.fixture(scope="session")
def cine_folder():
    """Return what makes a folder one of cine data."""
    return CineFolder


@pytest.fixture(scope="session")
def clean_cine(tmp_path_factory, beating):
    """Eight patients, to be left alone."""
    root = tmp_path_factory.mktemp("cine") / "clean"
    write_layout(root, [beating(f"p{n}", n) for n in range(8)])
    return CineFolder(root)


@pytest.fixture
def cine(tmp_path, beating):
    """Four patients, to be spoiled."""
    write_layout(tmp_path / "cine", [beating(f"p{n}", n) for n in range(4)])
    return CineFolder(tmp_path / "cine")


@dataclasses.dataclass(frozen=True)
class MSCMRFolder:
    """A folder of MS-CMRSeg, of volumes over a field of 60 mm and 40 mm along the slices."""

    root: Path
    field_mm: ClassVar = 60.0
    values: ClassVar = np.array([0, 500, 200, 600])
    sizes: ClassVar = {"LGE": (5, 40, 44), "C0": (4, 30, 33), "T2": (3, 36, 36)}

    def write(self, name, array, shift_mm=0.0):
        """Write (S, H, W)."""
        slices, rows, columns = array.shape
        affine = np.diag([self.field_mm / columns, self.field_mm / rows, 40 / slices, 1.0])
        affine[:3, 3] = affine.diagonal()[:3] / 2
        affine[2, 3] += shift_mm
        path = self.root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.nifti1.Nifti1Image(array.T, affine).to_filename(path)

    def heart(self, shape, slices):
        """Rings about the middle: 1 LV, 2 myocardium, 3 RV; nothing on the first slice."""
        rows, columns = (((np.arange(n) + 0.5) / n - 0.5) * self.field_mm for n in shape)
        radius = np.hypot(rows[:, None], columns)
        beside = np.hypot(rows[:, None], columns - 11) < 4
        mask = np.where(radius < 4, 1, np.where(radius < 7, 2, np.where(beside, 3, 0)))
        stack = np.repeat(mask[None], slices, axis=0)
        stack[0] = 0
        return stack.astype(np.int16)

    def module(self, **settings):
        cache = self.root.parent / "cache"
        given = {"matrix": (32, 32), "cache_dir": cache, "batch_size": 4} | settings
        return MSCMRDataModule(self.root, **given)

    def fitted(self, **settings):
        data = self.module(**settings)
        data.setup("fit")
        return data


@pytest.fixture(scope="session")
def mscmr_folder():
    """Return what makes a folder one of MS-CMRSeg."""
    return MSCMRFolder


@pytest.fixture
def make_mscmr(tmp_path):
    """Write patients 1 to `own` with an LGE mask, `helped` more with others, and `bare` without."""

    def cohort(own=3, helped=4, bare=1, withheld=(), shift_mm=None):
        folder = MSCMRFolder(tmp_path / "mscmr")
        for number in range(1, own + helped + bare + 1):
            rng = np.random.default_rng(number)
            for sequence, (slices, *shape) in folder.sizes.items():
                mask = folder.heart(shape, slices)
                name = f"patient{number}_{sequence}"
                image = (rng.integers(20, 90, mask.shape) + 100 * mask).astype(np.int16)
                apart = (shift_mm or {}).get(name, 0.0)
                folder.write(name, image, apart)
                masked = number <= own if sequence == "LGE" else number <= own + helped
                if masked:
                    labels = folder.values[mask].astype(np.int16)
                    folder.write(f"{name}_manual", labels, apart)
                elif sequence == "LGE" and number in withheld:
                    # of one pixel, so that it is told from every other mask
                    one = np.zeros_like(mask)
                    one[1, 20, 20] = 600
                    folder.write(f"withheld/{name}_manual", one)
        return folder

    return cohort


@pytest.fixture(scope="session")
def read_samples():
    """Return the reader of a loader: case ids of its samples, masks, which were carried over."""

    def read(data, loader):
        batches = list(loader)
        rows = torch.cat([batch["case"] for batch in batches]).tolist()
        masks = torch.cat([batch["mask"] for batch in batches])
        ids = [data.cases[row].case_id for row in rows]
        return ids, masks, torch.cat([batch["transferred"] for batch in batches])

    return read
