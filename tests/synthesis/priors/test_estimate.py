"""Priors from labelled images: what an image was made with comes back, and what nobody shows is that of its class."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter

from metasynth.errors import DataError
from metasynth.synthesis.priors.estimate import LEAST_TEXTURE, estimate_priors, spread_of
from metasynth.synthesis.priors.field import log_field
from metasynth.synthesis.priors.structure_priors import StructurePriors

NAMES = ("background", "white", "grey", "fluid")
CLASSES = ("background", "tissue", "tissue", "fluid")


def quarters(n: int = 4, size: int = 48) -> np.ndarray:
    """Maps (n, size, size) of background, white, grey and fluid, a quarter each."""
    maps = np.zeros((n, size, size), dtype=np.int64)
    half = size // 2
    maps[:, :half, half:], maps[:, half:, :half], maps[:, half:, half:] = 1, 2, 3
    return maps


def scan(labels: np.ndarray, means: list[float], textures: list[float], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return np.array([0, *means])[labels] + np.array([0, *textures])[labels] * noise


def by_name(priors: StructurePriors) -> dict[str, tuple[float, float, float]]:
    return {label.name: label.values for label in priors.labels}


def test_means_spreads_and_textures_that_images_were_made_with_come_back():
    drawn = np.random.default_rng(1).normal(size=(60, 3))
    means, spreads, textures = np.array([0.7, 0.5, 0.2]), np.array([0.03, 0.06, 0.01]), [0.02, 0.05, 0.08]
    people = [
        (scan(quarters(1), list(means + spreads * own), textures, seed), quarters(1)) for seed, own in enumerate(drawn)
    ]
    priors = estimate_priors(people, NAMES, CLASSES).priors
    # A standard deviation by the median deviation is off by 1.17 / sqrt(n) of itself, a median by 1.25 / sqrt(n).
    assert priors.mean[1:] == pytest.approx(means, abs=3 * 1.25 * 0.06 / math.sqrt(60))
    assert priors.spread[1:] == pytest.approx(spreads, rel=3 * 1.17 / math.sqrt(60))
    assert priors.texture[1:] == pytest.approx(textures, rel=0.02)
    assert [label.people for label in priors.labels] == [0, 60, 60, 60]
    assert [label.voxels for label in priors.labels] == [0, *[60 * 23 * 23] * 3]
    assert priors.labels[0].values == (0, 0, 0)


def test_the_medians_of_people_are_kept_and_are_nan_where_a_person_has_none():
    without = np.where(quarters() == 3, 0, quarters())
    people = [
        (scan(quarters(), [0.7, 0.5, 0.2], [0, 0, 0]), quarters()),
        (scan(without, [0.6, 0.4, 9], [0] * 3), without),
    ]
    estimate = estimate_priors(people, NAMES, CLASSES)
    assert estimate.medians == pytest.approx(
        np.array([[math.nan, 0.7, 0.5, 0.2], [math.nan, 0.6, 0.4, math.nan]]), nan_ok=True
    )
    assert [label.people for label in estimate.priors.labels] == [0, 2, 2, 1]


@settings(deadline=None, max_examples=25)
@given(order=st.permutations([1, 2, 3]), people=st.integers(1, 4), seed=st.integers(0, 100))
def test_other_numbers_of_the_labels_change_nothing_but_the_order(order: list[int], people: int, seed: int) -> None:
    at = np.array([0, *order])
    number = np.argsort(at)  # label -> its place in the other order
    maps = [quarters(1) for _ in range(people)]
    if seed % 2:
        maps[0] = np.where(maps[0] == 2, 1, maps[0])
    scans = [scan(own, [0.7, 0.5, 0.2], [0.1, 0.05, 0.02], seed + n) for n, own in enumerate(maps)]
    plain = estimate_priors(zip(scans, maps, strict=True), NAMES, CLASSES)
    others = [number[own] for own in maps]
    found = estimate_priors(zip(scans, others, strict=True), [NAMES[g] for g in at], [CLASSES[g] for g in at])
    assert found.priors.labels == tuple(plain.priors.labels[g] for g in at)


def test_voxels_at_edges_do_not_count_where_enough_are_left():
    labels = quarters(1)
    image = scan(labels, [0.7, 0.5, 0.2], [0, 0, 0])
    image[:, 23:25, :] = image[:, :, 23:25] = 0.99  # partial volume
    priors = estimate_priors([(image, labels)], NAMES, CLASSES).priors
    assert by_name(priors)["white"] == (0.7, 0, 0)
    assert {label.erosion for label in priors.labels[1:]} == {"square"}


@pytest.mark.parametrize(
    ("shape", "erosion", "voxels"),
    [
        ((10, 10), "square", 64),
        ((9, 9), "none", 81),  # 49 inside
        ("diamond", "cross", 61),  # 49 by squares
        ((1, 1), "none", 1),
    ],
)
def test_small_structures_count_with_less_taken_off_and_say_so(shape, erosion, voxels):
    labels = np.zeros((1, 32, 32), dtype=np.int64)
    if shape == "diamond":
        row, column = np.ogrid[:32, :32]
        labels[0, np.abs(row - 15) + np.abs(column - 15) <= 6] = 1
    else:
        labels[0, 4 : 4 + shape[0], 4 : 4 + shape[1]] = 1
    (_, found) = estimate_priors([(0.5 * labels, labels)], NAMES[:2], CLASSES[:2]).priors.labels
    assert (found.erosion, found.voxels, found.mean) == (erosion, voxels, 0.5)


def test_edges_are_taken_off_along_all_axes_of_a_volume():
    labels = np.zeros((1, 12, 12, 12), dtype=np.int64)
    labels[0, 2:10, 2:10, 2:10] = 1
    (_, found) = estimate_priors([(0.5 * labels, labels)], NAMES[:2], CLASSES[:2]).priors.labels
    assert (found.erosion, found.voxels) == ("square", 6**3)


def test_what_nobody_has_takes_the_values_of_its_class():
    names, classes = (*NAMES, "lesion", "cyst", "iron"), (*CLASSES, "tissue", "fluid", "background")
    people = [(scan(quarters(), [0.7, 0.5, 0.2], [0.1, 0.05, 0.02], n), quarters()) for n in range(3)]
    priors = estimate_priors(people, names, classes).priors
    values = by_name(priors)
    assert values["lesion"] == pytest.approx(np.mean([values["white"], values["grey"]], axis=0))
    assert values["cyst"] == pytest.approx(values["fluid"])
    assert values["iron"] == (0, 0, 0)
    assert [(label.people, label.voxels) for label in priors.labels[4:]] == [(0, 0)] * 3


def test_the_values_of_a_class_count_structures_by_their_voxels():
    labels = quarters(1)
    labels[:, 24:] = 2  # grey has twice the voxels and more, white a quarter
    image = scan(labels, [0.8, 0.4, 0], [0, 0, 0])
    priors = estimate_priors([(image, labels)], (*NAMES[:3], "lesion"), (*CLASSES[:3], "tissue")).priors
    white, grey = 23 * 23, 23 * 48
    assert by_name(priors)["lesion"] == pytest.approx(((0.8 * white + 0.4 * grey) / (white + grey), 0, 0))


def test_a_class_that_nobody_has_takes_the_values_of_all_structures():
    without = np.where(quarters() == 3, 0, quarters())
    values = by_name(estimate_priors([(scan(without, [0.7, 0.5, 0], [0] * 3), without)], NAMES, CLASSES).priors)
    assert values["fluid"] == pytest.approx((0.6, 0, 0))


def test_one_voxel_has_an_intensity_and_the_texture_of_its_class():
    labels = quarters()
    labels[labels == 2] = 1
    labels[0, 40, 4] = 2
    image = scan(labels, [0.7, 0.5, 0.2], [0.1, 0.3, 0.02])
    found = by_name(estimate_priors([(image, labels)], NAMES, CLASSES).priors)
    same = minimum_filter(labels, (1, 3, 3), mode="nearest") == maximum_filter(labels, (1, 3, 3), mode="nearest")
    field = np.exp(log_field(image, labels, same))  # that noise seems to have
    assert found["grey"] == pytest.approx((image[0, 40, 4] / field[0, 40, 4], 0.0, found["white"][2]))


@pytest.mark.parametrize(("voxels", "own"), [(LEAST_TEXTURE - 1, False), (LEAST_TEXTURE, True)])
def test_few_voxels_say_nothing_of_a_texture(voxels: int, own: bool) -> None:
    labels = np.where(quarters() == 2, 1, quarters())
    labels[0, 40, 4 : 4 + voxels] = 2
    image = scan(labels, [0.7, 0.5, 0.2], [0.1, 0.3, 0.02])
    found = by_name(estimate_priors([(image, labels)], NAMES, CLASSES).priors)
    assert (found["grey"][2] != pytest.approx(found["white"][2])) == own


def test_one_person_shows_no_spread_and_a_structure_of_one_person_takes_that_of_its_class():
    people = [
        (scan(quarters(), [0.7, 0.5, 0.2], [0] * 3), quarters()),
        (scan(quarters(), [0.6, 0.5, 0.3], [0] * 3), quarters()),
    ]
    assert estimate_priors(people[:1], NAMES, CLASSES).priors.spread == (0, 0, 0, 0)
    people[1] = (people[1][0], np.where(quarters() == 2, 0, quarters()))
    found = by_name(estimate_priors(people, NAMES, CLASSES).priors)
    assert found["white"][1] == pytest.approx(0.1 * math.sqrt(math.pi) / 2, rel=1e-3)
    assert found["grey"][1] == pytest.approx(found["white"][1])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20])
def test_the_spread_of_few_people_is_unbiased(n):
    drawn = np.random.default_rng(n).normal(size=(8000, n))
    assert np.mean([spread_of(list(row)) for row in drawn]) == pytest.approx(1, abs=0.025)


def test_one_odd_person_of_five_moves_the_spread_little():
    assert spread_of([0.50, 0.52, 0.54, 0.56, 5.0]) == pytest.approx(1.4826 * 1.206 * 0.02)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_nothing_is_nan_whatever_there_is(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    drawn = np.random.default_rng(data.draw(st.integers(0, 1000)))
    present = data.draw(st.sets(st.integers(0, 3), min_size=1))
    people = [(drawn.random((2, 8, 8)), drawn.choice(sorted(present), size=(2, 8, 8))) for _ in range(n)]
    values = [label.values for label in estimate_priors(people, NAMES, CLASSES).priors.labels]
    assert np.isfinite(values).all()


def test_what_cannot_be_estimated_from_is_refused():
    with pytest.raises(DataError, match=r"^people: expected at least 1, got none$"):
        estimate_priors([], NAMES, CLASSES)
    with pytest.raises(
        DataError, match=r"^images: must have the shape of the labels, \(4, 48, 48\), got \(4, 48, 47\)$"
    ):
        estimate_priors([(np.zeros((4, 48, 47)), quarters())], NAMES, CLASSES)


def cut_scan(high: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """White matter that a cut at full scale mostly took away, with grey of the same class and fluid of another."""
    return np.clip(scan(quarters(), [high, 0.5, 0.2], [0.02, 0.05, 0.02], seed), 0, 1), quarters()


def test_what_was_mostly_cut_has_spread_and_texture_of_its_class_and_says_so():
    people = [cut_scan(1.02, seed) for seed in range(4)]
    for at, (image, labels) in enumerate(people):
        image[labels == 2] += 0.04 * at
    priors = estimate_priors(people, NAMES, CLASSES).priors
    values = by_name(priors)
    assert [label.cut for label in priors.labels] == [False, True, False, False]
    assert values["white"][0] == pytest.approx(1, abs=0.01)
    assert values["grey"][1] > 0.02
    assert values["grey"][2] == pytest.approx(0.05, rel=0.05)
    assert values["white"][1:] == values["grey"][1:]
    assert (priors.labels[1].people, priors.labels[1].voxels) == (4, 4 * 4 * 23 * 23)


def test_what_is_cut_by_less_than_half_keeps_its_own_texture():
    (_, white, *_) = estimate_priors([cut_scan(0.98)], NAMES, CLASSES).priors.labels
    assert not white.cut
    assert white.texture == pytest.approx(0.02, rel=0.1)  # of the half below the median


def test_what_was_cut_at_0_counts_likewise_and_a_person_alone_does_not_decide():
    dark = [cut_scan(0.9, seed) for seed in range(3)]
    for image, labels in dark[:2]:
        image[labels == 3] = np.maximum(0, image[labels == 3] - 0.4)
    cut = [[label.cut for label in estimate_priors(some, NAMES, CLASSES).priors.labels] for some in (dark, dark[1:])]
    assert cut == [[False, False, False, True], [False] * 4]  # half of two people's voxels are not most


def test_a_class_of_which_everything_was_cut_takes_the_texture_of_all_others():
    priors = estimate_priors([cut_scan(1.5)], NAMES, ("background", "bright", "tissue", "fluid")).priors
    others = by_name(priors)
    assert others["white"][2] == pytest.approx(np.mean([others["grey"][2], others["fluid"][2]]))


def test_a_strong_linear_field_is_no_texture():
    labels = np.zeros((1, 96, 96), dtype=np.int64)
    labels[:, 8:88, 8:88] = 1
    rows, columns = np.indices(labels.shape[1:])
    image = scan(labels, [0.4], [0.02]) * (1 + 0.006 * (rows - 48) + 0.003 * (columns - 48))
    assert np.std(image[labels == 1]) > 0.15 * 0.4
    (_, found) = estimate_priors([(image, labels)], NAMES[:2], CLASSES[:2]).priors.labels
    assert found.texture == pytest.approx(0.02, rel=0.04)


def test_a_mean_is_at_most_full_scale_where_the_field_is_weak():
    """Divided by its field, what was cut there would be beyond what a generator draws."""
    rows = np.indices((1, 48, 48))[1]
    field = 0.6 + 0.8 * rows / 47
    image = np.clip(scan(quarters(1), [1.5, 0.5, 0.4], [0.02, 0.02, 0.02]) * field, 0, 1)
    estimate = estimate_priors([(image, quarters(1))], NAMES, CLASSES)
    assert estimate.medians[0, 1] > 1.01
    assert estimate.priors.mean[1] == 1
