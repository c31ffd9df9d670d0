import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from metasynth.data_prep.slicing import (
    AXIS_INDEX,
    GROWS_TO,
    IN_PLANE,
    Frame,
    SliceChoice,
    choose_planes,
    content_along,
    cut,
    label_box,
    plane_spacing,
    planes,
)

from metasynth.errors import DataError, UsageError

AXES = list(AXIS_INDEX)
shapes = st.tuples(*[st.integers(1, 5)] * 3)


@pytest.mark.parametrize("axis", AXES)
def test_an_index_grows_where_the_letters_say(axis):
    x, y, z = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
    grows = {"R": x, "L": -x, "A": y, "P": -y, "S": z, "I": -z}
    for array_axis, letter in enumerate(GROWS_TO[axis] + IN_PLANE[axis]):
        assert (np.diff(planes(grows[letter], axis), axis=array_axis) == 1).all()


def test_coronal_slices_are_those_of_the_embedded_cohort():
    assert IN_PLANE["coronal"] == "IR"


@given(st.sampled_from(AXES), shapes.flatmap(lambda shape: arrays.arrays(np.int16, shape)))
def test_planes_hold_every_voxel_once(axis, volume):
    stack = planes(volume, axis)
    assert stack.shape[0] == volume.shape[AXIS_INDEX[axis]]
    np.testing.assert_array_equal(np.sort(stack, axis=None), np.sort(volume, axis=None))
    for index in range(stack.shape[0]):
        expected = np.take(volume, index, axis=AXIS_INDEX[axis])
        np.testing.assert_array_equal(np.sort(stack[index], axis=None), np.sort(expected, axis=None))
        np.testing.assert_array_equal(planes(volume, axis, np.array([index]))[0], stack[index])


@given(st.sampled_from(AXES), shapes)
def test_spacing_goes_with_its_axis(axis, shape):
    numbered = np.zeros(shape)
    assert plane_spacing([float(n) for n in shape], axis) == tuple(map(float, planes(numbered, axis).shape))


def test_content_is_counted_along_the_axis():
    classes = np.zeros((3, 4, 5), np.uint8)
    classes[1, 2, :3] = 2
    assert content_along(classes, "sagittal").tolist() == [0, 3, 0]
    assert content_along(classes, "coronal").tolist() == [0, 0, 3, 0]
    assert content_along(classes, "axial").tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", list(range(10))),
        ("around:3", [4, 5, 6]),
        ("3:6", [3, 4, 5]),
        ("1:9:3", [1, 4, 7]),
        ("8:50", [8, 9]),
        ("7,2,2", [2, 7]),
        ("4", [4]),
    ],
)
def test_choices(text, expected):
    assert SliceChoice.parse(text).candidates(10, centre=5, step=1).tolist() == expected


def test_slices_around_the_centre_are_spaced_and_stay_inside():
    choice = SliceChoice.parse("around:5")
    assert choice.candidates(30, centre=10.5, step=2).tolist() == [7, 9, 11, 13, 15]
    assert choice.candidates(13, centre=10.5, step=2).tolist() == [7, 9, 11]


def test_more_slices_than_any_volume_has():
    many = "9" * 18
    assert SliceChoice.parse(f"around:{many}").candidates(5, centre=2, step=2).size in (2, 3)
    assert SliceChoice.parse(f"1:{many}:2").candidates(5, centre=2, step=1).tolist() == [1, 3]
    with pytest.raises(UsageError, match=r"^--slices 9{40}\.\.\.9{20} \(5000 characters\): expected all"):
        SliceChoice.parse("9" * 5000)


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "around:0", "around:x", "5:3", "1:2:0", "1:2:3:4", "-1", "1;2", "-3:4", "2.5"),
        *("²", "around:²", "1:²", "1,,2", "1:2,3", "around:1,2", "around:", ":", "٣", "9" * 19),
    ],
)
def test_choices_that_are_none(text):
    with pytest.raises(UsageError, match=f"--slices {text}: expected all, around:N, START:STOP"):
        SliceChoice.parse(text)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.floats(0, 1), st.integers(1, 6))
