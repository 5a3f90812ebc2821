"""A trained run that predicts images of any origin, in the geometry of their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from cardiac_mtl.catalogue import read_yaml
from cardiac_mtl.configuration import build
from cardiac_mtl.contracts import OPTIMISTIC, UNLABELLED, Prediction, label_of_area
from cardiac_mtl.errors import UserError
from cardiac_mtl.evaluation.calls import threshold_of
from cardiac_mtl.evaluation.rows import Row
from cardiac_mtl.metrics.shape import INDEX_NAMES, infarct_indices
from cardiac_mtl.papers.base import Paper
from cardiac_mtl.report.pictures.gallery import grey
from cardiac_mtl.report.pictures.loops import Frame, write_loop
from cardiac_mtl.runs import BEST, CONFIG, load_weights, read_checkpoint, read_identity
from cardiac_mtl.training.precision import as_trained
from data_modules.cases import Case, name_of_cine
from data_modules.examination import image_findings
from data_modules.findings import notice
from data_modules.geometry import PreparedInput, cut_slices, first_pixel, restore, turn_against
from data_modules.masks import write_mask

SLICES_AT_ONCE = 16
LIKE = 1.25
"""Factor within which pixels are as large as those of the training."""
USUAL_TURN_DEG = 60.0
"""By which short axes of patients lie turned against each other, at most, and augmentation more."""
AHEAD = np.float32(1e-3)
"""By which what is kept is more probable than what was likeliest beside it, at least: `test` scores
what is kept, and rounding must not turn a tie."""


def mask_name(phases: Sequence[Case]) -> str:
    """Return the name of the file that holds the mask of one volume, or of all phases of a file."""
    return f"{name_of(phases)}_mask.nii.gz"


def name_of(phases: Sequence[Case]) -> str:
    """Return the name of one volume, or of the cine whose phases one file holds."""
    first = phases[0]
    return first.case_id if len(phases) == 1 else name_of_cine(first.case_id)


class Predictor:
    """A trained paper with the preparation and the precision that it was trained with.

    Args:
        run_directory: gives the configuration.
        checkpoint: gives the weights.
        device: `auto`, or a device of torch.
    """

    def __init__(self, run_directory: Path, checkpoint: Path, device: str = "auto") -> None:
        weights = read_checkpoint(checkpoint)
        self.paper, self.data = build(read_yaml(run_directory / CONFIG))
        load_weights(self.paper, weights, checkpoint)
        self.device = _device(device)
        self.paper.to(self.device).eval()
        identity = read_identity(run_directory)
        if checkpoint.resolve() != (run_directory / BEST).resolve():
            identity.pop("threshold", None)  # `test` chose it for the probabilities of the best
        self.threshold = threshold_of(identity)
        self.pixels_mm = identity.get("pixels_mm")
        """Shortest and longest side that was trained on; None for runs that did not keep it."""
        self.axes_lps = identity.get("axes_lps")
        """How the images of the training lie in the body; None where that is not known."""
        self.caveats = _caveats(identity, self.paper)
        self.context = as_trained(identity.get("precision"), self.device)

    def predict_file(self, source: Path, phases: Sequence[Case], output: Path) -> list[Row]:
        """Write the mask of one file, of all its phases where it is 4-D.

        Args:
            source: first file of the volume; it gives the geometry.
            phases: one case, or all phases of a 4-D file.
            output: folder, which exists.

        Returns:
            One row a slice: probability of each class, regressed indices, and those of the mask.
        """
        rows: list[Row] = []
        masks = []
        cut: set[int] = set()
        for case in phases:
            prepared = self.data.prepare_input(case)
            self._notice_odd(case, prepared)
            prediction = self._predict(prepared.image, str(case.image[0]))
            columns = self._columns(prediction, prepared)
            if "mask_prob" in prediction:
                probability = prediction["mask_prob"].numpy()
                kept = self.paper.postprocess(probability.argmax(1).astype(np.uint8))
                masks.append(self._mask(probability, kept, prepared))
                cut.update(cut_slices(kept, prepared.volume, prepared.spacing, prepared.centre))
                if prepared.image.ndim == 4:
                    _write_cine(output, case.case_id, prepared.image, kept)
                columns |= _measured(masks[-1], self.data.index_names, self.paper.label_names)
            rows += [
                {"case_id": case.case_id, "slice": k, **{n: v[k] for n, v in columns.items()}}
                for k in range(len(prepared.image))
            ]
        if cut:
            height, width = (
                n * mm for n, mm in zip(self.data.matrix, prepared.spacing, strict=True)
            )
            what = f"the mask of slices {sorted(cut)} ends where the network's view does"
            how = (
                "what lies beyond is not segmented; look at it, or crop the image around the heart"
            )
            notice("crop_cuts", source, f"{what}, {height:.0f} x {width:.0f} mm: {how}")
        if masks:
            write_mask(output / mask_name(phases), masks, like=source)
        return rows

    def _notice_odd(self, case: Case, prepared: PreparedInput) -> None:
        """Say why what is predicted of an image should not be trusted."""
        volume = prepared.volume
        for finding in image_findings(sitk.GetArrayViewFromImage(volume), volume, case):
            notice(finding.code, case.image[0], finding.message)
        if self.pixels_mm is not None:
            shortest, longest = self.pixels_mm
            row_mm, column_mm = sides = prepared.spacing
            if min(sides) * LIKE < shortest or max(sides) > longest * LIKE:
                what = f"the network sees pixels of {row_mm:.3g} x {column_mm:.3g} mm"
                known = f"was trained on sides of {shortest:.3g} to {longest:.3g} mm"
                how = "hearts have another size than any it knows; resample the image"
                notice("pixel_size", case.image[0], f"{what} and {known}: {how}")
        if self.axes_lps is not None and (lies := self._turned(volume, np.asarray(self.axes_lps))):
            how = "convert it as they were"
            notice(
                "turned", case.image[0], f"is {lies} as against the images of the training; {how}"
            )

    def _turned(self, volume: sitk.Image, axes: NDArray[np.float64]) -> str:
        """Say how an image lies otherwise than any that the network was trained on, if it does."""
        seen = self.data.augmentation
        found = turn_against(volume, axes)
        if found is None:
            return ""
        mirrored, degrees = found
        if mirrored:
            return "" if seen.flip and seen.probability else "mirrored"
        most = USUAL_TURN_DEG + (seen.rotation_deg if seen.probability else 0)
        return f"turned by {degrees:.0f} degrees" if degrees > most else ""

    @torch.inference_mode()
    def _predict(self, prepared: NDArray[np.float32], where: str = "") -> Prediction:
        """Predict (S, [T,] H, W) and return the whole volume on the CPU.

        Args:
            prepared: the images.
            where: they come from, for the message.

        Raises:
            UserError: what comes out is not finite.
        """
        with self.context:
            parts = [
                self.paper.predict(self.paper(part[:, None].to(self.device)))
                for part in torch.from_numpy(prepared).split(SLICES_AT_ONCE)
            ]
        found = {
            key: torch.cat([part[key] for part in parts]).float().cpu()  # type: ignore[literal-required]
            for key in parts[0]
        }
        if not all(found[key].isfinite().all() for key in found if key != "indices"):
            # no number is above a threshold: all would be background, and healthy
            raise UserError(
                "the network gives values that are no numbers",
                where=where,
                fix="look at the image with `cardiac-mtl check`, or give another --checkpoint",
            )
        return found  # type: ignore[return-value]

    def _columns(self, prediction: Prediction, prepared: PreparedInput) -> dict[str, list[Any]]:
        """Return one column a predicted class and a regressed index, a value a slice.

        What a slice is called follows the threshold that `test` chose. The centroid is from the
        centre of the first pixel of the file, as one of its mask is.
        """
        classes: dict[str, list[Any]] = {}
        if "label_prob" in prediction:
            names, of_classes = self.paper.class_names, prediction["label_prob"].T
            for name, column in zip(names, of_classes, strict=True):
                classes[f"probability_{name}"] = column.tolist()
            classes["called"] = [names[int(p > self.threshold)] for p in of_classes[1].tolist()]
        if "indices" not in prediction:
            return classes
        columns = dict(zip(self.paper.index_names, prediction["indices"].T, strict=True))
        if prepared.centre is not None:
            corner = first_pixel(
                prepared.volume, self.data.matrix, prepared.spacing, prepared.centre
            )
            for name, shift in zip(("centroid_y_mm", "centroid_x_mm"), corner, strict=True):
                if name in columns:
                    columns[name] = columns[name] + shift
        return classes | {f"regressed_{name}": column.tolist() for name, column in columns.items()}

    def _mask(
        self, probability: NDArray[np.float32], kept: NDArray[np.uint8], prepared: PreparedInput
    ) -> sitk.Image:
        """Turn (S, K, H, W) on the prepared grid into classes on the grid of the volume.

        Args:
            probability: of each class.
            kept: (S, H, W), the classes that are left of it after postprocessing.
            prepared: what the volume was made into.
        """
        _, volume, spacing, centre = prepared
        held = _favouring(probability, kept)
        # a border lies where a class and the background are equally probable. Had neighbours of
        # other classes 0 in place of what they have, it would lie further in, in finer pixels
        over_background = [
            restore(held[:, k] - held[:, 0], volume, spacing, centre)
            for k in range(1, probability.shape[1])
        ]
        inside = np.max(over_background, axis=0) > 0
        stacked = np.where(inside, 1 + np.argmax(over_background, axis=0), 0)
        mask = sitk.GetImageFromArray(stacked.astype(np.uint8))
        mask.CopyInformation(volume)
        return mask


def _caveats(identity: Mapping[str, Any], paper: Paper) -> list[str]:
    """Return what is to be known of a run before anybody trusts what it predicts."""
    values = ", ".join(f"{k} {name}" for k, name in enumerate(paper.label_names, start=1))
    lines = [f"values of the masks: {values}"] if values else []
    classes = paper.class_names
    if identity.get("phantom"):
        lines.append("note: trained on phantom hearts: of patients its predictions mean nothing")
    if identity.get("protocol") == OPTIMISTIC:
        lines.append(
            "note: chosen on its test patients (paper protocol): its scores are optimistic"
        )
    if classes:
        rule = identity.get("threshold", {}).get("rule", "one half: `test` chose none for it")
        lines.append(
            f"called {classes[1]} above a probability of {threshold_of(identity):.4g}: {rule}"
        )
    return lines


def _favouring(probability: NDArray[np.float32], kept: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return probabilities (S, K, H, W) that are largest for the classes (S, H, W) that are kept.

    Where postprocessing put a class in place of the likeliest, the two change places.
    """
    likeliest, chosen = probability.argmax(1)[:, None], kept[:, None].astype(np.intp)
    most = np.take_along_axis(probability, likeliest, axis=1)
    held = probability.copy()
    np.put_along_axis(held, likeliest, np.take_along_axis(probability, chosen, axis=1), axis=1)
    np.put_along_axis(held, chosen, most + AHEAD, axis=1)
    return held


