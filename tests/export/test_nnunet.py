"""Training images of a run as a raw data set of nnU-Net, and back."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from metasynth.data_prep.scaling import scale
from metasynth.data_prep.slicing import cut, label_box
from support.tiny_noise import CLASSES, arguments, make_cache

from metasynth.cli.main import main
from metasynth.data.cache import Cache
from metasynth.data.dataset import draw_items
from metasynth.export.nnunet import as_volume
from metasynth.export.run_images import run_images
from metasynth.running.progress import Progress
from metasynth.running.seeding import generator_for

SHAPES = {"slices": (16, 32), "views": (16, 32), "volumes": (16, 16, 32)}
VIEWS = {"views": ("coronal,axial,sagittal", "IR,PR,IP")}


@pytest.fixture(scope="module", params=list(SHAPES))
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    cache = make_cache(folder / "c.h5", shape=SHAPES[request.param], views=VIEWS.get(request.param, ("coronal", "IR")))
    done = CliRunner().invoke(main, arguments(folder / "run", cache, baselines="false"))
    assert done.exit_code == 0, done.output
    return folder / "run"


def export(run: Path, out: Path, *options: str) -> Path:
    done = CliRunner().invoke(main, ["export", "nnunet", str(run), "--out", str(out), "--quiet", *options])
    assert done.exit_code == 0, done.output
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def cases(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, image, labels) as the cache has them, in the order they were made."""
    found = []
    for path in sorted((folder / "labelsTr").iterdir(), key=lambda path: path.name.split("-")[-1]):
        name = path.name.removesuffix(".nii.gz")
        files = folder / "imagesTr" / f"{name}_0000.nii.gz", path
        image, labels = (np.asarray(nib.load(file).dataobj).T for file in files)
        found.append((name, *((image[0], labels[0]) if len(image) == 1 else (image, labels))))
    return found


def test_images_are_those_of_the_run_s_training_with_their_label_maps(run, tmp_path):
    out = export(run, tmp_path / "Dataset501_Tiny", "--n", "3", "--seed", "4")
    made = run_images(run, None, Progress(quiet=True)).images
    items = draw_items(made.dataset, 3, generator_for(4, "export", "items")).tolist()
    found = cases(out)
    assert [name for name, *_ in found] == [
        f"{made.dataset.subjects[made.dataset.subject_index[item]]}-{k:05d}" for k, item in enumerate(items)
    ]
    for k, (item, (_, image, labels)) in enumerate(zip(items, found, strict=True)):
        example = made.source(made.dataset.read([item]), generator_for(4, "export", k))
        np.testing.assert_array_equal(image, example.images[0, 0].numpy())
        np.testing.assert_array_equal(labels, example.labels[0].numpy())
        assert (image.dtype, labels.dtype) == (np.float32, np.uint8)


def test_every_image_and_label_map_lies_as_its_item_does(run, tmp_path):
    made = run_images(run, None, Progress(quiet=True)).images
    count = len(made.dataset)
    out = export(run, tmp_path / "Dataset501_Tiny", "--n", str(count))
    info, items = made.dataset.cache.info, draw_items(made.dataset, count, generator_for(0, "export", "items")).tolist()
    expected = [info.views[made.dataset.view[item]][::-1] for item in items]
    assert {*expected} == {view[::-1] for view in info.views}
    for folder in ("imagesTr", "labelsTr"):
        files = sorted((out / folder).iterdir(), key=lambda path: path.name.split("-")[-1])
        found = ["".join(nib.aff2axcodes(nib.load(file).affine)) for file in files]
        assert [codes[: len(view)] for codes, view in zip(found, expected, strict=True)] == expected


def test_the_description_is_nnunet_s_and_says_where_they_come_from(run, tmp_path):
    out = export(run, tmp_path / "Dataset501_Tiny", "--n", "2")
    found = json.loads((out / "dataset.json").read_text())
    with Cache(run.parent / "c.h5") as cache:
        digest = cache.info.digest
    assert {key: found[key] for key in ("channel_names", "labels", "numTraining", "file_ending", "reference")} == {
        "channel_names": {"0": "synthetic"},
        "labels": {name: k for k, name in enumerate(CLASSES)},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "reference": "random numbers",
    }
    assert found["description"] == (
        "SYNTHETIC images of brains as they were learned (experiment noise, stage sigma=0.1/learn, seed 0), drawn with "
        "seed 0"
    )
    assert found["metasynth"] == {
        "run": "run",
        "experiment": "noise",
        "stage": "sigma=0.1/learn",
        "seed": 0,
        "export_seed": 0,
        "cache_digest": digest,
        "mapping": "drawn by a test",
        "shows": "brain",
    }


def test_a_seed_gives_the_same_files_and_a_larger_number_goes_on(run, tmp_path):
    first = content(export(run, tmp_path / "Dataset501_A", "--n", "2"))
    again = content(export(run, tmp_path / "Dataset502_A", "--n", "2", "--stage", "sigma=0.1-learn"))
    more = content(export(run, tmp_path / "Dataset503_A", "--n", "9"))
    other = content(export(run, tmp_path / "Dataset504_A", "--n", "2", "--seed", "1"))
    assert first == again
    images = {name: data for name, data in first.items() if name != "dataset.json"}
    assert len(images) == 4
    assert images == {name: more[name] for name in images}
    assert len(more) == 19
    assert other != first


