"""Readers, of masks too: true geometry against nibabel and SimpleITK, and one line for each damaged file."""

from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cardiac_mtl.contracts import UNLABELLED
from cardiac_mtl.errors import UserError
from data_modules.masks import read_mask, write_mask
from data_modules.readers import phases_in, read_cine, read_volume
from data_modules.series import order_by_position

SHARED = Path(__file__).parents[3] / "shared" / "data"
MYOCARDIUM = {"myocardium": 1}


def save(path, voxels, affine=None):
    nib.Nifti1Image(voxels, np.diag([1.3, 1.4, 8, 1]) if affine is None else affine).to_filename(
        path
    )
    return path


def ring():
    mask = np.zeros((12, 10, 4), np.uint8)
    mask[3:9, 3:8] = 1
    mask[5:7, 5:6] = 0
    return mask


@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(st.floats(0.5, 3), st.floats(0.5, 3), st.floats(2, 12)),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
@settings(max_examples=30, deadline=None)
def test_positions_agree_with_nibabel_and_survive_writing(
    tmp_path_factory, angles, spacing, flips, origin
):
    folder = tmp_path_factory.mktemp("nifti")
    turn = sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(turn, (3, 3)) * flips * np.asarray(spacing)
    affine[:3, 3] = origin
    image = read_volume([save(folder / "a.nii.gz", ring(), affine)])
    for index in ((0, 0, 0), (11, 9, 3), (5, 2, 1)):
        ras = nib.affines.apply_affine(affine, index)
        lps = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(lps, ras * [-1, -1, 1], atol=1e-3)
    for source in (folder / "a.nii.gz", folder / "a.dcm"):  # by its header, by its geometry
        write_mask(folder / "b.nii.gz", [image], like=source)
        written = nib.load(folder / "b.nii.gz")
        np.testing.assert_allclose(written.affine, affine, atol=1e-3)
        np.testing.assert_array_equal(np.asarray(written.dataobj), ring())


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii"])
def test_an_ending_in_capitals_is_read_as_any(tmp_path, ending):
    plain = save(tmp_path / f"a{ending.lower()}", ring())
    capitals = plain.rename(tmp_path / f"b{ending}")
    image = read_volume([capitals])
    read = read_mask([capitals], image, MYOCARDIUM)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), ring().T)
    write_mask(tmp_path / "c.nii.gz", [read], like=capitals)
    np.testing.assert_array_equal(nib.load(tmp_path / "c.nii.gz").dataobj, ring())


def test_a_two_dimensional_file_is_one_slice(tmp_path):
    image = read_volume([save(tmp_path / "a.nii.gz", ring()[..., 0])])
    assert image.GetSize() == (12, 10, 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_stack_that_was_turned_to_the_axes_of_the_body_is_refused(tmp_path, axis):
    turned = np.diag([1.3, 1.3, 1.3, 1])
    turned[axis, axis] = 8
    file = save(tmp_path / "a.nii", np.zeros((9, 9, 9), np.int16), turned)
    with pytest.raises(
        UserError, match=f"its slices lie along axis {axis + 1}; reorder"
    ) as refused:
        read_volume([file])
    assert refused.value.code == "slice_axis"
    with pytest.raises(UserError, match=f"its slices lie along axis {axis + 1}"):
        read_cine([save(tmp_path / "b.nii", np.ones((9, 9, 9, 3)) * np.arange(3), turned)])


@pytest.mark.parametrize("spacing", [(1.0, 2.4, 1.0), (1.4, 1.4, 1.4), (0.7, 0.7, 5.0)])
def test_pixels_that_are_not_square_are_no_slices(tmp_path, spacing):
    affine = np.diag([*spacing, 1])
    read_volume([save(tmp_path / "a.nii", np.zeros((9, 9, 9), np.int16), affine)])


@pytest.mark.parametrize(
    ("unit", "told"), [("meter", "metres"), ("micron", "micrometres"), ("mm", ""), ("unknown", "")]
)
def test_a_header_in_another_unit_than_mm_is_named(tmp_path, caplog, unit, told):
    image = nib.Nifti1Image(ring(), np.diag([1.3, 1.4, 8, 1]))
    image.header.set_xyzt_units(unit, "sec")
    image.to_filename(tmp_path / "a.nii")
    assert read_volume([tmp_path / "a.nii"]).GetSpacing() == pytest.approx((1.3, 1.4, 8))
    assert ("lengths are in" in caplog.text) == bool(told)
    assert told in caplog.text


def test_scaling_of_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(ring().astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2.5, 10)
    image.to_filename(tmp_path / "a.nii.gz")
    values = np.unique(sitk.GetArrayFromImage(read_volume([tmp_path / "a.nii.gz"])))
    assert (
        values.tolist() == np.unique(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)).tolist()
    )


