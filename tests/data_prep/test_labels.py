import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from metasynth.data_prep import label_tables as tables
from metasynth.data_prep.cohorts.template import CLASS_NAMES
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mappings import MAPPINGS, load_mapping
from support.head_phantom import as_muse, head_labels

from metasynth.errors import DataError, UsageError

IDS_OF_SYNTHSEG_MAPS = (
    *(0, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 25, 26, 28, 30, 41, 42, 43, 44, 46, 47, 49, 50),
    *(51, 52, 53, 54, 57, 58, 60, 62, 72, 85, 136, 137, 163, 164),
    *(502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530),
)


@pytest.mark.parametrize("name", ["freesurfer-4", "freesurfer-4-reduced", "muse-4", "oasis-4"])
def test_mappings_of_four_classes_have_the_classes_of_the_embedded_cohort(name):
    assert MAPPINGS[name].class_names == CLASS_NAMES


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
def test_every_class_of_a_mapping_has_an_id(mapping):
    assert set(mapping.classes.values()) == set(range(len(mapping.class_names)))
    assert mapping.classes[0] == 0
    assert not mapping.t1 or len(mapping.t1) == len(mapping.class_names)


@pytest.mark.parametrize("name", [name for name in MAPPINGS if name.startswith("freesurfer")])
def test_extracerebral_and_choroid_ids_are_named(name):
    classes = MAPPINGS[name].classes
    assert set(IDS_OF_SYNTHSEG_MAPS) <= classes.keys()
    assert {classes[i] for i in range(500, 531)} == {0}
    assert {MAPPINGS[name].class_names[classes[i]] for i in (136, 137)} <= {
        "ventricles",
        "cerebrospinal fluid",
        "left choroid plexus",
    }


def test_what_the_merging_to_four_classes_does():
    four, reduced, tissue = (MAPPINGS[f"freesurfer-{name}"].classes for name in ("4", "4-reduced", "tissue"))
    assert [four[i] for i in (2, 7, 16, 28, 251, 25, 57)] == [1] * 7
    assert [four[i] for i in (3, 42, 1001, 2035, 11101)] == [2] * 5
    assert [four[i] for i in (10, 17, 18, 26, 58)] == [3] * 5
    assert [four[i] for i in (4, 14, 15, 31, 136, 164)] == [4] * 6
    assert [four[i] for i in (24, 8, 47, 502)] == [0] * 4
    assert [tissue[i] for i in (24, 257, 8, 47, 25, 57)] == [4, 4, 3, 3, 3, 3]
    assert {i for i in four if four[i] != reduced[i]} == {7, 46, 15, 18, 54, 26, 58, 30, 62}


def test_five_classes_are_the_four_and_the_cerebellar_cortex():
    for name, cerebellum in (("freesurfer", {8, 47, 172}), ("muse", {38, 39, 71, 72, 73})):
        four, five = (MAPPINGS[f"{name}-{count}"].classes for count in (4, 5))
        assert {i for i, k in five.items() if k == 5} == cerebellum == {i for i in five if five[i] != four[i]}
        assert {four[i] for i in cerebellum} == {0}
    assert MAPPINGS["freesurfer-5"].class_names == MAPPINGS["muse-5"].class_names


def test_the_24_structures_merge_to_the_four_reduced_classes():
    for i, structure in tables.FREESURFER_24.items():
        if structure:
            assert tables.CLASSES_OF_24[structure] == tables.FREESURFER_4_REDUCED[i], i
    lost = {i for i, k in tables.FREESURFER_4_REDUCED.items() if k and not tables.FREESURFER_24[i]}
    assert lost & set(IDS_OF_SYNTHSEG_MAPS) == {72, 85}  # fifth ventricle and optic chiasm
    assert len(tables.STRUCTURES_24) == 25


def test_both_atlases_of_one_anatomy_give_one_map():
    ids = head_labels()
    np.testing.assert_array_equal(MAPPINGS["freesurfer-4"].apply(ids), MAPPINGS["muse-4"].apply(as_muse(ids)))


@given(arrays.arrays(np.int32, (3, 4, 5), elements=st.sampled_from([0, 3, 7, 900, 2_000_000_000])))
def test_mapping_is_the_table_voxel_by_voxel(ids):
    mapping = LabelMapping("m", ("background", "a", "b"), {0: 0, 3: 1, 7: 2, 900: 0, 2_000_000_000: 1}, "text")
    expected = np.vectorize(mapping.classes.get)(ids)
    if expected.any():
        np.testing.assert_array_equal(mapping.apply(ids), expected)
    else:
        with pytest.raises(DataError, match="none of its labels belongs to a class"):
            mapping.apply(ids)


def test_ids_the_mapping_does_not_name_are_listed_with_their_counts():
    ids = head_labels()
    ids[0, 0, :3], ids[0, 1, 0] = 700, 4242
    with pytest.raises(DataError, match=r"^seg: mapping freesurfer-4 does not name ids 700 \(3 voxels\), 4242 \(1 vox"):
        MAPPINGS["freesurfer-4"].apply(ids, where="seg")
    accepted = MAPPINGS["freesurfer-4"].apply(ids, "background")
    np.testing.assert_array_equal(accepted, MAPPINGS["freesurfer-4"].apply(head_labels()))


def test_the_brain_is_labels_above_0_without_the_head():
    ids = head_labels()
    brain = MAPPINGS["freesurfer-4"].brain(ids)
    np.testing.assert_array_equal(brain, (ids > 0) & (ids != 507))
    assert brain[ids == 24].all()


