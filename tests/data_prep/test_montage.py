import dataclasses

import h5py
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from metasynth.data_prep.montage import describe, write_montage
from support.caches import FINE_INFO, INFO, arrays, make

from metasynth.data.cache import write_cache
from metasynth.errors import DataError
from metasynth.pictures import COLOURS, colours


@pytest.mark.parametrize("images", [True, False])
def test_a_montage_is_a_picture_with_colours(tmp_path, images):
    path = write_montage(make(tmp_path / "c.h5", images=images), tmp_path / "m.png")
    pixels = matplotlib.image.imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 100
    assert np.ptp(pixels, axis=-1).max() > 0.2


def test_a_montage_has_the_first_row_at_the_top(tmp_path):
    given = arrays(n_subjects=1, per_subject=1, shape=(8, 8), images=False)
    given["labels"][:] = 0
    given["labels"][0, :2] = 1
    write_cache(tmp_path / "c.h5", **given)
    pixels = matplotlib.image.imread(write_montage(tmp_path / "c.h5", tmp_path / "m.png"))[..., :3]
    panel = np.flatnonzero((np.ptp(pixels, axis=-1) > 0.2).mean(axis=1) > 0.5)
    assert panel.size > 0
    assert panel.mean() < pixels.shape[0] / 2


def test_volumes_and_many_subjects(tmp_path):
    given = arrays(n_subjects=9, per_subject=1, shape=(3, 6, 7))
    given["info"] = given["info"].__class__(**{**given["info"].__dict__, "spacing_mm": (1.0, 1.0, 1.0)})
    write_cache(tmp_path / "v.h5", **given)
    assert write_montage(tmp_path / "v.h5", tmp_path / "m.png").stat().st_size > 1000
    assert dict(describe(tmp_path / "v.h5"))["holds"] == "9 volumes of 3 x 6 x 7"


def test_slices_of_several_axes_are_named(tmp_path, monkeypatch):
    info = dataclasses.replace(INFO, axis="coronal,axial", orientation="IR,PR")
    write_cache(tmp_path / "c.h5", **arrays(2, 2, info=info), view=[0, 1, 1, 0])
    said = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda axis, title, **how: said.append(title))
    write_montage(tmp_path / "c.h5", tmp_path / "m.png")
    assert said == ["s0 coronal 0", "axial 1", "s1 axial 0", "coronal 1"]
    said.clear()
    write_montage(make(tmp_path / "d.h5", n_subjects=1, per_subject=2), tmp_path / "d.png")
    assert said == ["s0 0", "1"]


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"m\.png: the picture cannot be written: No such file"):
        write_montage(make(tmp_path / "c.h5"), tmp_path / "absent" / "m.png")


def test_description(tmp_path):
    path = make(tmp_path / "c.h5")
    lines = dict(describe(path))
    assert lines["holds"] == "15 slices of 6 x 7"
    assert lines["images"] == "yes"
    assert lines["subjects"] == "5, 3 slices each"
    assert lines["spacing"] == "2 x 3 mm"
    assert lines["source"] == "random numbers"
    shares = [float(lines[f"class {k}"].split(": ")[1].split("%")[0]) for k in range(3)]
    expected = 100 * np.bincount(arrays()["labels"].ravel()) / arrays()["labels"].size
    np.testing.assert_allclose(shares, expected, atol=0.01)
    assert lines["digest"].endswith("(ok)")
    with h5py.File(path, "r+") as file:
        file["labels"][0, 0, 0] = (file["labels"][0, 0, 0] + 1) % 3
    assert "WRONG" in dict(describe(path))["digest"]


def test_description_of_structures(tmp_path):
    path = make(tmp_path / "c.h5", info=FINE_INFO)
    labels = arrays(info=FINE_INFO)["labels"]
    shares = np.bincount(labels.ravel()) / labels.size
    lines = dict(describe(path))
    assert [lines[f"structure {g}"] for g in range(5)] == [
        f"{name}: {share:.2%} of the voxels, in class {k}"
        for name, share, k in zip(FINE_INFO.generation_names, shares, FINE_INFO.target, strict=True)
    ]
    assert lines["class 0"] == f"background: {shares[0] + shares[3]:.2%} of the voxels"
    assert lines["class 2"] == f"grey matter: {shares[2] + shares[4]:.2%} of the voxels"
    assert list(lines)[6:14] == [*(f"class {k}" for k in range(3)), *(f"structure {g}" for g in range(5))]


@pytest.mark.parametrize("images", [True, False])
def test_a_montage_shows_structures_beside_classes(tmp_path, images):
    given = arrays(n_subjects=1, per_subject=1, shape=(8, 8), images=images, info=FINE_INFO)
    given["labels"][:] = 3  # background, but a structure
    given["labels"][0, :4] = 1  # both classes, so that all have a colour of their own
    write_cache(tmp_path / "c.h5", **given)
    pixels = matplotlib.image.imread(write_montage(tmp_path / "c.h5", tmp_path / "m.png"))[..., :3]
    panels = 2 + images
    width = pixels.shape[1] // panels
    low = slice(int(width * 0.75), int(width * 0.9))  # rows of the lower half
    classes, structures = (
        np.ptp(pixels[low, (panels - back) * width + width // 4 : (panels - back) * width + width // 2], axis=-1).mean()
        for back in (2, 1)
    )
    assert classes < 0.01 < 0.1 < structures


def test_description_of_uneven_subjects_without_images(tmp_path):
    given = arrays(n_subjects=3, per_subject=2, images=False)
    given["subject"] = np.array([0, 0, 0, 1, 1, 2])
    write_cache(tmp_path / "c.h5", **given)
    lines = dict(describe(tmp_path / "c.h5"))
    assert lines["images"] == "no, labels only"
    assert lines["subjects"] == "3, 1 to 3 slices each"


def test_a_wrong_file_is_refused(tmp_path):
    (tmp_path / "c.h5").write_text("no")
    for look in (describe, lambda path: write_montage(path, tmp_path / "m.png")):
        with pytest.raises(DataError, match=r"c\.h5: is not an HDF5 file"):
            look(tmp_path / "c.h5")


def test_many_classes_have_colours_of_their_own_and_all_are_named(tmp_path):
    assert len(set(colours(24))) == 24
    assert colours(4) == [to_rgba(colour) for colour in COLOURS[:4]]
    names = ("background", *(f"a structure with a long name {k}" for k in range(1, 25)))
    given = arrays(n_subjects=2, per_subject=2, shape=(16, 16), images=False)
    given["labels"] = given["labels"] % 25
    given["info"] = given["info"].__class__(**{**given["info"].__dict__, "class_names": names})
    write_cache(tmp_path / "c.h5", **given)
    pixels = matplotlib.image.imread(write_montage(tmp_path / "c.h5", tmp_path / "m.png"))[..., :3]
    border = np.concatenate([pixels[:, :2].ravel(), pixels[:, -2:].ravel(), pixels[-2:].ravel()])
    assert (border == 0).all()  # the legend is not cut off
    rows = np.flatnonzero((pixels.reshape(len(pixels), -1) > 0.5).any(axis=1))
    assert rows[-1] > 0.9 * len(pixels)