@pytest.mark.parametrize("order", "<>")
def test_either_byte_order_is_read(tmp_path, order):
    voxels = ring().astype(f"{order}i2") * 300
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(voxels.dtype)
    nib.Nifti1Image(voxels, np.eye(4), header).to_filename(tmp_path / "a.nii")
    read = sitk.GetArrayFromImage(read_volume([tmp_path / "a.nii"]))
    np.testing.assert_array_equal(read, voxels.T)


def test_a_qform_that_is_no_rotation_is_passed_over(tmp_path, caplog):
    image = nib.Nifti1Image(ring(), np.diag([1.3, 1.4, 8, 1]))
    image.header["qform_code"], image.header["quatern_b"], image.header["quatern_c"] = 1, 0.9, 0.9
    image.to_filename(tmp_path / "a.nii.gz")
    assert read_volume([tmp_path / "a.nii.gz"]).GetSpacing() == pytest.approx((1.3, 1.4, 8))
    assert "the sform is used" in caplog.text


@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_no_damage_of_a_header_gives_a_traceback(tmp_path_factory, changes):
    path = save(tmp_path_factory.mktemp("fuzz") / "a.nii", ring())
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position] = value
    path.write_bytes(content)
    with suppress(UserError):
        read_volume([path])


def test_two_affines_that_disagree_are_named(tmp_path, caplog):
    image = nib.Nifti1Image(ring(), np.diag([1.3, 1.4, 8, 1]))
    image.set_qform(np.diag([1.5, 1.4, 8, 1]), code=1)
    image.to_filename(tmp_path / "a.nii.gz")
    read = read_volume([tmp_path / "a.nii.gz"])
    assert read.GetSpacing() == pytest.approx((1.3, 1.4, 8))
    assert "qform and sform differ by 0.2" in caplog.text


def test_axes_slightly_off_right_angles_are_mended_and_far_off_refused(tmp_path, caplog):
    affine = np.diag([1.3, 1.4, 8, 1.0])
    affine[0, 1] = 0.004
    read_volume([save(tmp_path / "a.nii.gz", ring(), affine)])
    assert "axes set at right angles" in caplog.text
    affine[0, 1] = 0.3
    with pytest.raises(UserError, match="axes that are not at right angles"):
        read_volume([save(tmp_path / "b.nii.gz", ring(), affine)])


def with_nan():
    voxels = np.ones((5, 5, 3), np.float32)
    voxels[1, 1, 2] = np.nan
    return voxels


def flip_a_byte(path):
    """Damage that deflate does not notice, only the checksum does."""
    save(path, np.random.default_rng(0).integers(0, 900, (30, 30, 9)).astype(np.int16))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:9000]),
    "corrupt": lambda path: path.write_bytes(path.read_bytes()[:200] + b"\xff" * 999),
    "checksum": lambda path: path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8),
    "one bad byte": flip_a_byte,
    "complex": lambda path: save(path, np.ones((4, 3, 2), np.complex64)),
    "colours": lambda path: save(path, np.ones((4, 3, 2), [(c, "u1") for c in "RGB"])),
    "too large": lambda path: save(path, np.full((4, 3, 2), 1e200)),
    "not gzip": lambda path: path.write_bytes(b"hello"),
    "empty": lambda path: path.write_bytes(b""),
    "NaN": lambda path: save(path, with_nan()),
    "five axes": lambda path: save(path, np.zeros((2, 2, 2, 2, 2), np.float32)),
    "absent": lambda path: path.unlink(),
}


