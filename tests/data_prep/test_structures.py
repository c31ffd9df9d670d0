"""Which structures images of a mapping's classes are synthesised from: named tables, and the third column of a file."""

from dataclasses import replace

import numpy as np
import pytest
from metasynth.data_prep.label_tables import HEAD
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mapping_names import IDS, STRUCTURES
from metasynth.data_prep.mappings import MAPPINGS, load_mapping
from metasynth.data_prep.structure_tables import PART_OF, STRUCTURE_NAMES
from metasynth.data_prep.structures import TABLES, with_structures
from support.head_phantom import as_muse, head_labels

from metasynth.errors import DataError, UsageError

FINE = [
    (name, table)
    for name in MAPPINGS
    for table in TABLES
    if IDS[name] == STRUCTURES[table] and not MAPPINGS[name].unsided
]


def test_what_the_structures_are():
    assert len(STRUCTURE_NAMES) == len(set(STRUCTURE_NAMES)) == 22
    freesurfer, muse = TABLES.values()
    names = {i: STRUCTURE_NAMES[g] for i, g in freesurfer.items()}
    assert [names[i] for i in (2, 41, 251, 85)] == ["cerebral white matter"] * 4
    assert [names[i] for i in (24, 257)] == ["fluid outside the ventricles"] * 2
    assert [names[i] for i in (7, 8, 16, 28)] == [
        *("cerebellar white matter", "cerebellar cortex", "brain stem", "ventral diencephalon"),
    ]
    assert [names[i] for i in (4, 44, 14, 15, 31, 163)] == [
        *("lateral ventricle", "inferior lateral ventricle", "third ventricle", "fourth ventricle"),
        *("choroid plexus",) * 2,
    ]
    assert [names[i] for i in (10, 50, 12, 52, 17, 54, 26)] == [
        *("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens"),
    ]
    assert [names[i] for i in (25, 30)] == ["white matter lesion", "vessel"]
    assert {names[i] for i in HEAD} == {"background"}
    names = {i: STRUCTURE_NAMES[g] for i, g in muse.items()}
    assert [names[i] for i in (1, 46)] == ["fluid outside the ventricles"] * 2
    assert [names[i] for i in (59, 36, 58, 55, 47, 31, 30)] == [
        *("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens"),
    ]
    assert set(STRUCTURE_NAMES) - set(names.values()) == set(PART_OF)


@pytest.mark.parametrize(("name", "table"), FINE)
def test_every_class_is_whole_structures(name, table):
    mapping = with_structures(MAPPINGS[name], table)
    own = mapping.structures
    assert own.names == STRUCTURE_NAMES
    assert own.target[0] == 0
    assert set(own.target) == set(range(len(mapping.class_names)))
    for i, k in mapping.classes.items():
        assert own.target[own.labels.get(i, 0)] == k, i
    assert mapping.text == (
        f"{MAPPINGS[name].text}; images are synthesised from {table}: 21 structures, left and right as one"
    )
    assert replace(mapping, text=MAPPINGS[name].text, structures=None) == MAPPINGS[name]


def test_all_mappings_without_sides_are_among_these():
    assert [name for name, _ in FINE] == [
        *("freesurfer-4", "freesurfer-5", "freesurfer-4-reduced", "freesurfer-tissue", "muse-4", "muse-5"),
    ]


@pytest.mark.parametrize("count", [4, 5])
def test_both_atlases_have_the_same_generation_labels(count):
    mine = with_structures(MAPPINGS[f"freesurfer-{count}"], "freesurfer-structures")
    theirs = with_structures(MAPPINGS[f"muse-{count}"], "muse-structures")
    assert (mine.structures.names, mine.structures.target) == (theirs.structures.names, theirs.structures.target)
    ids = head_labels()
    np.testing.assert_array_equal(mine.apply_structures(ids), theirs.apply_structures(as_muse(ids)))


def test_structures_of_ids_merge_to_their_classes():
    plain, ids = MAPPINGS["freesurfer-5"], head_labels()
    mapping = with_structures(plain, "freesurfer-structures")
    found = mapping.apply_structures(ids)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(mapping.classes_of(found), plain.apply(ids))
    np.testing.assert_array_equal(mapping.apply(ids), plain.apply(ids))
    assert (found[ids == 24] == STRUCTURE_NAMES.index("fluid outside the ventricles")).all()
    assert set(np.unique(found[np.isin(ids, (10, 49))])) == {STRUCTURE_NAMES.index("thalamus")}
    assert (found[ids == 507] == 0).all()
    assert plain.apply_structures(ids) is not ids
    np.testing.assert_array_equal(plain.apply_structures(ids), plain.apply(ids))


def test_unknown_ids_are_refused_with_structures_too():
    mapping = with_structures(MAPPINGS["freesurfer-5"], "freesurfer-structures")
    ids = head_labels()
    ids[0, 0, :3] = 700
    with pytest.raises(DataError, match=r"^seg: mapping freesurfer-5 does not name id 700 \(3 voxels\)"):
        mapping.apply_structures(ids, where="seg")
    assert mapping.apply_structures(ids, "background")[0, 0, 0] == 0


def own(classes, names=("background", "a", "b")):
    return LabelMapping("mine.csv", names, {0: 0} | classes, "mine")


def test_what_a_mapping_of_one_structure_leaves_to_the_background_is_synthesised():
    hippocampus = own({17: 1, 53: 1}, ("background", "hippocampus"))
    mapping = with_structures(hippocampus, "freesurfer-structures", "background")
    assert mapping.structures.target == tuple(int(name == "hippocampus") for name in STRUCTURE_NAMES)
    ids = np.array([[[17, 2, 3, 24, 507, 4242]]])
    found = mapping.apply_structures(ids, "background")
    assert [STRUCTURE_NAMES[g] for g in found[0, 0]] == [
        *("hippocampus", "cerebral white matter", "cerebral cortex", "fluid outside the ventricles"),
        *("background", "background"),
    ]


