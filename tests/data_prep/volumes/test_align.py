import os

import numpy as np
import pytest
from metasynth.data_prep.volumes import align
from metasynth.data_prep.volumes.align import FIELD_MM, atlas_grid, read_transform, register, require_simpleitk
from metasynth.data_prep.volumes.volumes import Volume

from metasynth.errors import DataError, UsageError
from metasynth.interrupts import Interrupted

XFM = """MNI Transform File
% avi2talxfm

Transform_Type = Linear;
Linear_Transform =
1.1 0.0 0.01 -2.5
0 1.2 0 3
-0.01 0 1.3 4.25 ;
"""
MATRIX = np.array([[1.1, 0, 0.01, -2.5], [0, 1.2, 0, 3], [-0.01, 0, 1.3, 4.25], [0, 0, 0, 1]])


def test_transforms_of_freesurfer_and_of_text(tmp_path):
    path = tmp_path / "talairach.xfm"
    path.write_text(XFM)
    np.testing.assert_array_equal(read_transform(path), MATRIX)
    for rows in (3, 4):
        np.savetxt(path, MATRIX[:rows])
        np.testing.assert_array_equal(read_transform(path), MATRIX)
    path.write_bytes(XFM.replace("\n", "\r").encode("utf-16"))
    np.testing.assert_array_equal(read_transform(path), MATRIX)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "expected 3 or 4 rows of 4 numbers, got 3 numbers"),
        ("a b", "expected an .xfm file or rows of 4 numbers"),
        ("0 0 0 0\n" * 3, "the transform is singular"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 1 1", "the last row of a transform must be 0 0 0 1"),
        ("nan 0 0 0\n0 1 0 0\n0 0 1 0", "the transform is singular or not finite"),
    ],
)
def test_files_that_are_no_transforms(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError, match=f"t.txt: {message}"):
        read_transform(tmp_path / "t.txt")


def test_a_missing_transform(tmp_path):
    with pytest.raises(DataError, match=r"t\.txt: the file is missing"):
        read_transform(tmp_path / "t.txt")


def test_a_transform_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.txt")
    with pytest.raises(DataError, match=r"t\.txt: expected a file with a transform, got a pipe$"):
        read_transform(tmp_path / "t.txt")


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.5, 3.0)])
def test_the_grid_of_aligned_brains_lies_within_the_templates_field(spacing):
    grid = atlas_grid(spacing)
    first, last = grid.affine[:3, 3], grid.affine[:3, :3] @ (np.array(grid.shape) - 1) + grid.affine[:3, 3]
    for axis, (low, high) in enumerate(FIELD_MM):
        assert first[axis] >= low
        assert last[axis] <= high
        assert first[axis] + last[axis] == pytest.approx(low + high)
        assert high - low - (last[axis] - first[axis]) < spacing[axis]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(UsageError, match=r"need the package SimpleITK: pip install 'metasynth-toolkit\[align\]'"):
        require_simpleitk()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_registration_finds_a_known_transform(kind):
    pytest.importorskip("SimpleITK")
    from nilearn.datasets import load_mni152_template

    template = load_mni152_template(resolution=2)
    turn = np.deg2rad(8)
    known = np.eye(4)  # from the subject to the template
    known[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    if kind == "affine":
        known[:3, :3] = known[:3, :3] @ np.diag([1.08, 0.95, 1.05])
    known[:3, 3] = [9.0, -14.0, 6.0]
    affine = np.linalg.inv(known) @ template.affine  # the same voxels, lying elsewhere
    found = register(Volume(np.asarray(template.dataobj, np.float32), affine, "moved"), kind)
    corners = np.array(np.meshgrid([-70, 70], [-100, 65], [-60, 75], indexing="ij")).reshape(3, -1)
    moved = np.linalg.inv(known) @ np.vstack([corners, np.ones(8)])
    error = np.linalg.norm((found @ moved)[:3] - corners, axis=0)
    assert error.max() < 2.0


@pytest.mark.slow
def test_a_registration_that_is_asked_to_end_does_so_within_an_iteration(monkeypatch):
    pytest.importorskip("SimpleITK")
    from nilearn.datasets import load_mni152_template

    iterations = []

    def asked():
        iterations.append(1)
        if len(iterations) >= 5:
            raise Interrupted

    monkeypatch.setattr(align, "check", asked)
    template = load_mni152_template(resolution=2)
    with pytest.raises(Interrupted):
        register(Volume(np.asarray(template.dataobj, np.float32), template.affine, "here"), "rigid")
    assert len(iterations) <= 8
