"""Caches with another contrast: exact values, what stays, and what says that they are no scans."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from metasynth.data_prep.montage import describe, write_montage
from metasynth.data_prep.remapping import remap as module
from metasynth.data_prep.remapping.curves import CURVES, parse_curve
from metasynth.data_prep.remapping.remap import remap, remap_cache
from support.caches import FINE_INFO, INFO, arrays, make

from metasynth import __version__
from metasynth.data.cache import Cache, write_cache
from metasynth.errors import DataError, UsageError

X = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
NONE, ONE = np.zeros(7, int), np.ones(7, int)


@pytest.mark.parametrize(
    ("curve", "y"),
    [
        ("inverted", [1.0, 0.9, 0.8, 0.65, 0.5, 0.25, 0.0]),
        ("bent", [0.0, 0.1, 0.2, 0.6, 1.0, 0.7, 0.4]),
        ("0:0.5,0.5:0.9,1:0.2", [0.5, 0.58, 0.66, 0.78, 0.9, 0.55, 0.2]),
    ],
)
def test_values(curve, y):
    np.testing.assert_allclose(remap(X, ONE, parse_curve(curve)), y, rtol=0, atol=1e-15)


def test_background_is_what_has_neither_label_nor_intensity():
    inverted = CURVES["inverted"]
    assert remap(X, NONE, inverted)[0] == 0.0  # stripped off, air or bone
    assert remap(X, ONE, inverted)[0] == 1.0  # fluid that scaling has cut to 0
    np.testing.assert_array_equal(
        remap(X, NONE, inverted)[1:], remap(X, ONE, inverted)[1:]
    )  # fluid of no class, a head


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("info", [INFO, FINE_INFO], ids=["classes", "structures"])
def test_all_but_the_contrast_stays(tmp_path, dtype, info):
    given = arrays(info=info)
    given["images"] = given["images"].astype(dtype)
    given["images"][:, :2] = 0
    given["subject"] = np.array([4, 0, 0, 3, 3, 2, 2, 1, 1, 4, 0, 3, 2, 1, 4])
    write_cache(tmp_path / "a.h5", **given)
    seen = []
    shape = remap_cache(tmp_path / "a.h5", tmp_path / "b.h5", CURVES["bent"], lambda *done: seen.append(done))
    assert shape == (15, 6, 7)
    assert seen == [(i, 15) for i in range(1, 16)]
    with Cache(tmp_path / "a.h5") as a, Cache(tmp_path / "b.h5") as b:
        everything = range(15)
        for name in ("labels", "images"):
            assert a.read_stored(name, everything).dtype == b.read_stored(name, everything).dtype
        np.testing.assert_array_equal(a.read_labels(everything), b.read_labels(everything))
        np.testing.assert_array_equal(a.read_structures(everything), b.read_structures(everything))
        expected = np.interp(given["images"].astype(float), *np.array(CURVES["bent"].points).T)
        np.testing.assert_array_equal(b.read_stored("images", everything), expected.astype(dtype))
        assert a.subjects == b.subjects
        np.testing.assert_array_equal(a.subject_index, b.subject_index)
        np.testing.assert_array_equal(a.slice_index, b.slice_index)
        same = {"class_names", "spacing_mm", "axis", "orientation", "generation_names", "target", "shows"}
        before, after = asdict(a.info), asdict(b.info)
        assert {key for key in before if before[key] == after[key]} == same
        assert b.info.version == a.info.version


def test_volumes(tmp_path):
    given = arrays(n_subjects=2, per_subject=1, shape=(3, 6, 7), info=replace(INFO, spacing_mm=(1.0, 1.0, 1.0)))
    write_cache(tmp_path / "a.h5", **given)
    assert remap_cache(tmp_path / "a.h5", tmp_path / "b.h5", CURVES["inverted"]) == (2, 3, 6, 7)
    with Cache(tmp_path / "b.h5") as b:
        np.testing.assert_array_equal(b.read_images([0, 1]), (1 - given["images"].astype(float)).astype(np.float32))


def test_everything_says_that_it_is_remapped(tmp_path):
    notice = "Scans of somebody, CC BY-SA 3.0. Changes must be said."
    a = make(tmp_path / "a.h5", info=replace(INFO, source=notice))
    remap_cache(a, tmp_path / "b.h5", parse_curve("0:0,0.3:0.9,1:0.2"))
    with Cache(a) as before, Cache(tmp_path / "b.h5") as cache:
        assert before.info.marks == ()
        assert cache.info.marks == ("REMAPPED",)
        assert cache.info.mapping == "REMAPPED; drawn by a test"
        assert cache.info.source == (
            "REMAPPED images, not scans: what is not background went through the curve 0:0,0.3:0.9,1:0.2. Made from "
            f"the cache of digest {before.info.digest}: {notice}"
        )
        assert cache.info.created_by == f"metasynth {__version__} prep remap"
        assert cache.info.digest != before.info.digest
    shown = dict(describe(tmp_path / "b.h5"))
    assert shown["images"] == "yes, REMAPPED"
    assert shown["digest"].endswith("(ok)")


def test_of_simulated_images_both_are_said(tmp_path):
    a = make(tmp_path / "a.h5", info=replace(INFO, mapping="SIMULATED; the largest fraction"))
    remap_cache(a, tmp_path / "b.h5", CURVES["bent"])
    with Cache(tmp_path / "b.h5") as cache:
        assert cache.info.marks == ("REMAPPED", "SIMULATED")
    assert dict(describe(tmp_path / "b.h5"))["images"] == "yes, REMAPPED, SIMULATED"


def test_of_remapped_images_both_curves_are_said(tmp_path):
    remap_cache(make(tmp_path / "a.h5"), tmp_path / "b.h5", CURVES["bent"])
    remap_cache(tmp_path / "b.h5", tmp_path / "c.h5", CURVES["inverted"])
    with Cache(tmp_path / "c.h5") as cache:
        assert cache.info.marks == ("REMAPPED",)
        assert cache.info.source.index("inverted (0:1,1:0)") < cache.info.source.index("bent (0:0,0.2:0.2,0.5:1,1:0.4)")


def test_the_picture_says_it(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.text",
        lambda figure, x, y, text, **style: written.append(text),
    )
    a = make(tmp_path / "a.h5")
    remap_cache(a, tmp_path / "b.h5", CURVES["bent"])
    for path in (a, tmp_path / "b.h5"):
        write_montage(path, tmp_path / "m.png")
    assert written == ["REMAPPED"]


def test_what_cannot_be_remapped(tmp_path, monkeypatch):
    maps = make(tmp_path / "maps.h5", images=False)
    with pytest.raises(DataError) as caught:
        remap_cache(maps, tmp_path / "b.h5", CURVES["bent"])
    assert str(caught.value) == f"{maps}: holds labels only; prep remap needs images, as prep nifti makes them"

    def full(size, what, setting):
        raise UsageError(f"{setting}: {what} takes {size} bytes")

    monkeypatch.setattr(module, "require_memory", full)
    scans = make(tmp_path / "scans.h5")
    with pytest.raises(UsageError) as caught:
        remap_cache(scans, tmp_path / "b.h5", CURVES["bent"])
    assert str(caught.value) == f"{scans}: a copy of its 15 items takes {15 * 6 * 7 * 5} bytes"
    assert not (tmp_path / "b.h5").exists()


def test_what_is_interrupted_leaves_the_old_one(tmp_path):
    a, b = make(tmp_path / "a.h5"), make(tmp_path / "b.h5", seed=1)
    before = b.read_bytes()

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remap_cache(a, b, CURVES["bent"], stop)
    assert b.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_the_air_of_a_whole_head_stays_dark(tmp_path):
    inverted = CURVES["inverted"]
    np.testing.assert_allclose(remap(X, NONE, inverted, head=True), [0.0, 0.0, 0.8, 0.65, 0.5, 0.25, 0.0], atol=1e-15)
    assert remap(X, ONE, inverted, head=True)[0] == 1.0
    given = arrays(info=replace(INFO, shows="head"))
    write_cache(tmp_path / "a.h5", **given)
    remap_cache(tmp_path / "a.h5", tmp_path / "b.h5", inverted)
    with Cache(tmp_path / "b.h5") as cache:
        assert cache.info.shows == "head"
        expected = np.where((given["labels"] > 0) | (given["images"] > 0.1), 1 - given["images"], 0)
        np.testing.assert_allclose(cache.read_images(range(cache.n)), expected, atol=1e-6)
