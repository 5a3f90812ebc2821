"""A corpus of damaged and hostile inputs: one clear line each, no traceback, no hang, no spill.

`check` and `fit` meet each input as a user would bring it: NIfTI and DICOM cut short, bit-flipped
or with impossible headers, images that unpack to gigabytes, hostile tables, YAML and JSON.
"""

import csv
import gzip
import json
import os
import random
import resource
import shutil
import struct
import time
import zlib

import pydicom
import pytest

from cardiac_mtl.cli import main
from data_modules import manifest, stacom

SECONDS, MEMORY_KB = 10, 2 << 20
CASE = "p1_ph00"
IMAGE = f"{CASE}_image.nii.gz"


@pytest.fixture(scope="module")
def hearts_folder(tmp_path_factory, make_study):
    root = tmp_path_factory.mktemp("clean") / "hearts"
    manifest.write_layout(root, [make_study(f"p{n}", phases=1, seed=n) for n in range(3)])
    return root


@pytest.fixture(scope="module")
def lvsc_folder(tmp_path_factory, make_study):
    root = tmp_path_factory.mktemp("clean") / "lvsc"
    stacom.write_layout(root, [make_study(f"DET000010{n}", phases=1, seed=n) for n in range(2)])
    return root


def repack(path, change):
    content = bytearray(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(bytes(change(content) or content), mtime=0))


def field(offset, code, *values):
    """Write values into the NIfTI header."""
    return lambda content: struct.pack_into(f"<{len(values)}{code}", content, offset, *values)


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(seed):
    """Flip one bit of the compressed stream: the checksum must notice."""

    def change(path):
        content = bytearray(path.read_bytes())
        place = random.Random(seed).randrange(12, len(content) - 1)
        content[place] ^= 1 << seed % 8
        path.write_bytes(content)

    return change


def bomb(path, unpacked, header=b""):
    """Write a gzip that unpacks to zeros without end, cheaply."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(header))
        for _ in range(unpacked >> 20):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())


def head_of(path):
    return gzip.decompress(path.read_bytes())[:352]


def claims(path, *dim):
    """Return the header of an image that claims other dimensions."""
    content = bytearray(head_of(path))
    struct.pack_into("<8h", content, 40, *dim)
    return bytes(content)


NIFTI = {
    **{f"cut at {share}": cut(share) for share in (0, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)},
    **{f"bit {seed} flipped": flip(seed) for seed in range(20)},
    "eight dimensions": lambda p: repack(p, field(40, "h", 8, 2, 2, 2, 2, 2, 2, 2)),
    "no dimension": lambda p: repack(p, field(40, "h", 0)),
    "negative dimension": lambda p: repack(p, field(42, "h", -20)),
    "zero dimension": lambda p: repack(p, field(44, "h", 0)),
    "five dimensions": lambda p: repack(p, field(40, "h", 5, 20, 12, 2, 2, 2)),
    "more voxels than there are": lambda p: repack(p, field(42, "h", 200)),
    "absurd size": lambda p: repack(p, field(40, "h", 3, 32000, 32000, 32000)),
    "absurd 4-D": lambda p: repack(p, field(40, "h", 4, 32000, 32000, 300, 300)),
    "unknown type": lambda p: repack(p, field(70, "h", 999)),
    "colours": lambda p: repack(p, field(70, "h", 128, 24)),
    "complex numbers": lambda p: repack(p, field(70, "h", 32, 64)),
    "wrong magic": lambda p: repack(p, lambda c: c.__setitem__(slice(344, 348), b"abcd")),
    "offset beyond the end": lambda p: repack(p, field(108, "f", 1e9)),
    "offset not a number": lambda p: repack(p, field(108, "f", float("nan"))),
    "spacing not a number": lambda p: repack(p, field(280, "f", *[float("nan")] * 12)),
    "spacing infinite": lambda p: repack(p, field(280, "f", *[float("inf")] * 12)),
    "spacing zero": lambda p: repack(p, field(280, "f", *[0.0] * 12)),
    "header alone": lambda p: repack(p, lambda c: c[:348]),
    "empty gzip": lambda p: p.write_bytes(gzip.compress(b"")),
    "text": lambda p: p.write_text("not an image"),
    "zip": lambda p: p.write_bytes(b"PK\3\4" + bytes(500)),
    "zeros": lambda p: p.write_bytes(bytes(5000)),
    "unpacks to more than it claims": lambda p: bomb(p, 1 << 28, head_of(p)),
    "claims what it unpacks to": lambda p: bomb(
        p, 1 << 30, claims(p, 3, 4000, 4000, 60, 1, 1, 1, 1)
    ),
    "claims a long cine": lambda p: bomb(p, 1 << 26, claims(p, 4, 500, 500, 60, 3000, 1, 1, 1)),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a link to itself": lambda p: (p.unlink(), p.symlink_to(p.name)),
    "a link out of the folder": lambda p: (p.unlink(), p.symlink_to("/etc/hostname")),
}


def edit(file, **values):
    image = pydicom.dcmread(file)
    for key, value in values.items():
        if value is None:
            delattr(image, key)
        else:
            setattr(image, key, value)
    image.save_as(file, enforce_file_format=False)


def png(rows, columns):
    """Return a PNG of black pixels that is small on disk and large in memory."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(columns + 1)) for _ in range(min(rows, 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed + packer.flush())


