"""What a label map's numbers stand for: each table is read back as the program it is for reads it."""

import csv
import io
import re

import numpy as np
import pytest
from metasynth.data_prep.label_tables import FREESURFER_24, NAMES_5, STRUCTURES_24
from metasynth.data_prep.volumes.volumes import Volume

from metasynth.errors import DataError, UsageError
from metasynth.pictures import colours
from metasynth.predict.naming.freesurfer_ids import freesurfer_ids
from metasynth.predict.naming.names import (
    Label,
    bids_table,
    class_indices,
    freesurfer_table,
    itksnap_table,
    labels_of,
    posterior_names,
    slicer_table,
)

ODD = ("background", 'a "quoted" name', "tab\tand\nline", "", "ça va")
TEXTS = {
    "dseg": "index\tname\tcolor\n0\tbackground\t#000000\n2\tleft cerebral white matter\t#4e79a7\n",
    "lut": (
        "#No.    Label Name:                  R   G   B   A\n"
        "0       background                   0   0   0   0\n"
        "2       left-cerebral-white-matter  78 121 167   0\n"
    ),
    "ctbl": "# Color table file slicer-colors.ctbl\n# 2 values\n0 background 0 0 0 0\n"
    "2 left_cerebral_white_matter 78 121 167 255\n",
}


def read_bids(text):
    """As a table of tab-separated columns; BIDS asks for `index` and `name`, and hexadecimal colours."""
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert all(re.fullmatch("#[0-9a-f]{6}", row["color"]) for row in rows)
    return [Label(int(row["index"]), row["name"], tuple(bytes.fromhex(row["color"][1:]))) for row in rows]


def read_freesurfer(text):
    """As CTABreadASCII: what begins with # is a comment; `%d %s %d %d %d %d`, the last of which is 0 for opaque."""
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            index, name, *shade, clear = line.split()
            assert clear == "0"
            found.append(Label(int(index), name, tuple(map(int, shade))))
    return found


def read_itksnap(text):
    """As ColorLabelTable::LoadFromFile: seven numbers, and what stands in quotes; label 0 is the clear label."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            numbers, name = re.fullmatch(r'([^"]*)"([^"]*)"', line).groups()
            index, red, green, blue, alpha, shown, mesh = map(float, numbers.split())
            assert (alpha, shown, mesh) == ((1, 1, 1) if index else (0, 0, 0))
            found.append(Label(int(index), name, (int(red), int(green), int(blue))))
    return found


def read_slicer(text):
    """As the documentation of Slicer's Colors module says: six columns with blanks between them."""
    head, count, *lines = text.splitlines()
    assert head.startswith("# Color table file")
    assert count == f"# {len(lines)} values"
    cells = [line.split(" ") for line in lines]
    assert [int(alpha) for *_, alpha in cells] == [0, *[255] * (len(lines) - 1)]
    return [Label(int(index), name, tuple(map(int, shade))) for index, name, *shade, _ in cells]


@pytest.mark.parametrize(("names", "ids"), [(NAMES_5, "classes"), (STRUCTURES_24, "freesurfer"), (ODD, "classes")])
def test_every_table_is_read_back(names, ids):
    labels = labels_of(names, ids)
    assert [label.colour for label in labels[1:]] == [
        tuple(round(255 * part) for part in shade[:3]) for shade in colours(len(names) - 1)
    ]

    def renamed(change, first="background"):
        return [Label(each.index, change(each.name) if each.index else first, each.colour) for each in labels]

    assert read_bids(bids_table(labels)) == list(labels)
    assert read_freesurfer(freesurfer_table(labels)) == renamed(lambda name: name.replace(" ", "-"))
    assert read_itksnap(itksnap_table(labels)) == renamed(lambda name: name.replace('"', "'"), "Clear Label")
    assert read_slicer(slicer_table(labels)) == renamed(lambda name: name.replace(" ", "_"))


def test_the_tables_to_the_letter():
    labels = labels_of(("background", "left cerebral white matter"), "freesurfer")
    assert bids_table(labels) == TEXTS["dseg"]
    assert freesurfer_table(labels) == TEXTS["lut"]
    assert slicer_table(labels) == TEXTS["ctbl"]
    assert itksnap_table(labels).splitlines()[-2:] == [
        '    0     0    0    0        0  0  0    "Clear Label"',
        '    2    78  121  167        1  1  1    "left cerebral white matter"',
    ]
    assert (
        posterior_names(labels) == '{\n  "LabelMap": [\n    "background",\n    "left cerebral white matter"\n  ]\n}\n'
    )


def test_names_are_one_line_each():
    assert [label.name for label in labels_of(ODD)] == [
        "background",
        'a "quoted" name',
        "tab%09and%0Aline",
        "class 3",
        "ça va",
    ]


def test_freesurfers_ids_are_those_that_the_mapping_takes_for_the_class():
    ids = freesurfer_ids(STRUCTURES_24)
    assert [FREESURFER_24[number] for number in ids] == list(range(25))
    found = dict(zip(STRUCTURES_24, ids, strict=True))
    some = ("left hippocampus", "right hippocampus", "third ventricle", "brain stem", "left thalamus")
    assert [found[name] for name in some] == [17, 53, 14, 16, 10]


def test_freesurfers_own_names_and_what_it_has_for_both_sides():
    names = (
        "Unknown",
        "Left-Inf-Lat-Vent",
        "Right-Accumbens-area",
        "3rd-Ventricle",
        "cerebral cortex",
        "amygdala",
        "CSF",
    )
    assert freesurfer_ids(names) == (0, 5, 58, 14, 220, 218, 24)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            NAMES_5,
            "--ids freesurfer: FreeSurfer has no id for 'white matter', 'cortical grey', 'subcortical grey' and 2 "
            "more; expected classes that are one structure each, such as 'left hippocampus' (of freesurfer-24, say); "
            "leave --ids out",
        ),
        (
            (*STRUCTURES_24, "tumour"),
            "--ids freesurfer: FreeSurfer has no id for 'tumour'; expected classes that are one structure each, such "
            "as 'left hippocampus' (of freesurfer-24, say); leave --ids out",
        ),
        (
            ("background", "left thalamus", "Left-Thalamus-Proper"),
            "--ids freesurfer: 'left thalamus' and 'Left-Thalamus-Proper' have the same id, 10",
        ),
        (("nothing", "Unknown"), "--ids freesurfer: 'nothing' and 'Unknown' have the same id, 0"),
    ],
)
def test_classes_without_an_id_of_their_own(names, line):
    with pytest.raises(UsageError) as caught:
        labels_of(names, "freesurfer")
    assert str(caught.value) == line


def test_ids_become_indices_again():
    ids = (0, 41, 2, 300)
    given = Volume(np.array([[[0, 300, 2], [41, 2, 0]]]), np.eye(4), "a.nii.gz")
    np.testing.assert_array_equal(class_indices(given, ids), [[[0, 3, 2], [1, 2, 0]]])
    with pytest.raises(DataError, match=r"^a\.nii\.gz: holds label 300; the classes are 0, 2, 41$"):
        class_indices(given, (0, 2, 41))
    with pytest.raises(DataError, match=r"^a\.nii\.gz: holds label 300; the classes are 0 to 2$"):
        class_indices(given, range(3))
