"""What nnU-Net's raw data sets say of themselves, and which files are a case."""

import pytest
from metasynth.data_prep.cohorts.template import CLASS_NAMES
from metasynth.data_prep.datasets.nnunet import channel_of, nnunet_scans, read_dataset
from metasynth.data_prep.datasets.nnunet_labels import mapping_of
from metasynth.data_prep.mappings import MAPPINGS
from support.nnunet_dataset import TISSUES, described, make_dataset

from metasynth.errors import DataError, UsageError

BRATS = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing tumour": 3}


def message(error: type[Exception], function, *arguments) -> str:
    with pytest.raises(error) as found:
        function(*arguments)
    return str(found.value)


def test_a_description_is_read(tmp_path):
    found = read_dataset(
        described(tmp_path / "a", channel_names={"1": "PD", "0": "T1"}, reference=" doi:1 ", licence="CC\nBY", name="")
    )
    assert found.channels == {0: "T1", 1: "PD"}
    assert (found.ending, found.labels, found.training, found.notice) == (".nii.gz", TISSUES, 2, "doi:1; CC BY")


def test_one_of_version_1_has_its_labels_the_other_way_round_and_no_ending(tmp_path):
    old = {"0": "background", "2": "b", "1": "a"}
    found = read_dataset(
        described(tmp_path / "a", channel_names=None, modality={"0": "MRI"}, labels=old, file_ending=None)
    )
    assert (found.channels, found.ending) == ({0: "MRI"}, ".nii.gz")
    assert mapping_of(found.labels, "labels:").class_names == ("background", "a", "b")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"labels": None}, "{}: its content: expected an entry 'labels', got ['channel_names', 'file_ending', 'num..."),
        ({"labels": {"background": 0}}, "{}: labels: expected an object with at least 2 entries, got an object"),
        ({"labels": {"background": 0, "a": 1.5}}, "{}: labels.a: expected a whole number from 0 on, got 1.5"),
        ({"labels": {"b": 0, "a": "1"}}, "{}: labels: expected names with their numbers, got b: 0, a: 1"),
        ({"labels": {"0": "a", "1": "a"}}, "{}: labels: expected names that differ, got 0: a, 1: a"),
        ({"labels": {"b": "c", "1": "a"}}, "{}: labels: expected names with their numbers, got b: c, 1: a"),
        ({"file_ending": ".png"}, "{}: file_ending: expected one of .nii.gz, .nii, .mgz, .mgh, got '.png'"),
        ({"channel_names": None}, "{}: expected an entry 'channel_names'; it has file_ending, labels, numTraining"),
        ({"channel_names": {"1": "T1"}}, "{}: channel_names: expected the numbers 0, 1, ..., got 1"),
        ({"channel_names": {"T1": "0"}}, "{}: channel_names: expected the numbers 0, 1, ..., got T1"),
        ({"channel_names": {}}, "{}: channel_names: expected an object with at least 1 entry, got an empty object"),
        ({"numTraining": -1}, "{}: numTraining: expected a whole number from 0 on, got -1"),
    ],
)  # fmt: skip
def test_a_description_that_is_wrong_is_refused_in_a_line(tmp_path, changes, line):
    folder = described(tmp_path / "a", **changes)
    assert message(DataError, read_dataset, folder) == line.format(folder / "dataset.json")


def test_a_folder_that_is_no_data_set_is_refused_in_a_line(tmp_path):
    gone, empty, text = (tmp_path / name for name in ("gone", "empty", "text"))
    assert message(UsageError, read_dataset, gone) == f"FOLDER {gone}: there is no such folder"
    empty.mkdir()
    missing = f"{empty}: expected a raw data set of nnU-Net; dataset.json is missing"
    assert message(UsageError, read_dataset, empty) == missing
    described(text)
    (text / "dataset.json").write_text("{'labels'}")
    assert message(DataError, read_dataset, text).startswith(f"{text / 'dataset.json'}: is not valid JSON: Expecting")


def test_labels_are_classes_in_the_order_of_their_numbers():
    found = mapping_of({"fluid": 2, "background": 0, "grey": 1}, "labels:")
    assert (found.class_names, found.classes) == (("background", "grey", "fluid"), {0: 0, 1: 1, 2: 2})
    assert (found.t1, found.head, found.text) == ((), frozenset(), "dataset.json: labels of an nnU-Net data set")


def test_labels_called_as_the_usual_classes_have_their_shades():
    found = mapping_of({name: k for k, name in enumerate(CLASS_NAMES)}, "labels:")
    assert found.t1 == MAPPINGS["freesurfer-4"].t1


