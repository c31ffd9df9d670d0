"""Priors of structures: matched to other labels by name, written to a file and read back."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metasynth.errors import DataError
from metasynth.synthesis.priors.priors_file import PRIORS, read_priors, write_priors
from metasynth.synthesis.priors.structure_priors import Prior, StructurePriors

PRIOR = StructurePriors(
    (
        Prior("background", "background"),
        Prior("white", "tissue", 0.8, 0.04, 0.1, people=5, voxels=300, erosion="square"),
        Prior("grey", "tissue", 0.4, 0.02, 0.2, people=5, voxels=100, erosion="cross", cut=True),
        Prior("fluid", "fluid", 0.1, 0.01, 0.05, people=4, voxels=50),
    )
)
ORIGIN = {"cache": "scans.h5", "digest": "0" * 64, "subjects": ["a", "b"]}


def written(folder: Path, change: Any = lambda value: None) -> Path:
    path = folder / "priors.json"
    write_priors(path, PRIOR, ORIGIN)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_labels_take_the_values_of_their_namesakes_and_else_those_of_their_class():
    found = PRIOR.of_labels(
        ("nothing", "fluid", "lesion", "white", "vein"), ("none", "dark", "tissue", "tissue", "background")
    )
    assert found.labels[:2] == (Prior("nothing", "none"), replace(PRIOR.labels[3], of_class="dark"))
    assert found.labels[2].values == pytest.approx((0.7, 0.035, 0.125))
    assert (found.labels[2].people, found.labels[2].voxels) == (0, 0)
    assert found.labels[3:] == (PRIOR.labels[1], Prior("vein", "background"))


def test_a_class_of_which_no_voxels_are_told_takes_the_mean_of_its_structures():
    by_hand = StructurePriors(tuple(replace(label, voxels=0) for label in PRIOR.labels))
    assert by_hand.of_labels(("b", "tissue"), ("b", "tissue")).labels[1].values == pytest.approx((0.6, 0.03, 0.15))


def test_a_label_of_an_unknown_class_is_refused():
    expected = (
        "expected values of 'bone' or of its class 'skull', got those of white, grey, fluid in the classes background, "
        "tissue, fluid"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        PRIOR.of_labels(("background", "bone"), ("background", "skull"))


def test_clusters_have_the_values_of_their_structure():
    found = PRIOR.repeated(2)
    assert found.names == ("background", "white 1", "white 2", "grey 1", "grey 2", "fluid 1", "fluid 2")
    assert found.mean == (0, 0.8, 0.8, 0.4, 0.4, 0.1, 0.1)


def test_a_file_reads_back_and_says_what_it_is_from(tmp_path):
    path = written(tmp_path)
    assert read_priors(path) == PRIOR
    value = json.loads(path.read_text())
    assert value["from"] == ORIGIN
    assert value["format"] == "metasynth-priors/1"
    assert value["labels"][2] == {
        **{"name": "grey", "class": "tissue", "mean": 0.4, "spread": 0.02, "texture": 0.2},
        **{"people": 5, "voxels": 100, "erosion": "cross", "cut": True},
    }


def test_a_file_by_hand_needs_no_more_than_names_and_values(tmp_path):
    def plain(value: Any) -> None:
        value.pop("from"), value.pop("units")
        for label in value["labels"]:
            label.pop("people"), label.pop("voxels"), label.pop("erosion"), label.pop("cut")

    found = read_priors(written(tmp_path, plain))
    assert [label.values for label in found.labels] == [label.values for label in PRIOR.labels]


def change(*keys: Any, to: Any) -> Any:
    def apply(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return apply


FAULTS = {
    "format": (change("format", to="x"), "format: expected one of metasynth-priors/1, got 'x'"),
    "few": (change("labels", to=[]), "labels: expected a list of at least 2, got an empty list"),
    "missing": (
        lambda v: v["labels"][1].pop("mean"),
        "labels.1: expected an entry 'mean', got ['class', 'cut', 'erosion', 'name', '...",
    ),
    "text": (change("labels", 1, "mean", to="a"), "labels.1.mean: expected a finite number, got 'a'"),
    "mean": (change("labels", 1, "mean", to=1.5), "mean of 'white': expected a number in [0, 1], got 1.5"),
    "spread": (
        change("labels", 2, "spread", to=-1),
        "spread of 'grey': expected a finite number of at least 0, got -1",
    ),
    "erosion": (
        change("labels", 2, "erosion", to="all"),
        "labels.2.erosion: expected one of square, cross, none, got 'all'",
    ),
    "cut": (change("labels", 2, "cut", to="yes"), "labels.2.cut: expected true or false, got 'yes'"),
    "unknown": (
        change("labels", 2, "sd", to=1),
        "labels.2: expected entries class, cut, erosion, mean, name, people, spread, texture, voxels, got 'sd'",
    ),
    "twice": (change("labels", 2, "name", to="white"), "labels: expected different names, got 'white' twice"),
    "background": (
        change("labels", 0, "mean", to=0.5),
        "values of 'background', label 0: expected 0, 0, 0 (it has no intensity), got 0.5, 0, 0",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_entry_is_told_in_one_line(name, tmp_path):
    fault, message = FAULTS[name]
    path = written(tmp_path, fault)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_priors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file is missing"),
        ("", "expected a file of priors, which is JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "its content: expected an object, got an empty list"),
        ('{"a": 1, "a": 2}', "expected a file of priors, which is JSON: the key 'a' is given twice"),
    ],
)
def test_what_is_no_file_of_priors_is_told_in_one_line(content, message, tmp_path):
    path = tmp_path / "priors.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_priors(path)


def test_its_own_files_are_known(tmp_path):
    path = written(tmp_path)
    assert PRIORS.is_ours(path)
    path.write_text("{}")
    assert not PRIORS.is_ours(path)