def _write_cine(
    output: Path, case_id: str, frames: NDArray[np.float32], mask: NDArray[np.uint8]
) -> None:
    """Write the loop of the slice (S, T, H, W) of which the mask (S, H, W) holds most."""
    k = int((mask > 0).sum(axis=(1, 2)).argmax())
    unknown = np.full_like(mask[k], UNLABELLED, dtype=np.int8)
    shown = [Frame(image, unknown, mask[k]) for image in grey(frames[k])]
    write_loop(output / f"{case_id}_loop.gif", shown, 1.0, f"{case_id}\nslice {k}")


def _measured(
    mask: sitk.Image, index_names: Sequence[str], labels: Sequence[str]
) -> dict[str, list[float]]:
    """Measure one label in every slice: what is regressed of it, or its area in mm2.

    The percentage asks for a myocardium, which nobody predicts.
    """
    column, row, _ = mask.GetSpacing()
    held = sitk.GetArrayViewFromImage(mask) == 1 + labels.index(label_of_area(labels))
    if tuple(index_names) != INDEX_NAMES:
        return {"segmented_area_mm2": (held.sum(axis=(1, 2)) * column * row).tolist()}
    values = infarct_indices(held, (row, column)).T.tolist()
    columns = {f"segmented_{n}": v for n, v in zip(INDEX_NAMES, values, strict=True)}
    del columns["segmented_segment_percent"]
    return columns


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{name!r} is not available here", where="--device", fix="choose auto or cpu"
        ) from error