DICOM = {
    **{f"DICOM cut at {share}": cut(share) for share in (0, 0.1, 0.3, 0.5, 0.9, 0.99)},
    "no position": lambda p: edit(p, ImagePositionPatient=None),
    "no rows": lambda p: edit(p, Rows=None),
    "absurd rows": lambda p: edit(p, Rows=65535, Columns=65535),
    "no pixels": lambda p: edit(p, PixelData=None),
    "seven bits": lambda p: edit(p, BitsAllocated=7),
    "three colours": lambda p: edit(p, SamplesPerPixel=3),
    "a thousand frames": lambda p: edit(p, NumberOfFrames=1000),
    "one axis": lambda p: edit(p, ImageOrientationPatient=[1, 0, 0]),
    "axes of no length": lambda p: edit(p, ImageOrientationPatient=[0] * 6),
    "spacing of nothing": lambda p: edit(p, PixelSpacing=[0, 0]),
    "GIF": lambda p: p.write_bytes(b"GIF89a"),
    "not a PNG": lambda p: p.with_suffix(".png").write_bytes(b"not a picture"),
    "a PNG cut short": lambda p: cut(0.5)(p.with_suffix(".png")),
    "a PNG of gigabytes": lambda p: p.with_suffix(".png").write_bytes(png(60000, 60000)),
    "a PNG of another size": lambda p: p.with_suffix(".png").write_bytes(png(10, 10)),
}


def table(text):
    def change(root):
        content = text if isinstance(text, bytes) else text.encode()
        (root / "cases.csv").write_bytes(content)

    return change


def row(**values):
    def change(root):
        with (root / "cases.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        rows[1].update(values)
        with (root / "cases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    return change


TABLES = {
    "empty table": table(""),
    "a header alone": table("case_id,patient_id,image\n"),
    "binary": table(bytes(range(256)) * 20),
    "UTF-16": table("case_id,patient_id,image\na,b,c".encode("utf-16")),
    "zero bytes": table("case_id,patient_id,image\na\0,b,c\n"),
    "an open quote": table('case_id,patient_id,image\n"a,b,c\n' + "x,y,z\n" * 50),
    "a field of a megabyte": table("case_id,patient_id,image\n" + "a" * 1_000_000 + ",b,c\n"),
    "ten thousand columns": table(",".join(f"c{n}" for n in range(10_000)) + "\n1,2\n"),
    "too many values": table("case_id,patient_id,image\na,b,c,d,e\n"),
    "a column twice": table("case_id,case_id,patient_id,image\na,b,c,d\n"),
    "a misspelt column": table("case_id,patient,image\na,b,c\n"),
    "no name": row(case_id=""),
    "a name with a slash": row(case_id="../../evil"),
    "a hidden name": row(case_id=".evil"),
    "a name with a line break": row(case_id="evil\nname"),
    "no patient": row(patient_id=""),
    "no image": row(image=""),
    "an absolute path": row(image="/etc/passwd"),
    "a path upwards": row(image="../../../etc/passwd"),
    "a mask upwards": row(mask="../../../etc/passwd"),
    "the folder itself": row(image="."),
    "a path of a megabyte": row(image="a" * 5000),
    "a zero byte in a path": row(image="%00.nii.gz"),
    "a file that is not there": row(image="nothing.nii.gz"),
    "half a label": row(mask="cases.csv"),
}

YAML = {
    "binary YAML": bytes(range(256)),
    "a tab": b"data:\n\tclass_path: x\n",
    "a list": b"- 1\n- 2\n",
    "a word": b"hello\n",
    "empty YAML": b"",
    "a Python object": b"data: !!python/object/apply:os.system ['touch /tmp/evil']\n",
    "a deep nest": b"data: " + b"[" * 20_000,
    "aliases of aliases": b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n".encode() for n in range(1, 12)),
    "an alias of itself": b"data: &a\n  class_path: *a\n",
    "an unknown class": b"data: {class_path: data_modules.manifest.Nothing}\n",
    "a class of another kind": b"data: {class_path: pathlib.Path}\n",
    "a class that would run": b"data: {class_path: os.system, init_args: {command: 'touch /tmp/x'}}\n",
    "an unknown key": b"data: {class_path: data_modules.manifest.ManifestDataModule,"
    b" init_args: {colour: red}}\n",
    "text for a number": b"data: {class_path: data_modules.manifest.ManifestDataModule,"
    b" init_args: {batch_size: many}}\n",
    "an infinite number": b"data: {class_path: data_modules.manifest.ManifestDataModule,"
    b" init_args: {num_folds: .inf}}\n",
    "data is a number": b"data: 7\n",
}

FOLDS = {
    "binary JSON": bytes(range(256)),
    "a deep JSON": b"[" * 100_000,
    "JSON without folds": b"{}",
    "numbers for patients": b'[{"train": [1], "val": [2], "test": [3]}]',
    "a patient twice": b'[{"train": ["p0"], "val": ["p1"], "test": ["p0"]}]',
    "an unknown patient": b'[{"train": ["p0"], "val": ["p1"], "test": ["zz"]}]',
    "an empty part": b'[{"train": [], "val": ["p0"], "test": ["p1"]}]',
    "a wrong hash": b'{"sha256": 5, "folds": [{"train": ["p0"], "val": ["p1"], "test": ["p2"]}]}',
    "NaN": b"NaN",
    "a lone surrogate": b'[{"train": ["\\ud800"], "val": ["p1"], "test": ["p2"]}]',
}


def test_the_corpus_is_large_enough():
    assert sum(map(len, (NIFTI, DICOM, TABLES, YAML, FOLDS))) >= 120


def ends_well(words, tmp_path, capfd):
    """Run a command on damaged data; return its status and its lines."""
    before = snapshot(tmp_path)
    started = time.monotonic()
    status = main(words)
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MEMORY_KB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY_KB
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    after = snapshot(tmp_path)
    assert {p: s for p, s in after.items() if not p.startswith("out")} == before
    assert status in {1, 2}
    return status, shown


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.lstat().st_mtime_ns
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def one_line_of_check(config, root, tmp_path, capfd, about):
    words = ["check", "--config", config, "--data.root", str(root), "--json"]
    status, shown = ends_well([*words, "--output", str(tmp_path / "out")], tmp_path, capfd)
    if status == 2:
        (line,) = shown.err.splitlines()
        assert line.startswith("cardiac-mtl: ")
        return
    errors = [f for f in json.loads(shown.out) if f["severity"] == "error"]
    assert len(errors) == 1, errors
    assert about in errors[0]["file"]
    assert "\n" not in errors[0]["message"]
    assert len(errors[0]["message"]) < 500


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "image") for name in NIFTI)]
    + [(name, "mask") for name in ("cut at 0.5", "bit 3 flipped", "absurd size", "text")],
)
def test_damaged_nifti(name, kind, hearts_folder, tmp_path, capfd):
    root = shutil.copytree(hearts_folder, tmp_path / "hearts")
    file = root / f"{CASE}_{kind}.nii.gz"
    NIFTI[name](file)
    one_line_of_check("data/manifest", root, tmp_path, capfd, "")