def test_white_matter_without_a_side_takes_the_nearer_one():
    ids = np.zeros((9, 3, 3), dtype=int)
    ids[:3], ids[6:] = 2, 41
    ids[3:6] = 253
    classes = MAPPINGS["freesurfer-24"].apply(ids)
    assert list(classes[:, 1, 1]) in ([1] * 5 + [14] * 4, [1] * 4 + [14] * 5)
    assert MAPPINGS["freesurfer-24"].class_names[14] == "right cerebral white matter"


def test_a_mapping_in_a_file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("id,class\n2,white matter  # left\n41,white matter\n\n4,ventricles\n3,background\n")
    mapping = load_mapping(str(path))
    assert mapping.class_names == CLASS_NAMES
    assert mapping.classes == {0: 0, 2: 1, 41: 1, 4: 4, 3: 0}
    path.write_text("10,lesion\n11,oedema\n12,lesion\n")
    mapping = load_mapping(str(path))
    assert (mapping.class_names, mapping.classes) == (("background", "lesion", "oedema"), {0: 0, 10: 1, 11: 2, 12: 1})
    path.write_text("5,1\n6,2\n7,0\n")
    assert load_mapping(str(path)).class_names == ("background", "class 1", "class 2")


@pytest.mark.parametrize(
    "text",
    [
        "index\tname\tcolor\n0\tbackground\t#000000\n17\tleft hippocampus\t#4e79a7\n2\ta, b\t#e15759\n",
        "index\tname\tabbreviation\tcolor\tmapping\n17\tleft hippocampus\tLH\t#4e79a7\t1\n2\ta, b\tn/a\tn/a\t2\n",
        "name\tindex\nleft hippocampus\t17\na, b\t2\n",
    ],
)
def test_a_table_of_bids_is_a_mapping(tmp_path, text):
    (tmp_path / "dseg.tsv").write_text(text)
    mapping = load_mapping(str(tmp_path / "dseg.tsv"))
    assert mapping.class_names == ("background", "left hippocampus", "a, b")
    assert mapping.classes == {0: 0, 17: 1, 2: 2}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        'id,class\r\n2,"grey # 1"  # left\r\n3,a#2\r\n# 4,none\r\n',
        "2;grey # 1\r3;a#2\r".replace("grey # 1", '"grey # 1"'),
        '2\t"grey # 1" \n\n3\ta#2\t\t# last\n',
        '"2", "grey # 1"\n"3", a#2',
    ],
)
def test_mappings_as_editors_write_them(tmp_path, text, encoding):
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode(encoding))
    mapping = load_mapping(str(path))
    assert (mapping.class_names, mapping.classes) == (("background", "grey # 1", "a#2"), {0: 0, 2: 1, 3: 2})


def test_a_class_whose_name_has_a_quote(tmp_path):
    (tmp_path / "mine.csv").write_text('1,a\n2,"5"" disc"\n')
    assert load_mapping(str(tmp_path / "mine.csv")).class_names == ("background", "a", '5" disc')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("2,grey\n²,white\n".encode(), "line 2: expected 'id,class', got '²,white'"),
        (b"2,1\n3,\xc2\xb2\n", None),  # a name
        (b"2," + b"x" * 200_000, "line 1: expected 'id,class', got '2,xxxx"),
        (b"2," + b"x" * 1000, "class names must be printable text of at most 200 characters, got 'xxxx"),
        (b"9" * 5000 + b",grey\n2,white\n", "line 1: expected 'id,class', got '9999"),
        (b"1.0,grey\n2,white\n", "line 1: expected 'id,class', got '1.0,grey'"),
        (b"2,grey\n" + b"9" * 5000 + b",white\n", "line 2: expected 'id,class', got '9999"),
        (b"2,1\n3," + b"9" * 18 + b"\n", "classes must be 0 to K-1 without a gap, got [1, 999999999999999999]"),
        (b"2,gr\0ey\n", "line 1: expected text, got a NUL byte; save the file as UTF-8"),
        (b"2,wei\xdf\n", "line 1: expected text in UTF-8, got the byte 0xDF; save the file as UTF-8"),
        ("2,grey\u00a0matter\n".encode(), "class names must be printable text"),
        (b"a,b\nc,d\n2,grey\n", "line 2: expected 'id,class', got 'c,d'"),
        (
            b'1,a\n2,"grey\n3,white\n',
            "line 2: expected 'id,class', got '2,\"grey', with a double quote too many or too",
        ),
        (b'1,a\n2,5" disc\n', "line 2: expected 'id,class', got '2,5\" disc', with a double quote too many or too few"),
        (b'"1,a\n2,b\n', "line 1: expected 'id,class', got '\"1,a', with a double quote too many or too few"),
    ],
)
def test_odd_text_in_a_mapping_is_a_short_line(tmp_path, content, message):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    if message is None:
        assert load_mapping(str(path)).class_names == ("background", "1", "²")
        return
    with pytest.raises(UsageError) as raised:
        load_mapping(str(path))
    assert str(raised.value).startswith(f"--mapping {path}")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no line 'id,class'"),
        ("1,2,3,4\n", r"line 1: expected 'id,class', got '1,2,3,4'"),
        ("1,a\nx,b\n", r"line 2: expected 'id,class', got 'x,b'"),
        ("1,a\n1,b\n", r"line 2: id 1 has a class already: 'a'"),
        ("1,1\n2,3\n", r"classes must be 0 to K-1 without a gap, got \[1, 3\]"),
        ("-1,a\n", "line 1: expected"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_mapping(str(path))


def test_an_unknown_mapping_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'freesurfer-24'"):
        load_mapping("freesurfer24")