def damaged(tmp_path, name):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(30, 30, 9)))
    DAMAGE[name](path)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "truncated or corrupt"),
        ("corrupt", "corrupt|damaged"),
        ("checksum", "truncated or corrupt"),
        ("one bad byte", "truncated or corrupt"),
        ("complex", "holds complex64 voxels; give one number a voxel"),
        ("colours", "give one number a voxel"),
        ("too large", "has 24 voxels that are NaN or infinite"),
        ("not gzip", "damaged or not NIfTI"),
        ("empty", "damaged or not NIfTI"),
        ("NaN", r"has 1 voxels that are NaN or infinite, in slices \[2\]"),
        ("five axes", "has 5 dimensions"),
        ("absent", "no such file"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, name, message):
    with pytest.raises(UserError, match=message) as caught:
        read_volume([damaged(tmp_path, name)])
    assert "a.nii.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("affine", "voxels", "message"),
    [
        (None, ring()[:-1], r"the mask has 11 x 10 x 4 voxels, its image 12 x 10 x 4"),
        (np.diag([1.35, 1.4, 8, 1]), ring(), "the mask differs from its image in spacing by 0.05;"),
        (np.diag([-1.3, 1.4, 8, 1]), ring(), "the mask differs from its image in direction by 2;"),
        (
            None,
            ring() * 7,
            r"holds the values \[7\]; declared are 0 background, 1 myocardium: write the mask with these",
        ),
    ],
)
def test_a_mask_that_does_not_fit_its_image_is_refused(tmp_path, affine, voxels, message):
    image = read_volume([save(tmp_path / "image.nii.gz", ring())])
    mask = save(tmp_path / "mask.nii.gz", voxels, affine)
    with pytest.raises(UserError, match=message) as caught:
        read_mask([mask], image, MYOCARDIUM)
    assert "mask.nii.gz" in str(caught.value)


def test_a_fourth_axis_of_one_phase_is_none(tmp_path):
    volume, one_phase = (
        save(tmp_path / f"{voxels.ndim}.nii.gz", voxels) for voxels in (ring(), ring()[..., None])
    )
    expected, image = read_volume([volume]), read_volume([one_phase])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    assert phases_in(one_phase) == [((one_phase,), None)]
    for image_file, mask_file in ((volume, one_phase), (one_phase, volume)):
        mask = read_mask([mask_file], read_volume([image_file]), MYOCARDIUM)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), ring().transpose(2, 1, 0))


def test_a_mask_in_place_by_less_than_the_tolerance_is_taken(tmp_path):
    affine = np.diag([1.3, 1.4, 8, 1.0])
    image = read_volume([save(tmp_path / "image.nii.gz", ring(), affine)])
    affine[0, 3] = 5e-4
    mask = read_mask([save(tmp_path / "mask.nii.gz", ring(), affine)], image, MYOCARDIUM)
    assert mask.GetOrigin() == image.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), ring().transpose(2, 1, 0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_kind_is_foreground_where_it_is_not_black(tmp_path, mode):
    drawn = Image.fromarray((ring()[..., 0] > 0).astype(np.uint8) * 255)
    drawn.convert(mode).save(tmp_path / "a.png")
    like = sitk.Image(10, 12, 2, sitk.sitkFloat32)
    mask = sitk.GetArrayFromImage(read_mask([tmp_path / "a.png", None], like, MYOCARDIUM))
    np.testing.assert_array_equal(mask[0], ring()[..., 0])
    assert (mask[1] == UNLABELLED).all()


def test_one_png_is_no_mask_of_several_slices(tmp_path):
    Image.fromarray(ring()[..., 0].astype(np.uint8)).save(tmp_path / "a.png")
    like = sitk.Image(10, 12, 2, sitk.sitkFloat32)
    with pytest.raises(UserError, match="is one picture of 1, the mask of an image of 2 slices"):
        read_mask([tmp_path / "a.png"], like, MYOCARDIUM)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real images are not beside this checkout")
def test_a_real_cine_phase_has_the_geometry_that_simpleitk_reads():
    files = sorted(
        (SHARED / "sunnybrook_dicom" / "SCD0000201").glob("*.dcm"), key=lambda p: int(p.stem)
    )
    first_phase = order_by_position(files[::20])
    ours = read_volume(first_phase)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in first_phase])
    reference = reader.Execute()
    assert ours.GetSize() == (256, 256, 13)
    np.testing.assert_allclose(ours.GetSpacing(), reference.GetSpacing(), atol=1e-3)
    np.testing.assert_allclose(ours.GetOrigin(), reference.GetOrigin(), atol=1e-3)
    last = pydicom.dcmread(first_phase[-1], stop_before_pixels=True).ImagePositionPatient
    np.testing.assert_allclose(ours.TransformIndexToPhysicalPoint((0, 0, 12)), last, atol=1e-2)