@pytest.mark.parametrize("name", DICOM)
def test_damaged_dicom(name, lvsc_folder, tmp_path, capfd):
    root = shutil.copytree(lvsc_folder, tmp_path / "lvsc")
    DICOM[name](root / "Training" / "DET0000101" / "DET0000101_SA1_ph0.dcm")
    one_line_of_check("data/lvsc", root, tmp_path, capfd, "DET0000101")


@pytest.mark.parametrize("name", TABLES)
def test_hostile_table(name, hearts_folder, tmp_path, capfd):
    root = shutil.copytree(hearts_folder, tmp_path / "hearts")
    TABLES[name](root)
    one_line_of_check("data/manifest", root, tmp_path, capfd, "")


@pytest.mark.parametrize("name", YAML)
def test_hostile_yaml(name, hearts_folder, tmp_path, capfd):
    config = tmp_path / "hostile.yaml"
    config.write_bytes(YAML[name])
    words = ["check", "--config", str(config), "--data.root", str(hearts_folder)]
    status, shown = ends_well(words, tmp_path, capfd)
    assert (status, len(shown.err.splitlines())) == (2, 1)
    words = ["fit", "--config", "mtn_unet", "--config", str(config), "--data.root"]
    words += [str(hearts_folder), "--run_root", str(tmp_path / "out")]
    if name == "empty YAML":
        return  # an overlay may say nothing
    status, shown = ends_well(words, tmp_path, capfd)
    assert (status, len(shown.err.splitlines())) == (2, 1), shown.err
    assert not os.path.exists("/tmp/evil")  # noqa: S108, PTH110


@pytest.mark.parametrize("name", FOLDS)
def test_hostile_folds(name, hearts_folder, tmp_path, capfd):
    folds = tmp_path / "folds.json"
    folds.write_bytes(FOLDS[name])
    if name not in {"an unknown patient", "a lone surrogate"}:  # what the file alone cannot tell
        ends_well(["audit", "--splits", str(folds)], tmp_path, capfd)
    words = ["fit", "--config", "mtn_unet", "--config", "data/manifest", "--config", "debug"]
    words += ["--data.root", str(hearts_folder), "--data.splits", str(folds)]
    words += ["--run_root", str(tmp_path / "out")]
    status, shown = ends_well(words, tmp_path, capfd)
    assert (status, len(shown.err.splitlines())) == (2, 1), shown.err
