"""Aligning two sequences of one patient, who breathed in between: affine, then B-spline."""

from pathlib import Path
from typing import Final, NamedTuple

import SimpleITK as sitk

from data_modules.findings import notice

MARGIN_MM: Final = 20.0
"""Around the heart: more than a breath-hold shifts it."""
GRID_MM: Final = 2.0
"""In-plane spacing at which images are compared, unless they are coarser."""
MESH: Final = (2, 2, 1)
"""Cells of the B-spline along columns, rows and slices."""
BEND_MM: Final = 2.0
"""By which the B-spline moves a point along an axis, at most."""


class _Fixed(NamedTuple):
    """The target around the heart, as it is compared."""

    image: sitk.Image
    inside: sitk.Image
    """Not 0 where voxels are compared."""


def aligned(
    source: sitk.Image, target: sitk.Image, mask: sitk.Image, case: str = "mask"
) -> sitk.Transform:
    """Find where in the source each point of the target lies.

    By mutual information around the heart, from where the headers place it; in one thread and with
    one seed, and so the same every time.

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
        affine = _affine(fixed, moving)
        stages = [still, affine, _bent(fixed, moving, affine)]
        unlike = [_comparison(fixed, one).MetricEvaluate(fixed.image, moving) for one in stages]
    except RuntimeError as error:  # of ITK: no voxels to compare, a matrix without inverse
        why = str(error).strip().splitlines()[-1]
    else:
        best = min(range(len(stages)), key=unlike.__getitem__)
        if stages[best] is not still:
            return stages[best]
        why = f"mutual information fell from {-unlike[0]:.3f} to {-min(unlike[1:]):.3f}"
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
    """Return a method that compares all voxels near the heart, and begins with `start`."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricFixedMask(fixed.inside)
    method.SetMetricSamplingStrategy(method.NONE)
    # else ITK seeks gradients in images blurred by their largest spacing, that between slices
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(start, inPlace=False)
    return method


def _affine(fixed: _Fixed, moving: sitk.Image) -> sitk.Transform:
    start, last = sitk.AffineTransform(3), [n - 1 for n in fixed.image.GetSize()]
    start.SetCenter(fixed.image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in last]))
    method = _comparison(fixed, start)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.05, numberOfIterations=60
    )
    return method.Execute(fixed.image, moving)


def _bent(fixed: _Fixed, moving: sitk.Image, affine: sitk.Transform) -> sitk.Transform:
    """Let a B-spline follow the affine transform, held tight.

    Slices of T2 lie up to 2 cm apart: unbounded, it gains mutual information with masks made worse.
    """
    method = _comparison(fixed, sitk.BSplineTransformInitializer(fixed.image, MESH))
    method.SetMovingInitialTransform(affine)
    method.SetMetricSamplingStrategy(method.RANDOM)  # a fifth of the voxels, a fifth of the time
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetOptimizerAsLBFGSB(numberOfIterations=10, lowerBound=-BEND_MM, upperBound=BEND_MM)
    return sitk.CompositeTransform([affine, method.Execute(fixed.image, moving)])
