"""Caches with slices of several axes."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.remapping.curves import CURVES
from metasynth.data_prep.remapping.remap import remap_cache
from metasynth.experiments import label_maps
from metasynth.experiments.comparison.atlas import atlases_of
from support.caches import INFO, arrays, make
from support.head_phantom import head_image, head_labels, save

from metasynth.cli.main import main
from metasynth.data.cache import Cache, verify_digest, write_cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError
from metasynth.run import execute
from metasynth.segment.model_file import load_model

AXES = ("coronal", "axial", "sagittal")
SEVERAL = replace(INFO, axis=",".join(AXES), orientation="IR,PR,IP", spacing_mm=(2.0, 2.0))
VIEW = np.tile([0, 1, 2], 5)


def test_the_axis_of_every_slice_comes_back(tmp_path):
    digest = write_cache(tmp_path / "c.h5", **arrays(info=SEVERAL), view=VIEW)
    with Cache(tmp_path / "c.h5") as cache:
        assert cache.info == replace(SEVERAL, digest=digest)
        assert (cache.info.axes, cache.info.version) == (AXES, 4)
        assert cache.view.dtype == np.int64
        np.testing.assert_array_equal(cache.view, VIEW)
    assert verify_digest(tmp_path / "c.h5")
    assert write_cache(tmp_path / "d.h5", **arrays(info=SEVERAL), view=VIEW[::-1]) != digest
    with Cache(make(tmp_path / "one.h5")) as cache:
        assert (cache.info.axes, cache.view) == (("coronal",), None)


def test_a_dataset_says_of_which_axis_its_items_are(tmp_path):
    write_cache(tmp_path / "c.h5", **arrays(info=SEVERAL), view=VIEW)
    with Cache(tmp_path / "c.h5") as cache, Cache(make(tmp_path / "one.h5")) as one:
        assert (cache.info.views, one.info.views) == (("IR", "PR", "IP"), ("IR",))
        assert SliceDataset(cache, ("s3", "s1")).view.tolist() == VIEW[[*range(3, 6), *range(9, 12)]].tolist()
        assert SliceDataset(one, ("s3", "s1")).view.tolist() == [0] * 6


def test_a_remapped_cache_has_the_same_axes(tmp_path):
    write_cache(tmp_path / "a.h5", **arrays(info=SEVERAL), view=VIEW)
    remap_cache(tmp_path / "a.h5", tmp_path / "b.h5", CURVES["bent"])
    with Cache(tmp_path / "b.h5") as cache:
        np.testing.assert_array_equal(cache.view, VIEW)


@pytest.mark.parametrize(
    ("info", "view", "message"),
    [
        (SEVERAL, None, "got axes coronal, axial, sagittal, orientations IR, PR, IP and view []"),
        (SEVERAL, VIEW % 2, "got axes coronal, axial, sagittal, orientations IR, PR, IP and view [0, 1]"),
        (
            replace(SEVERAL, orientation="IR"),
            VIEW,
            "got axes coronal, axial, sagittal, orientations IR and view [0, 1, 2]",
        ),
        (SEVERAL, VIEW[:3], "view must have shape (15,) like labels, got (3,)"),
        (SEVERAL, VIEW.astype(float), "view must hold integers, got float64"),
        (INFO, VIEW * 0, "view must be of several axes, got coronal"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, info, view, message):
    with pytest.raises(DataError) as caught:
        write_cache(tmp_path / "c.h5", **arrays(info=info), view=view)
    assert str(caught.value).endswith(message)
    assert not (tmp_path / "c.h5").exists()


def test_a_file_that_was_changed_is_told(tmp_path):
    write_cache(tmp_path / "c.h5", **arrays(info=SEVERAL), view=VIEW)
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file["view"][0] = 7
    with pytest.raises(DataError, match=r"c\.h5: must have an orientation and slices of each axis, .*\[0, 1, 2, 7\]"):
        Cache(tmp_path / "c.h5")


def test_an_atlas_does_not_take_them(tmp_path):
    write_cache(tmp_path / "c.h5", **arrays(info=SEVERAL), view=VIEW)
    with Cache(tmp_path / "c.h5") as cache:
        maps = SliceDataset(cache, cache.subjects)
        with pytest.raises(DataError) as caught:
            atlases_of(maps.read(range(15)).labels, maps)
    assert str(caught.value) == (
        f"{tmp_path}/c.h5: the atlas takes slices along one axis, got those along coronal,axial,sagittal"
    )


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """The command line in a folder with four heads."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        ids = head_labels(seed=i)
        save(tmp_path / "images" / f"s{i}.nii.gz", head_image(ids, seed=i), "LIA")
        save(tmp_path / "aseg" / f"s{i}.nii.gz", ids, "PSR")
    return lambda *arguments: CliRunner().invoke(main, [*arguments])


