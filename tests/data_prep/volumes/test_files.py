"""Files that are no volumes, or not what they say: a line that names the file, before anything large is read."""

import gzip
import os
import socket
import struct

import nibabel as nib
import numpy as np
import pytest
from metasynth.data_prep.volumes import files as volume_files
from metasynth.data_prep.volumes import volumes
from metasynth.data_prep.volumes.files import read_header, read_voxels
from metasynth.data_prep.volumes.volumes import read_image, read_labels
from support.head_phantom import head_image, head_labels, save

from metasynth import sizes
from metasynth.errors import DataError

NUMBERS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
DAMAGED = "is truncated, damaged or no NIfTI or MGH file"


def header(kind=nib.Nifti1Header, shape=(2, 3, 4), dtype=np.int16, **fields):
    """A header whose fields may be anything."""
    made = kind()
    made.set_data_dtype(dtype)
    made["dim"][: len(shape) + 1] = [len(shape), *shape]
    made["pixdim"][1:4] = 1
    made["vox_offset"] = made.single_vox_offset
    made["sform_code"], made["srow_x"][0], made["srow_y"][1], made["srow_z"][2] = 1, 1, 1, 1
    for name, value in fields.items():
        made[name] = value
    return made


def write(path, made, data=NUMBERS):
    content = made.binaryblock.ljust(made.single_vox_offset, b"\0") + data.tobytes(order="F")
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def refusal(path, read=read_image):
    with pytest.raises(DataError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}")
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_stored_is_read(tmp_path, kind, name):
    found = read_header(write(tmp_path / name, header(kind)))
    assert (found.shape, found.unit) == ((2, 3, 4), None)
    np.testing.assert_array_equal(found.affine, np.eye(4))
    np.testing.assert_array_equal(read_voxels(found), NUMBERS)


@pytest.mark.parametrize(
    ("slope", "inter", "expected"),
    [
        (2.0, 1.0, 2.0 * NUMBERS + 1),
        (0.0, 7.0, NUMBERS),
        (np.nan, np.nan, NUMBERS),
        (np.inf, 0.0, NUMBERS),
        (-1.0, 0.0, -NUMBERS),
    ],
)
def test_scaling_is_that_of_the_format(tmp_path, slope, inter, expected):
    path = write(tmp_path / "a.nii", header(scl_slope=slope, scl_inter=inter))
    np.testing.assert_array_equal(read_image(path).data, expected)


@pytest.mark.parametrize("swapped", ["a.nii", "a.nii.gz"])
def test_the_content_says_what_is_compressed(tmp_path, swapped):
    path = write(tmp_path / swapped, header())
    other = path.rename(tmp_path / ("b.nii.gz" if swapped == "a.nii" else "b.nii"))
    np.testing.assert_array_equal(read_image(other).data, NUMBERS)


@pytest.mark.parametrize("named", ["a.hdr", "a.img"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_pairs(tmp_path, named, ending):
    nib.save(nib.Nifti1Pair(NUMBERS, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / f"a.img{ending}")
    volume = read_image(tmp_path / f"{named}{ending}")
    np.testing.assert_array_equal(volume.data, NUMBERS)
    np.testing.assert_array_equal(volume.spacing, [1, 2, 3])
    other = tmp_path / f"{'a.img' if named == 'a.hdr' else 'a.hdr'}{ending}"
    other.unlink()
    with pytest.raises(DataError) as error:
        read_image(tmp_path / f"{named}{ending}")
    assert str(error.value) == f"{other}: the file is missing, which belongs to {tmp_path / named}{ending}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vox_offset": 348}, "(vox offset 348 too low for single file nifti1)"),
        ({"vox_offset": np.nan}, "("),
        ({"vox_offset": 1e30}, "("),
        ({"scl_slope": 2, "scl_inter": np.nan}, "(Valid slope but invalid intercept nan)"),
        ({"datatype": 77}, "(data code 77 not recognized)"),
        ({"magic": b"ni1"}, "(its header says that the voxels lie in another file)"),
        ({"magic": b"xyz"}, "(it begins like neither)"),
        (
            {"dim": [3, 2, 3, 5, 1, 1, 1, 1]},
            "(its header claims 2 x 3 x 5 voxels of int16, 60 B; the file has 400",
        ),
    ],
)
def test_headers_that_cannot_be(tmp_path, fields, message):
    assert refusal(write(tmp_path / "a.nii", header(**fields))).startswith(f"{DAMAGED} {message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": [3, 2, 3, 0, 1, 1, 1, 1]}, "holds no voxels, its shape is 2 x 3 x 0"),
        ({"dim": [3, 2, -3, 4, 1, 1, 1, 1]}, "holds no voxels, its shape is 2 x -3 x 4"),
        ({"dim": [2, 2, 3, 1, 1, 1, 1, 1]}, "expected one volume of 3 dimensions, got shape 2 x 3"),
        ({"dim": [4, 2, 3, 2, 2, 1, 1, 1]}, "expected one volume of 3 dimensions, got shape 2 x 3 x 2 x 2"),
        (
            {"sform_code": 0, "pixdim": [1, 1, 0, 1, 0, 0, 0, 0]},
            "voxels must have a size above 0 along every axis, got 1 x 0 x 1 in its header",
        ),
    ],
)
def test_volumes_that_are_none(tmp_path, fields, message):
    assert refusal(write(tmp_path / "a.nii", header(**fields))) == message


