import numpy as np
import pytest
from metasynth.data_prep.cohorts.template import (
    BACKGROUND,
    CLASS_NAMES,
    CORTEX,
    DEEP,
    NUCLEI,
    SOURCE,
    VENTRICLES,
    WHITE,
    Ellipsoid,
    load_template,
)


@pytest.fixture(scope="session")
def template():
    return load_template()


def label_at(template, x, y, z):
    return template.labels[tuple(int(c - o) for c, o in zip((x, y, z), template.origin, strict=True))]


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        # Points (x, y, z) in mm in the template's space that lie well within a structure.
        ((12, 12, 8), DEEP),  # head of the caudate
        ((27, 2, 2), DEEP),  # putamen
        ((19, -4, 0), DEEP),  # pallidum
        ((11, -18, 8), DEEP),  # thalamus
        ((28, -20, -16), DEEP),  # hippocampus
        ((23, -4, -20), DEEP),  # amygdala
        ((9, 10, -8), DEEP),  # accumbens
        ((7, 5, 16), VENTRICLES),  # body of the lateral ventricle
        ((20, -36, 17), VENTRICLES),  # trigone
        ((9, 20, 8), VENTRICLES),  # frontal horn
        ((8, -2, 28), WHITE),  # corpus callosum
        ((25, -10, 32), WHITE),  # corona radiata
        ((22, -10, 12), WHITE),  # internal capsule
        ((6, -26, -30), WHITE),  # pons
        ((40, 0, 0), CORTEX),  # insula
        ((5, 0, 38), CORTEX),  # cingulate
        ((47, -20, 12), CORTEX),  # transverse temporal gyrus
        ((40, -54, -38), BACKGROUND),  # cerebellum
        ((0, -31, 2), BACKGROUND),  # cistern of the great vein
        ((70, 40, 70), BACKGROUND),  # outside the head
    ],
)
def test_structures_are_where_anatomy_has_them(template, structure, expected):
    x, y, z = structure
    for side in (x, -x):
        found = label_at(template, side, y, z)
        assert found == expected, f"{CLASS_NAMES[found]} instead of {CLASS_NAMES[expected]} at {side, y, z}"


def test_volumes_are_those_of_a_brain(template):
    """Litres in the coronal planes that are kept, in wide bounds."""
    litres = np.bincount(template.labels.ravel(), minlength=5) / 1e6
    assert 0.4 < litres[WHITE] < 0.7
    assert 0.4 < litres[CORTEX] < 0.7
    assert 0.045 < litres[DEEP] < 0.08
    assert 0.01 < litres[VENTRICLES] < 0.03


def test_labels_are_symmetric_and_within_the_brain(template):
    assert template.t1.shape == template.labels.shape
    assert template.t1.max() <= 1
    assert not template.labels[template.t1 == 0].any()
    np.testing.assert_array_equal(template.labels, template.labels[::-1])


def test_intensities_order_the_classes(template):
    means = [template.t1[template.labels == k].mean() for k in (VENTRICLES, CORTEX, DEEP, WHITE)]
    assert means == sorted(means)


def test_the_notice_and_the_citation_are_kept():
    for part in ("One template, warped", "Copyright (C)", "McGill University", "Permission to use", "Fonov"):
        assert part in SOURCE


@pytest.mark.parametrize("name", NUCLEI)
def test_an_ellipsoid_holds_its_centre_and_has_its_volume(name):
    shape = NUCLEI[name]
    x, y, z = np.ogrid[-60:61, -60:61, -60:61]
    inside = shape.contains(x, y, z)
    cx, cy, cz = (round(c) + 60 for c in shape.centre)
    assert inside[cx, cy, cz]
    assert inside[120 - cx, cy, cz]
    apart = inside[:60].sum() * 2
    expected = 2 * 4 / 3 * np.pi * np.prod(shape.radii)
    assert apart <= 1.05 * expected
    if shape.centre[0] - max(shape.radii[:2]) > 0:
        assert apart == pytest.approx(expected, rel=0.05)


def test_yaw_and_pitch_turn_the_posterior_end_out_and_up():
    outwards = Ellipsoid((20, 0, 0), (2, 20, 2), yaw=20)
    assert outwards.contains(np.array(25.8), np.array(-16.0), np.array(0.0))
    assert not outwards.contains(np.array(14.2), np.array(-16.0), np.array(0.0))
    upwards = Ellipsoid((20, 0, 0), (2, 20, 2), pitch=20)
    assert upwards.contains(np.array(20.0), np.array(-16.0), np.array(5.8))
    assert not upwards.contains(np.array(20.0), np.array(-16.0), np.array(-5.8))