def test_chosen_planes_are_wanted_and_full_enough(content, least, count):
    content, choice = np.array(content), SliceChoice("around", (count,))
    centre = (len(content) - 1) / 2
    wanted = choice.candidates(len(content), centre, 1)
    enough = {int(i) for i in wanted if content[i] > 0 and content[i] >= least * content.max()}
    if enough:
        assert set(choose_planes(content, choice, centre, 1, least).tolist()) == enough
    else:
        with pytest.raises(DataError, match=r"none of the .* wanted slices holds labels"):
            choose_planes(content, choice, centre, 1, least)


def test_slices_that_are_not_there():
    content = np.array([0, 0, 5, 9, 5, 0])
    with pytest.raises(DataError, match=r"slice 9 is asked for; the volume has slices 0 to 5 along"):
        choose_planes(content, SliceChoice.parse("2,9"), 0, 1, 0)
    with pytest.raises(DataError, match="slices from 6 are asked for; the volume has 0 to 5"):
        choose_planes(content, SliceChoice.parse("6:9"), 0, 1, 0)
    with pytest.raises(DataError, match=r"none of the 2 wanted slices .*\(9 voxels\); labels lie in slices 2 to 4"):
        choose_planes(content, SliceChoice.parse("0:2"), 0, 1, 0.5)


@given(
    st.tuples(st.integers(2, 9), st.integers(2, 9)).flatmap(
        lambda shape: arrays.arrays(np.uint8, (2, *shape), elements=st.integers(0, 2))
    ),
    st.integers(0, 3),
)
def test_a_frame_that_is_made_for_the_labels_holds_them_all(items, margin):
    if not items.any():
        return
    box = label_box(items)
    shape = Frame(margin_mm=float(margin), divisor=4).shape((box[1] - box[0])[None], (1.0, 1.0))
    out = cut(items, box, shape)
    assert all(n % 4 == 0 for n in shape)
    assert np.count_nonzero(out) == np.count_nonzero(items)
    again = label_box(out)
    np.testing.assert_array_equal(again[1] - again[0], box[1] - box[0])
    assert (again[0] >= margin).all()
    assert (np.array(shape) - again[1] >= margin - 1).all()


def test_cutting_keeps_the_middle():
    items = np.arange(1, 10)[None].repeat(2, 0)
    assert cut(items, np.array([[0], [9]]), (3,))[0].tolist() == [4, 5, 6]
    assert cut(items, np.array([[6], [9]]), (4,))[1].tolist() == [6, 7, 8, 9]
    assert cut(items, np.array([[0], [3]]), (8,))[0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


def test_sizes():
    extents = np.array([[30, 41], [33, 20]])
    assert Frame(margin_mm=5).shape(extents, (1.0, 2.0)) == (48, 48)
    assert Frame(margin_mm=0, divisor=1).shape(extents, (1.0, 1.0)) == (33, 41)
    assert Frame(size=(16, 32)).shape(extents, (1.0, 1.0)) == (16, 32)
    with pytest.raises(UsageError, match=r"--size 20 x 32: expected lengths divisible by 16"):
        Frame(size=(20, 32))
    with pytest.raises(UsageError, match="--margin: expected 0 mm or more, got -1"):
        Frame(margin_mm=-1)


@pytest.mark.parametrize(
    ("text", "step", "expected"),
    [
        ("0:1000000000000", 1, [0, 1, 2, 3, 4, 5]),
        ("2:100000000000000000:3", 1, [2, 5]),
        ("4:9:100000000000000000", 1, [4]),
        ("around:1000000000000", 1, [0, 1, 2, 3, 4, 5]),
        ("around:3", 10**300, [3]),
        ("around:2", 10**300, []),
        ("around:100000000000000001", 2, [1, 3, 5]),
    ],
)
def test_numbers_of_any_size_are_cut_to_the_volume(text, step, expected):
    assert SliceChoice.parse(text).candidates(6, 2.5, step).tolist() == expected


def test_a_slice_far_outside_is_refused():
    with pytest.raises(DataError, match=f"slice {10**17} is asked for; the volume has slices 0 to 5 along this axis"):
        SliceChoice.parse(f"1,{10**17}").candidates(6, 2.5, 1)


@pytest.mark.parametrize("margin", [1e6, 1e18, 1e308])
def test_margins_of_any_size_are_counted(margin):
    height, width = Frame(margin).shape(np.array([[20, 30]]), (1e-3, 2.0))
    assert height > 2e9
    assert width % 16 == 0
    assert width >= min(margin, 1e300)