def prepared(cli, *arguments):
    result = cli("prep", *arguments, "--jobs", "1", "--no-montage")
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    "command",
    [
        ("labels", "aseg"),
        ("labels", "aseg", "--head", "--generate", "freesurfer-structures"),
        ("nifti", "--images", "images", "--labels", "aseg", "--resample-labels", "--spacing", "1.5"),
    ],
)
def test_one_command_makes_a_cache_of_several_axes(cli, tmp_path, command):
    """It holds what a cache of each axis holds, every slice cut to one shape, all of a person beside one another."""
    given = (*command, "--size", "48,64", "--slices", "around:5", "--every", "4")
    result = prepared(cli, *given, "--axis", "coronal, axial,sagittal", "--out", "all.h5")
    assert result.stdout.startswith("Subjects: 4 used, 0 left out\nCache: all.h5 (60 slices of 48 x 64)\n")
    assert "subjects: 12/12" in result.stderr
    assert json.loads((tmp_path / "all.report.json").read_text())["used"] == {f"s{i}": 15 for i in range(4)}
    with Cache("all.h5") as found:
        assert (found.info.axis, found.info.orientation) == ("coronal,axial,sagittal", "IR,PR,IP")
        np.testing.assert_array_equal(found.subject_index, np.repeat(range(4), 15))
        for k, axis in enumerate(AXES):
            prepared(cli, *given, "--axis", axis, "--out", f"{axis}.h5")
            rows = np.flatnonzero(found.view == k)
            with Cache(f"{axis}.h5") as alone:
                assert alone.info.spacing_mm == found.info.spacing_mm
                np.testing.assert_array_equal(found.subject_index[rows], alone.subject_index)
                np.testing.assert_array_equal(found.slice_index[rows], alone.slice_index)
                for name in ("labels", "images")[: 1 + alone.has_images]:
                    np.testing.assert_array_equal(
                        found.read_stored(name, rows), alone.read_stored(name, range(alone.n))
                    )
    lines = cli("inspect", "all.h5").stdout.splitlines()
    assert ["axis", "coronal,axial,sagittal,", "orientation", "IR,PR,IP"] in [line.split() for line in lines]


def test_without_a_size_the_slices_of_every_axis_fit_in(cli):
    prepared(
        cli, "labels", "aseg", "--slices", "all", "--axis", "coronal,axial,sagittal", "--divisor", "1", "--out", "a.h5"
    )
    shapes = []
    for axis in AXES:
        prepared(cli, "labels", "aseg", "--slices", "all", "--axis", axis, "--divisor", "1", "--out", f"{axis}.h5")
        with Cache(f"{axis}.h5") as alone:
            shapes.append(alone.shape)
    assert len({*shapes}) > 1
    with Cache("a.h5") as found:
        assert found.shape == tuple(np.max(shapes, axis=0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("--axis", "coronal,oblique"),
            "Error: Invalid value for '--axis': 'oblique' is not one of 'coronal', 'axial',",
        ),
        (("--axis", "axial,axial"), "Error: Invalid value for '--axis': 'axial,axial' names an axis twice."),
        (("--axis", "coronal,axial", "--volumes"), "Error: --axis coronal,axial: expected one axis with --volumes"),
        (
            ("--axis", "coronal,axial", "--spacing", "1,1,2"),
            "Error: --spacing 1,1,2: expected one number with slices of several axes",
        ),
    ],
)
def test_axes_that_cannot_be_sliced_are_refused_before_anything_is_done(cli, tmp_path, given, message):
    result = cli("prep", "labels", "aseg", *given, "--out", "a.h5")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "a.h5.work").exists()


def test_voxels_that_are_no_cubes_are_told(cli, tmp_path):
    save(tmp_path / "flat" / "s0.nii.gz", head_labels(), spacing=(1.0, 1.0, 2.0))
    result = cli("prep", "labels", "flat", "--axis", "coronal,axial", "--out", "a.h5", "--jobs", "1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: no subject could be used: s0: its voxels are 1 x 2 x 1 mm (slicing axis, rows, columns), slices of "
        "several axes need cubes; --spacing brings all to one"
    )
    prepared(cli, "labels", "flat", "--axis", "coronal,axial", "--spacing", "2", "--out", "a.h5")


def test_a_scan_that_fails_along_one_axis_is_left_out(cli, tmp_path):
    save(tmp_path / "aseg" / "s1.nii.gz", head_labels(shape=(36, 44, 20)))
    result = prepared(cli, "labels", "aseg", "--axis", "sagittal,axial", "--slices", "20,22", "--out", "a.h5")
    assert result.stdout.startswith("Subjects: 3 used, 1 left out\nCache: a.h5 (12 slices")
    left_out = "Left out: s1: aseg/s1.nii.gz: slice 22 is asked for; the volume has slices 0 to 19 along this axis"
    assert left_out in result.stderr.splitlines()
    with Cache("a.h5") as cache:
        assert cache.subjects == ("s0", "s2", "s3")


def test_a_network_that_learned_from_several_axes_looks_along_each(cli, tmp_path):
    """From label maps to a label map: the model file says along which axes scans are looked at."""
    prepared(cli, "labels", "aseg", "--slices", "around:4", "--axis", "coronal,axial,sagittal", "--out", "a.h5")
    settings = ["segmenter.widths=4,8", "segmenter.batch_size=2", "segmenter.steps=2", "pace.workers=0"]
    options = {"seed": 1, "device": "cpu", "threads": 1, "quiet": True}
    execute(label_maps.EXPERIMENT, tmp_path / "run", overrides=settings, data=tmp_path / "a.h5", **options)
    description = load_model(tmp_path / "run" / "models" / "segmenter.pt").description
    assert description.views == ("IR", "PR", "IP")
    arguments = (
        "images/s0.nii.gz",
        "--model",
        "run",
        "--stripped",
        "--out",
        "out",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    result = cli("predict", *arguments)
    assert result.exit_code == 0, result.output
    said = "trained on coronal, axial and sagittal slices of 48 x 48 voxels of 1 x 1 mm (orientation IR, PR and IP)"
    assert said in result.stderr
    assert (tmp_path / "out" / "s0.nii.gz").is_file()
