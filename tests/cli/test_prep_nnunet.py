"""prep nnunet: from a raw data set of nnU-Net to the cache that its files give by other commands."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from support.nnunet_dataset import TISSUES, make_dataset

from metasynth.cli.main import main
from metasynth.data.cache import Cache

CLASSES = "".join(f"{number},{name}\n" for name, number in TISSUES.items())


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_dataset(tmp_path / "Dataset001_Heads", channels=2, licence="CC0")


def prep(*arguments: str):
    return CliRunner().invoke(main, ["prep", *arguments, "--jobs", "1", "--quiet", "--no-montage"])


def items(path: str) -> tuple[np.ndarray, np.ndarray]:
    with Cache(path) as cache:
        return cache.read_labels(range(cache.n)), cache.read_images(range(cache.n))


@pytest.mark.parametrize("options", [(), ("--3d", "--spacing", "2", "--size", "32,32,32"), ("--no-strip",)])
def test_its_cache_is_that_of_its_files(dataset, tmp_path, options):
    done = prep("nnunet", dataset.name, "--channel", "PD", "--out", "a.h5", *options)
    assert done.exit_code == 0, done.output
    (tmp_path / "map.csv").write_text(CLASSES)
    named = ("--images", f"{dataset.name}/imagesTr/*_0001.nii.gz", "--labels", f"{dataset.name}/labelsTr")
    again = prep("nifti", *named, "--mapping", "map.csv", "--out", "b.h5", *options)
    assert again.exit_code == 0, again.output
    for one, other in zip(items("a.h5"), items("b.h5"), strict=True):
        np.testing.assert_array_equal(one, other)
    with Cache("a.h5") as cache:
        assert cache.class_names == tuple(TISSUES)
        assert cache.info.mapping == "dataset.json: labels of an nnU-Net data set"
        assert cache.info.source == "nnU-Net data set: Dataset001_Heads; channel PD; CC0"
        assert cache.subjects == ("head_0", "head_1")


def test_a_mapping_that_is_named_counts(dataset, tmp_path):
    (tmp_path / "map.csv").write_text("1,brain\n2,brain\n3,brain\n4,fluid\n")
    done = prep("nnunet", dataset.name, "--channel", "0", "--mapping", "map.csv", "--out", "a.h5")
    assert done.exit_code == 0, done.output
    with Cache("a.h5") as cache:
        assert cache.class_names == ("background", "brain", "fluid")


def test_an_image_without_a_label_map_is_left_out_and_named(dataset):
    (dataset / "labelsTr" / "head_1.nii.gz").unlink()
    done = prep("nnunet", dataset.name, "--channel", "T1", "--out", "a.h5")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[-2:] == [
        "Left out: head_1: Dataset001_Heads/imagesTr: has no label map; Dataset001_Heads/labelsTr/head_1.nii.gz is "
        "missing",
        "Note: Dataset001_Heads/dataset.json: numTraining: says 2, and labelsTr holds 1 label maps",
    ]


def test_ids_that_the_description_does_not_name_are_refused(dataset):
    content = json.loads((dataset / "dataset.json").read_text())
    content["labels"].pop("ventricles")
    (dataset / "dataset.json").write_text(json.dumps(content))
    done = prep("nnunet", dataset.name, "--channel", "T1", "--out", "a.h5")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(
        "Error: no subject could be used: head_0: Dataset001_Heads/labelsTr/head_0.nii.gz: mapping dataset.json does "
        "not name id 4 ("
    )