def test_prep_nnunet_reads_back_what_was_written(run, tmp_path, monkeypatch):
    out = export(run, tmp_path / "Dataset501_Tiny", "--n", "6")
    monkeypatch.chdir(tmp_path)
    with Cache(run.parent / "c.h5") as own:
        axes, views = own.info.axis, own.info.views
    shape = SHAPES["volumes"] if (volumes := len(cases(out)[0][1].shape) == 3) else SHAPES["slices"]
    options = ["--3d"] if volumes else ["--slices", "all", "--min-content", "0", "--axis", axes]
    size = ",".join(map(str, shape))
    command = ["prep", "nnunet", out.name, "--out", "b.h5", "--size", size, "--person", "(.*)-", *options]
    done = CliRunner().invoke(main, [*command, "--jobs", "1", "--no-montage"])
    assert done.exit_code == 0, done.output
    with Cache("b.h5") as cache, Cache(run.parent / "c.h5") as own:
        assert (cache.class_names, cache.shape) == (own.class_names, own.shape)
        assert cache.info.spacing_mm == pytest.approx(own.info.spacing_mm)
        assert (cache.info.axis, cache.info.views) == (axes, ("AIR",) if volumes else views)
        assert cache.n == 6
        files = sorted((out / "labelsTr").iterdir())
        lie = ["".join(nib.aff2axcodes(nib.load(file).affine))[1::-1] for file in files]
        assert volumes or [views[k] for k in (cache.view if len(views) > 1 else [0] * 6)] == lie
        back = (cache.read_labels(range(cache.n)), cache.read_images(range(cache.n)))
    for k, (_, image, labels) in enumerate(sorted(cases(out))):
        if volumes:  # of the cache's own orientation, ARI
            image, labels = (array.transpose(0, 2, 1) for array in (image, labels))
        scaled = scale(image, labels > 0, "").astype(np.float16)
        box = label_box(labels[None])
        for found, expected in zip(back, (labels, scaled), strict=True):
            np.testing.assert_array_equal(found[k], cut(expected[None], box, found[k].shape)[0])


def test_planes_along_another_axis_than_that_asked_for_are_left_out(tmp_path, monkeypatch):
    """And are no stacks of lines."""
    monkeypatch.chdir(tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "Dataset501_A" / folder).mkdir(parents=True)
    for k, orientation in enumerate(("IR", "PR", "IP")):
        labels = np.pad(np.ones((8, 12), np.uint8), 4)
        volume, affine = as_volume(labels, orientation, (1.0, 1.0))
        for name in (f"imagesTr/s{k}_0000", f"labelsTr/s{k}"):
            nib.save(nib.Nifti1Image(volume, affine), f"Dataset501_A/{name}.nii.gz")
    (tmp_path / "Dataset501_A" / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"})
    )
    command = ["prep", "nnunet", "Dataset501_A", "--out", "b.h5", "--axis", "axial", "--slices", "all"]
    done = CliRunner().invoke(main, [*command, "--jobs", "1", "--no-montage", "--no-strip"])
    assert done.exit_code == 0, done.output
    assert [line for line in done.stderr.splitlines() if line.startswith("Left out")] == [
        "Left out: s0: Dataset501_A/imagesTr/s0_0000.nii.gz: is one coronal plane, and has none along --axis axial; "
        "use --axis coronal",
        "Left out: s2: Dataset501_A/imagesTr/s2_0000.nii.gz: is one sagittal plane, and has none along --axis axial; "
        "use --axis sagittal",
    ]
    with Cache("b.h5") as cache:
        assert (cache.n, cache.subjects, np.count_nonzero(cache.read_labels([0]))) == (1, ("s1",), 96)


@pytest.mark.parametrize("orientation", ["IR", "PR", "IP"])
def test_nnunet_s_reader_sees_planes_first(tmp_path, orientation):
    """As SimpleITKIO of nnU-Net does: the axis of the largest spacing, the first of equal ones, is that of planes."""
    volume, affine = as_volume(np.arange(12.0, dtype=np.float32).reshape(3, 4), orientation, (2.0, 1.5))
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.arange(12.0).reshape(1, 3, 4))
    spacing = image.GetSpacing()[::-1]
    assert spacing == pytest.approx((2.0, 2.0, 1.5))
    assert np.argmax(spacing) == 0


@pytest.mark.parametrize(
    ("shape", "orientation", "spacing"),
    [((3, 4), "IR", (2, 3)), ((3, 4), "PR", (2, 3)), ((3, 4), "IP", (2, 3)), ((2, 3, 4), "AIR", (1, 2, 3))],
)
def test_a_volume_lies_as_the_orientation_says(shape, orientation, spacing):
    data = np.arange(np.prod(shape)).reshape(shape)
    volume, affine = as_volume(data, orientation, spacing)
    assert "".join(nib.aff2axcodes(affine))[: len(shape)] == orientation[::-1]
    assert np.linalg.norm(affine[:3, :3], axis=0).tolist() == [*spacing[::-1], 3][:3]
    np.testing.assert_array_equal(volume.T.reshape(shape), data)
    middle = affine @ [*((np.array(volume.shape) - 1) / 2), 1]
    assert middle.tolist() == [0, 0, 0, 1]
