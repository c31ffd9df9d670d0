"""Every way in which a cache can be wrong gives one line that names the file and what is wrong."""

import dataclasses
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caches import FINE_INFO, arrays, make

from metasynth.data import digests
from metasynth.data.cache import Cache, verify_digest, write_cache
from metasynth.errors import DataError


def open_error(path) -> str:
    with pytest.raises(DataError) as caught:
        Cache(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def edited(path, edit):
    make(path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replace(name, value):
    def edit(file):
        del file[name]
        file[name] = value

    return edit


def set_item(name, at, value):
    def edit(file):
        file[name][at] = value

    return edit


def set_attribute(name, value):
    def edit(file):
        file.attrs[name] = value

    return edit


def test_files_that_cannot_be_opened(tmp_path):
    assert "cannot be opened: No such file" in open_error(tmp_path / "absent.h5")
    assert "cannot be opened: Is a directory" in open_error(tmp_path)
    (tmp_path / "text.h5").write_text("subject,label\n")
    assert "is not an HDF5 file" in open_error(tmp_path / "text.h5")
    (tmp_path / "empty.h5").write_bytes(b"")
    assert "is not an HDF5 file" in open_error(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert "is not a metasynth-cache file (no attribute 'format')" in open_error(tmp_path / "other.h5")


def test_a_file_that_is_open_for_writing_is_not_called_damaged(tmp_path):
    path = make(tmp_path / "c.h5")
    code = "import h5py, os, sys; file = h5py.File(sys.argv[1], 'r+'); file.attrs['x'] = 1; os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)  # killed while it had the file open
    elsewhere = "is open for writing in another program, or was when that was killed: close it there, or remove the "
    assert open_error(path) == f"{path}: {elsewhere}mark it left with h5clear -s"
    with h5py.File(make(path), "r"):
        assert open_error(path) == f"{path}: is open in this process already, by other means; close it first"


CASES = {
    "format": (set_attribute("format", "another"), "is not a metasynth-cache file (format 'another')"),
    "version": (set_attribute("version", 5), "format versions 1 to 4 are supported, got 5"),
    "version type": (set_attribute("version", "one"), "format versions 1 to 4 are supported, got one"),
    "version 3": (set_attribute("version", 3), "attribute 'shows' is missing"),
    "version 4": (set_attribute("version", 4), "dataset 'view' is missing"),
    "no digest": (lambda file: file.attrs.pop("digest"), "attribute 'digest' is missing"),
    "no classes": (lambda file: file.attrs.pop("class_names"), "attribute 'class_names' is missing"),
    "no spacing": (lambda file: file.attrs.pop("spacing_mm"), "attribute 'spacing_mm' is missing"),
    "mapping type": (set_attribute("mapping", 3), "attribute 'mapping' must be text, got"),
    "classes type": (set_attribute("class_names", [1, 2]), "attribute 'class_names' must be a list of text"),
    "spacing type": (set_attribute("spacing_mm", "thin"), "attribute 'spacing_mm' must be a list of numbers"),
    "spacing length": (
        set_attribute("spacing_mm", [1.0]),
        "spacing_mm must be 2 positive numbers, got [1.0]",
    ),
    "spacing sign": (set_attribute("spacing_mm", [1.0, -1]), "spacing_mm must be 2 positive numbers"),
    "one class": (set_attribute("class_names", ["a"]), "class_names must hold at least 2 names, got 1"),
    "classes twice": (set_attribute("class_names", ["a", "b", "a"]), "class name 'a' is listed twice"),
    "no labels": (lambda file: file.pop("labels"), "dataset 'labels' is missing"),
    "no subject": (lambda file: file.pop("subject"), "dataset 'subject' is missing"),
    "no subjects": (lambda file: file.pop("subjects"), "dataset 'subjects' is missing"),
    "no slice": (lambda file: file.pop("slice"), "dataset 'slice' is missing"),
    "group": (lambda file: (file.pop("slice"), file.create_group("slice")), "dataset 'slice' is missing"),
    "labels type": (replace("labels", np.zeros((15, 6, 7))), "labels must be uint8 or int16, got float64"),
    "images type": (
        replace("images", np.zeros((15, 6, 7))),
        "images must be float16 or float32, got float64",
    ),
    "labels shape": (
        replace("labels", np.zeros((15, 6, 6), np.uint8)),
        "images and labels must have one shape, got images (15, 6, 7) and labels (15, 6, 6)",
    ),
    "labels flat": (
        replace("labels", np.zeros((15, 6), np.uint8)),
        "labels must be (N, H, W) or (N, D, H, W)",
    ),
    "subject length": (replace("subject", np.zeros(14, int)), "subject must have shape (15,) like labels"),
    "slice length": (replace("slice", np.zeros(16, int)), "slice must have shape (15,) like labels"),
    "slice type": (replace("slice", np.zeros(15)), "slice must hold integers, got float64"),
    "subjects type": (replace("subjects", np.arange(5)), "dataset 'subjects' must hold text"),
    "label": (set_item("labels", (7, 1, 1), 3), "label 3 in slice 7 is beyond the 3 classes"),
    "nan": (set_item("images", (4, 0, 0), np.nan), "images hold NaN or infinite values, first in slice 4"),
    "infinity": (set_item("images", (4, 0, 0), -np.inf), "images hold NaN or infinite values"),
    "above": (set_item("images", (9, 0, 0), 1.5), "image value 1.5 in slice 9 is outside [0, 1]"),
    "below": (set_item("images", (9, 0, 0), -0.25), "image value -0.25 in slice 9 is outside [0, 1]"),
    "subject index": (set_item("subject", 2, 5), "subject index 5 of slice 2 is out of range"),
    "negative index": (set_item("subject", 2, -1), "subject index -1 of slice 2 is out of range"),
    "duplicate": (replace("subjects", ["a", "b", "c", "b", "d"]), "subject 'b' is listed twice"),
    "unused": (replace("subjects", [*"abcdef"]), "subject 'f' has no slices"),
    "nameless": (replace("subjects", [*"abcd", ""]), "a subject must be printable text of one line, got ''"),
    "two lines": (replace("subjects", [*"abcd", "e\nf"]), "a subject must be printable text of one line"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_contents(tmp_path, case):
    edit, message = CASES[case]
    assert message in open_error(edited(tmp_path / "c.h5", edit))


FINE_CASES = {
    "no table": (lambda file: file.attrs.pop("target"), "attribute 'target' is missing"),
    "no names": (lambda file: file.attrs.pop("generation_names"), "attribute 'generation_names' is missing"),
    "names type": (set_attribute("generation_names", [1, 2]), "attribute 'generation_names' must be a list of text"),
    "table type": (set_attribute("target", [0.0, 1.5]), "attribute 'target' must be a list of whole numbers"),
    "table text": (set_attribute("target", "0"), "attribute 'target' must be a list of whole numbers"),
    "table shape": (set_attribute("target", [[0, 1]]), "attribute 'target' must be a list of whole numbers"),
    "table short": (
        set_attribute("target", [0, 1, 2, 0]),
        "target must give a class for each of the 5 generation_names, got 4",
    ),
    "table beyond": (
        set_attribute("target", [0, 1, 2, 0, 3]),
        "target of generation label 'cortex' must be 0 to 2, got 3",
    ),
    "table negative": (
        set_attribute("target", [0, 1, 2, -1, 2]),
        "target of generation label 'fluid' must be 0 to 2, got -1",
    ),
    "background": (
        set_attribute("target", [1, 1, 2, 0, 2]),
        "target of generation label 0, 'background', must be 0, got 1",
    ),
    "class without": (
        set_attribute("target", [0, 1, 1, 0, 1]),
        "class 'grey matter' is the target of no generation label",
    ),
    "names twice": (
        set_attribute("generation_names", ["background", "a", "b", "c", "a"]),
        "generation label 'a' is listed twice; names must be unique",
    ),
    "nameless": (
        set_attribute("generation_names", ["background", "a", "b", "c", ""]),
        "a generation label must be printable text of one line, got ''",
    ),
    "label": (
        set_item("labels", (7, 1, 1), 5),
        "label 5 in slice 7 is beyond the 5 labels of generation_names (0 to 4)",
    ),
    "version": (
        set_attribute("version", 1),
        "label 4 in slice 0 is beyond the 3 classes of class_names (0 to 2)",
    ),
    "empty": (
        lambda file: file.attrs.update({"generation_names": np.array([], "S1"), "target": np.array([], int)}),
        "generation_names must hold at least 2 names, got 0",
    ),
}


@pytest.mark.parametrize("case", FINE_CASES)
def test_wrong_generation_labels(tmp_path, case):
    edit, message = FINE_CASES[case]
    path = make(tmp_path / "c.h5", info=FINE_INFO)
    with h5py.File(path, "r+") as file:
        edit(file)
    assert open_error(path) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": (0, 1, 2)}, "target must give a class for each of the 5 generation_names, got 3"),
        ({"generation_names": ()}, "target must give a class for each of the 0 generation_names, got 5"),
        ({"target": (0, 1, 1, 0, 1)}, "class 'grey matter' is the target of no generation label"),
    ],
)
def test_wrong_generation_labels_are_not_written(tmp_path, change, message):
    path = tmp_path / "c.h5"
    with pytest.raises(DataError) as caught:
        write_cache(path, **{**arrays(info=FINE_INFO), "info": dataclasses.replace(FINE_INFO, **change)})
    assert str(caught.value) == f"{path}: {message}"
    assert not path.exists()


@pytest.mark.parametrize(
    "edit",
    [
        set_item("labels", (7, 1, 1), 2),
        set_item("images", (4, 0, 0), 0.125),
        set_item("slice", 3, 9),
        set_item("subject", 3, 0),
        replace("subjects", [*"abcde"]),
        set_attribute("class_names", ["background", "grey matter", "white matter"]),
        set_attribute("spacing_mm", [2.0, 2.0]),
        set_attribute("orientation", "AR"),
        set_attribute("digest", "0" * 64),
    ],
)
def test_a_cache_that_was_changed_in_place_is_refused(tmp_path, edit):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        file["labels"][7, 1, 1] = 1
    with Cache(path, check_digest=False) as cache:
        write_cache(path, **arrays() | {"labels": cache.read_labels(range(cache.n))})
    Cache(path).close()
    with h5py.File(path, "r+") as file:
        edit(file)
    assert open_error(path) == (
        f"{path}: its content was changed after it was written (it no longer has the digest that it carries); make it "
        "again"
    )
    Cache(path, check_digest=False).close()


def test_values_are_read_once_for_both_checks(tmp_path, monkeypatch):
    path, reads = make(tmp_path / "c.h5"), []
    blocks = digests.blocks

    def counted(array, where, name):
        reads.append(name)
        return blocks(array, where, name)

    monkeypatch.setattr(digests, "blocks", counted)
    Cache(path).close()
    assert reads == ["labels", "images", "subject", "slice"]


def test_negative_labels_are_refused(tmp_path):
    labels = np.zeros((15, 6, 7), np.int16)
    labels[5, 0, 0] = -2
    assert "label -2 in slice 5 is beyond" in open_error(edited(tmp_path / "c.h5", replace("labels", labels)))


def test_empty_cache(tmp_path):
    def empty(file):
        replace("labels", np.zeros((0, 6, 7), np.uint8))(file)
        replace("images", np.zeros((0, 6, 7), np.float32))(file)

    assert "holds no slices" in open_error(edited(tmp_path / "c.h5", empty))
    path = edited(tmp_path / "d.h5", lambda file: replace("subjects", np.array([], dtype="S3"))(file))
    assert "holds no subjects" in open_error(path)


def test_values_are_checked_unless_asked_not_to_be(tmp_path):
    path = edited(tmp_path / "c.h5", CASES["label"][0])
    Cache(path, check_values=False).close()
    open_error(path)


@settings(max_examples=25, deadline=None)
@given(kept=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(tmp_path_factory, kept):
    path = make(tmp_path_factory.mktemp("cache") / "c.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    open_error(path)
    with pytest.raises(DataError):
        verify_digest(path)


@settings(max_examples=50, deadline=None)
@given(position=st.floats(0, 0.9999), value=st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_harmless(tmp_path_factory, position, value):
    path = make(tmp_path_factory.mktemp("cache") / "c.h5")
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= value
    path.write_bytes(content)
    message = f"{path}:"
    try:
        with Cache(path) as cache:
            np.testing.assert_array_equal(cache.read_labels(range(15)), arrays()["labels"])
            np.testing.assert_array_equal(cache.read_images(range(15)), arrays()["images"])
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path}:")
    assert "\n" not in message


def moved_out(name, link):
    """The values of a dataset in a file of their own, and a link to them in the cache."""

    def edit(file):
        with h5py.File(f"{file.filename}.other", "w") as other:
            other[name] = file[name][()]
        del file[name]
        file[name] = link(f"{file.filename}.other", name)

    return edit


def external(file):
    values = file["labels"][()]
    del file["labels"]
    place = f"{file.filename}.raw"
    values.tofile(place)
    file.create_dataset("labels", values.shape, values.dtype, external=[(place, 0, values.nbytes)])


def virtual(file):
    values = file["labels"][()]
    with h5py.File(f"{file.filename}.other", "w") as other:
        other["labels"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(f"{file.filename}.other", "labels", values.shape)
    del file["labels"]
    file.create_virtual_dataset("labels", layout)


def within(file):
    file.move("labels", "others")
    file["labels"] = h5py.SoftLink("/others")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (moved_out("labels", h5py.ExternalLink), "dataset 'labels' is a link; expected its values in this file"),
        (moved_out("images", h5py.ExternalLink), "dataset 'images' is a link; expected its values in this file"),
        (moved_out("subjects", h5py.ExternalLink), "dataset 'subjects' is a link; expected its values in this file"),
        (within, "dataset 'labels' is a link; expected its values in this file"),
        (external, "dataset 'labels' has its values in other files; expected them in this file"),
        (virtual, "dataset 'labels' has its values in other files; expected them in this file"),
    ],
)
def test_values_of_other_files_are_not_read(tmp_path, edit, reason):
    path = edited(tmp_path / "c.h5", edit)
    assert open_error(path) == f"{path}: {reason}"
    with pytest.raises(DataError, match=reason):
        verify_digest(path)


def claim(name, shape, chunks, dtype=None):
    """A dataset of a shape that the file does not hold."""

    def edit(file):
        kind = dtype or file[name].dtype
        del file[name]
        file.create_dataset(name, shape=shape, dtype=kind, chunks=chunks)

    return edit


MANY = 10**13


@pytest.mark.parametrize(
    ("name", "shape", "chunks", "message"),
    [
        (
            "labels",
            (15, 10**7, 10**7),
            (1, 1000, 1000),
            "dataset 'labels' claims a slice of 10000000 x 10000000, which takes at least 90.9 TiB of memory; ",
        ),
        (
            "images",
            (15, 10**7, 10**7),
            (1, 1000, 1000),
            "dataset 'images' claims a slice of 10000000 x 10000000, which",
        ),
        ("labels", (4 * 10**6, 6, 7), (1, 6, 7), "dataset 'labels' claims 4000000 x 6 x 7 values and holds none"),
        ("labels", (10**18, 6, 7), (1, 6, 7), "dataset 'labels' claims 1000000000000000000 x 6 x 7 values and holds"),
        ("images", (15, 6, 7), None, "dataset 'images' claims 15 x 6 x 7 values and holds none"),
        ("subject", (MANY,), (1000,), "dataset 'subject' claims an array of 10000000000000, which takes at least 36.4"),
        ("slice", (MANY,), None, "dataset 'slice' claims an array of 10000000000000, which takes at least 36.4 TiB"),
        ("subjects", (MANY,), (1000,), "dataset 'subjects' claims an array of 10000000000000, which takes at least"),
    ],
)
def test_claims_that_the_file_does_not_hold_are_refused_before_anything_is_read(tmp_path, name, shape, chunks, message):
    text = open_error(edited(tmp_path / "c.h5", claim(name, shape, chunks)))
    assert message in text
    assert (tmp_path / "c.h5").stat().st_size < 20_000


def test_a_dataset_of_which_chunks_are_missing(tmp_path):
    def edit(file):
        labels = file["labels"][:]
        claim("labels", labels.shape, (1, 6, 7))(file)
        file["labels"][:4] = labels[:4]

    assert "dataset 'labels' is incomplete: holds 4 of its 15 chunks" in open_error(edited(tmp_path / "c.h5", edit))


def test_a_dataset_without_a_shape(tmp_path):
    empty = replace("labels", h5py.Empty("uint8"))
    assert "dataset 'labels' has no shape" in open_error(edited(tmp_path / "c.h5", empty))