def test_numbers_that_are_none(tmp_path):
    colours = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii").startswith("expected one number a voxel, got values of type [('R', 'u1')")
    assert refusal(tmp_path / "a.nii", read_labels).startswith("labels must be whole numbers, got values of type")


def test_a_small_file_cannot_claim_gigabytes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii.gz", header(shape=(1024, 1024, 858), dtype=np.int32), np.zeros(0))
    size = path.stat().st_size
    assert size < 130

    def read_on(*_):
        raise AssertionError("the voxels must not be read")

    monkeypatch.setattr(volumes, "read_voxels", read_on)
    assert refusal(path) == (
        f"{DAMAGED} (its header claims 1024 x 1024 x 858 voxels of int32, 3.4 GiB; the file has {size} B, compressed)"
    )


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_the_checksum_of_a_compressed_file_is_compared(tmp_path, name):
    path = save(tmp_path / name, head_labels())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert refusal(path).startswith(f"{DAMAGED} (CRC check failed")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_what_the_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    path = save(tmp_path / name, np.zeros((200, 100, 50), np.float32))
    monkeypatch.setattr(sizes, "available_memory", lambda: 11_900_000)
    assert refusal(path) == (
        "its header claims 200 x 100 x 50 voxels of float32, 3.8 MiB; reading it takes 11.4 MiB of memory; 11.3 MiB "
        "can be had"
    )
    monkeypatch.setattr(sizes, "available_memory", lambda: 12_000_000)
    assert read_image(path).data.shape == (200, 100, 50)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "expected a NIfTI or MGH file, got a pipe"),
        (os.mkdir, "expected a NIfTI or MGH file, got a folder"),
        (a_socket, "expected a NIfTI or MGH file, got a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a NIfTI or MGH file, got a device"),
        (lambda path: path.symlink_to(path), "cannot be opened: Too many levels of symbolic links"),
        (lambda path: path.symlink_to(path.with_name("gone")), "the file is missing"),
    ],
)
def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)  # sockets have short names
    path = tmp_path / "a.nii.gz"
    make(path.relative_to(tmp_path) if make is a_socket else path)
    assert refusal(path) == message


@pytest.mark.parametrize("named", ["a.hdr", "a.img"])
def test_the_other_file_of_a_pair_is_not_waited_for(tmp_path, named):
    nib.save(nib.Nifti1Pair(NUMBERS, np.eye(4)), tmp_path / "a.img")
    other = tmp_path / ("a.img" if named == "a.hdr" else "a.hdr")
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(DataError, match=r"expected a NIfTI or MGH file, got a pipe, which belongs to .*a\.\w+$"):
        read_image(tmp_path / named)


def test_surfaces_are_no_volumes(tmp_path):
    surface = nib.gifti.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.zeros((4, 3), np.float32))])
    nib.save(surface, tmp_path / "a.surf.gii")
    (tmp_path / "a.surf.gii").rename(tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii") == f"{DAMAGED} (it begins like neither)"
    axes = (
        nib.cifti2.ScalarAxis(["x"]),
        nib.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2), bool), affine=np.eye(4)),
    )
    nib.save(nib.Cifti2Image(np.ones((1, 8), np.float32), axes), tmp_path / "a.dscalar.nii")
    message = "expected one volume of 3 dimensions, got shape 1 x 1 x 1 x 1 x 1 x 8"
    assert refusal(tmp_path / "a.dscalar.nii") == message


def test_an_empty_file_and_one_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"")
    assert refusal(tmp_path / "a.nii") == f"{DAMAGED} (it is empty)"

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(volume_files, "_is_compressed", refuse)
    assert refusal(tmp_path / "a.nii") == "cannot be read: Permission denied"


def test_a_name_that_no_file_can_have(tmp_path):
    assert refusal(tmp_path / "a\0.nii") == "cannot be opened: embedded null byte"
    assert refusal(tmp_path / ("a" * 300)) == "cannot be opened: File name too long"


def test_whatever_a_library_raises_is_a_line(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", head_image(head_labels()))
    for error, line in (
        (struct.error("unpack requires\n4 bytes"), f"{DAMAGED} (unpack requires 4 bytes)"),
        (RecursionError(), f"{DAMAGED} (RecursionError)"),
        (MemoryError(), "is too large for the memory there is"),
    ):
        monkeypatch.setattr(volume_files, "apply_read_scaling", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert refusal(path) == line


def test_nothing_is_printed_about_a_header(tmp_path, capfd):
    path = write(tmp_path / "a.nii", header(pixdim=[1, -1, 0, 1, 0, 0, 0, 0], bitpix=5))
    assert read_image(path).data.shape == (2, 3, 4)
    assert capfd.readouterr() == ("", "")
