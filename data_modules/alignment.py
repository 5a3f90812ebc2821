"""Aligning two sequences of one patient, who breathed in between: affine, then B-spline."""

from pathlib import Path
from typing import Final, NamedTuple

import SimpleITK as sitk

from data_modules.findings import notice

MARGIN_MM: Final = 20.0
"""Around the heart: more than a breath-hold shifts it."""
GRID_MM: Final = 2.0
"""In-plane spacing at which images are compared, unless they are coarser."""
CONTROL_MM: Final = 50.0
"""Between control points of the B-spline, which bends a heart and never a wall alone."""


class _Fixed(NamedTuple):
    """The target around the heart, as it is compared."""

    image: sitk.Image
    inside: sitk.Image
    """Not 0 where voxels are compared."""


def aligned(
    source: sitk.Image, target: sitk.Image, mask: sitk.Image, case: str = "mask"
) -> sitk.Transform:
    """Find where in the source each point of the target lies.

    By mutual information of all voxels around the heart: without chance, in one thread, and so the
    same every time.

    Args:
        source: image of one sequence.
        target: image of another, whose header places it over the heart of the source.
        mask: on the grid of the source, above 0 in the heart.
        case: names the pair in a notice.

    Returns:
        From points of the target to points of the source in mm; the identity, with a `notice`,
        where that did not make the images more alike.
    """
    still = sitk.Transform(3, sitk.sitkIdentity)
    try:
        fixed, moving = _around_heart(target, mask), sitk.Cast(source, sitk.sitkFloat32)
        found = _bent(fixed, moving, _affine(fixed, moving))
        before, after = (
            _comparison(fixed, transform).MetricEvaluate(fixed.image, moving)
            for transform in (still, found)
        )
    except RuntimeError as error:  # of ITK: no voxels to compare, a matrix without inverse
        why = str(error).strip().splitlines()[-1]
    else:
        if after < before:
            return found
        why = f"mutual information fell from {-before:.3f} to {-after:.3f}"
    notice("registration", Path(case), f"not aligned, placed by the headers instead: {why}")
    return still


def _around_heart(target: sitk.Image, mask: sitk.Image) -> _Fixed:
    """Cut the target to the heart and what is near it, and coarsen it in plane."""
    away = sitk.SignedMaurerDistanceMap(mask > 0, squaredDistance=False, useImageSpacing=True)
    near = sitk.Resample(away < MARGIN_MM, target, sitk.Transform(), sitk.sitkNearestNeighbor)
    found = sitk.LabelShapeStatisticsImageFilter()
    found.Execute(near)
    box = found.GetBoundingBox(1)
    factors = [max(1, int(GRID_MM / mm)) for mm in target.GetSpacing()[:2]]
    cut = sitk.RegionOfInterest(target, box[3:], box[:3])
    image = sitk.BinShrink(sitk.Cast(cut, sitk.sitkFloat32), [*factors, 1])
    return _Fixed(image, sitk.Resample(near, image, sitk.Transform(), sitk.sitkNearestNeighbor))


def _comparison(fixed: _Fixed, start: sitk.Transform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricFixedMask(fixed.inside)
    # else ITK blurs images by their largest spacing, that between slices, to find gradients
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(start, inPlace=False)
    return method


def _affine(fixed: _Fixed, moving: sitk.Image) -> sitk.Transform:
    start = sitk.AffineTransform(3)
    start.SetCenter(
        fixed.image.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in fixed.image.GetSize()]
        )
    )
    method = _comparison(fixed, start)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.05, numberOfIterations=60, relaxationFactor=0.5
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method.Execute(fixed.image, moving)


def _bent(fixed: _Fixed, moving: sitk.Image, affine: sitk.Transform) -> sitk.Transform:
    extent = [n * mm for n, mm in zip(fixed.image.GetSize(), fixed.image.GetSpacing(), strict=True)]
    mesh = [max(1, round(mm / CONTROL_MM)) for mm in extent]
    method = _comparison(fixed, sitk.BSplineTransformInitializer(fixed.image, mesh))
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(numberOfIterations=20)
    bend = method.Execute(fixed.image, moving)
    return sitk.CompositeTransform([affine, bend])