@pytest.mark.parametrize(
    ("mapping", "table", "unknown", "line"),
    [
        (
            MAPPINGS["muse-5"],
            "freesurfer-structures",
            "error",
            "cannot go with --mapping muse-5, whose ids are MUSE's; expected FreeSurfer's",
        ),
        (
            MAPPINGS["freesurfer-24"],
            "freesurfer-structures",
            "error",
            "cannot go with --mapping freesurfer-24, whose classes have sides; its structures have none",
        ),
        (
            with_structures(MAPPINGS["muse-5"], "muse-structures"),
            "muse-structures",
            "error",
            "cannot go with --mapping muse-5, which has structures of its own",
        ),
        (
            own({2: 1, 3: 1, 41: 2}),
            "freesurfer-structures",
            "error",
            "structure 'cerebral white matter' is of two classes of --mapping mine.csv: id 2 is 'a', id 41 is 'b'; "
            "expected one",
        ),
        (
            own({2: 1, 3: 2, 42: 2}),
            "freesurfer-structures",
            "background",
            "structure 'cerebral white matter' is of two classes of --mapping mine.csv: id 2 is 'a', id 41 is "
            "'background'; expected one",
        ),
        (
            own({2: 1, 41: 1}),
            "freesurfer-structures",
            "error",
            "--mapping mine.csv: class 'b' has no structure to be synthesised from; expected one or more",
        ),
        (
            own({2: 1, 507: 2}),
            "freesurfer-structures",
            "error",
            "id 507 of class 'b' (--mapping mine.csv) is of no structure; expected one, as classes are synthesised "
            "from structures",
        ),
    ],
)
def test_what_does_not_go_together_is_a_line(mapping, table, unknown, line):
    with pytest.raises(UsageError) as caught:
        with_structures(mapping, table, unknown)
    assert str(caught.value) == f"--generate {table}: {line}"


def test_a_file_of_three_columns(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "id,class,structure\n2,white,white matter # left\n41,white,white matter\n16,white,stem\n"
        "3,grey,cortex\n24,background,fluid\n1,background,background\n"
    )
    mapping = load_mapping(str(path))
    assert (mapping.class_names, mapping.classes) == (
        ("background", "white", "grey"),
        {0: 0, 2: 1, 41: 1, 16: 1, 3: 2, 24: 0, 1: 0},
    )
    assert mapping.structures.names == ("background", "white matter", "stem", "cortex", "fluid")
    assert mapping.structures.target == (0, 1, 1, 2, 0)
    ids = np.array([[[0, 2, 41, 16, 3, 24, 1]]])
    assert mapping.apply_structures(ids)[0, 0].tolist() == [0, 1, 1, 2, 3, 4, 0]
    assert mapping.apply(ids)[0, 0].tolist() == [0, 1, 1, 1, 2, 0, 0]
    assert mapping.text == "mine.csv: ids, classes and 4 structures of a file"
    path.write_text("5;1;1\n6;1;2\n7;0;3\n8;0;0\n")
    mapping = load_mapping(str(path))
    assert mapping.class_names == ("background", "class 1")
    assert mapping.structures.names == ("background", "structure 1", "structure 2", "structure 3")
    assert mapping.structures.target == (0, 1, 1, 0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1,a,x\n2,b\n", ", line 2: expected 'id,class,structure', got '2,b'"),
        ("1,a,x\n2,b,y,z\n", ", line 2: expected 'id,class,structure', got '2,b,y,z'"),
        ("1,a\n2,b,y\n", ", line 2: expected 'id,class', got '2,b,y'"),
        ("id,class,structure\n", ": holds no line 'id,class,structure'"),
        ("1,a,x\n1,a,y\n", ", line 2: id 1 has a structure already: 'x'"),
        ("1,a,x\n2,b,x\n", ", line 2: structure 'x' is of two classes: id 1 is 'a', id 2 is 'b'; expected one"),
        (
            "1,a,background\n",
            ", line 1: id 1 of class 'a' is of no structure; expected one, as classes are synthesised from structures",
        ),
        (
            "1,1,0\n",
            ", line 1: id 1 of class '1' is of no structure; expected one, as classes are synthesised from structures",
        ),
        (
            "2,white matter,white\n3,cortical grey,cortex\n",  # names of the embedded cohort, which has more classes
            ": class 'subcortical grey' has no structure to be synthesised from; expected one or more",
        ),
        ("1,a,1\n2,b,3\n", ": structures must be 0 to G-1 without a gap, got [1, 3]"),
        (
            "".join(f"{i},a,x{i}\n" for i in range(1, 256)),
            ": at most 255 structures are possible, got 256",
        ),
        (
            f"1,a,{'x' * 201}\n",
            None,
        ),
    ],
)
def test_a_file_whose_structures_are_wrong(tmp_path, text, line):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_mapping(str(path))
    if line is None:
        assert str(caught.value).startswith(f"--mapping {path}: structure names must be printable text of at most 200")
    else:
        assert str(caught.value) == f"--mapping {path}{line}"


def test_three_columns_are_structures_whatever_the_other_two_are_called(tmp_path):
    """A look-up table of BIDS has an index and a name too, and no structures."""
    path = tmp_path / "own.csv"
    path.write_text("index,name,structure\n2,white matter,white\n3,grey matter,cortex\n")
    found = load_mapping(str(path))
    assert found.class_names == ("background", "white matter", "grey matter")
    assert found.structures is not None