def test_of_regions_each_id_is_of_the_last_one_that_holds_it():
    found = mapping_of(BRATS, "labels:")
    assert found.class_names == ("background", "whole tumour", "tumour core", "enhancing tumour")
    assert found.classes == {0: 0, 1: 1, 2: 2, 3: 3}
    assert found.text == "dataset.json: regions, each without the later ones in it of an nnU-Net data set"
    swapped = mapping_of({"background": [0], "both": [1, 2], "first": 1}, "labels:")
    assert (swapped.class_names, swapped.classes) == (("background", "both", "first"), {0: 0, 1: 2, 2: 1})


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            TISSUES | {"ignore": 5},
            "labels: 'ignore' is what has no label, and a cache needs all; expected --mapping CSV",
        ),
        ({"a": 1, "b": 2}, "labels: expected 0 for the background alone, got a: 1, b: 2"),
        ({"background": 0, "a": [0, 1]}, "labels: expected 0 for the background alone, got background: 0, a: [0, 1]"),
        ({"background": 0, "a": 2}, "labels: expected the numbers 0, 1, ... without a gap, got background: 0, a: 2"),
        ({"background": 0, "a": 1, "b": 1}, "labels: expected one name a number, got background: 0, a: 1, b: 1"),
        (
            {"background": 0, "core": 1, "whole": [1, 2]},
            "labels: all of 'core' is in later regions; expected the whole before its parts",
        ),
        ({"background": 0, "": 1}, "labels: expected names of 1 to 200 characters, got ''"),
        ({"bg": 0, "background": 1}, "labels: expected names that differ, got background, background"),
        ({str(k): k for k in range(256)}, "labels: at most 255 classes are possible, got 256"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes_are_refused_in_a_line(labels, line):
    assert message(DataError, mapping_of, labels, "labels:") == line


def test_a_channel_is_its_number_or_name(tmp_path):
    one = read_dataset(described(tmp_path / "one"))
    two = read_dataset(described(tmp_path / "two", channel_names={"0": "T1", "1": "PD"}))
    assert channel_of(one, None) == 0
    assert [channel_of(two, given) for given in ("PD", "1", "0001", "T1")] == [1, 1, 1, 0]
    assert message(UsageError, channel_of, two, None) == (
        f"{two.where}: has 2 channels, 0 (T1), 1 (PD), and a cache holds one; name it by --channel"
    )
    assert message(UsageError, channel_of, two, "T2") == "--channel T2: expected one of 0 (T1), 1 (PD)"


def test_cases_are_images_of_a_channel_and_their_label_maps(tmp_path):
    folder = make_dataset(tmp_path / "a", channels=2, numTraining=3)
    for name in ("lost_0001", "odd"):
        (folder / "imagesTr" / f"{name}.nii.gz").touch()
    (folder / "labelsTr" / "alone.nii.gz").touch()
    (folder / "labelsTr" / "notes.txt").touch()
    found = nnunet_scans(read_dataset(folder), 1)
    assert [(scan.name, scan.image.name, scan.labels.name) for scan in found.scans] == [
        ("head_0", "head_0_0001.nii.gz", "head_0.nii.gz"),
        ("head_1", "head_1_0001.nii.gz", "head_1.nii.gz"),
    ]
    images, labels = folder / "imagesTr", folder / "labelsTr"
    assert found.left_out == [
        ("odd", f"{images}/odd.nii.gz: expected a name such as odd_0000.nii.gz"),
        ("alone", f"{labels}/alone.nii.gz: has no image; {images}/alone_0001.nii.gz is missing"),
        ("lost", f"{images}: has no label map; {labels}/lost.nii.gz is missing"),
    ]
    (folder / "labelsTr" / "alone.nii.gz").unlink()
    assert nnunet_scans(read_dataset(folder), 1).notes == [
        f"{folder}/dataset.json: numTraining: says 3, and labelsTr holds 2 label maps"
    ]


def test_folders_without_cases_are_refused_in_a_line(tmp_path):
    folder = described(tmp_path / "a")
    missing = f"{folder}: expected a raw data set of nnU-Net; imagesTr is missing"
    assert message(UsageError, nnunet_scans, read_dataset(folder), 0) == missing
    (folder / "imagesTr").mkdir()
    (folder / "labelsTr").mkdir()
    none = f"{folder}/imagesTr: holds no image called CASE_0000.nii.gz"
    assert message(UsageError, nnunet_scans, read_dataset(folder), 0) == none
