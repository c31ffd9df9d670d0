import numpy as np
import pytest
from metasynth.data_prep.cohorts.ageing import Ageing, load_ageing
from metasynth.data_prep.cohorts.template import CLASS_NAMES, CORTEX, DEEP, VENTRICLES, WHITE, load_template
from metasynth.data_prep.cohorts.tissue_maps import SHARPNESS, TISSUES, load_tissue_maps, sharpened


@pytest.fixture(scope="module")
def brain():
    """Voxels (3, P) of the template's brain on every twelfth plane, and what they hold."""
    template = load_template()
    inside = np.zeros(template.t1.shape, dtype=bool)
    inside[:, 6::12] = template.t1[:, 6::12] > 0
    points = np.stack(np.nonzero(inside)).astype(float)
    return points, *load_tissue_maps().mixture(points), template.labels[inside]


@pytest.mark.parametrize(
    ("point", "tissue", "of_class"),
    [
        # Points (x, y, z) in mm in the template's space that lie well within a structure.
        ((13, 12, 8), "caudate", "subcortical grey"),
        ((27, 2, 2), "putamen", "subcortical grey"),
        ((19, -5, -1), "pallidum", "subcortical grey"),
        ((11, -18, 8), "thalamus", "subcortical grey"),
        ((28, -20, -16), "hippocampus", "subcortical grey"),
        ((23, -4, -21), "amygdala", "subcortical grey"),
        ((9, 10, -8), "accumbens", "subcortical grey"),
        ((7, 5, 16), "cerebrospinal fluid", "ventricles"),
        ((25, -10, 32), "white matter", "white matter"),
        ((7, 2, 40), "cortical grey", "cortical grey"),
        ((45, -54, -45), "cortical grey", "background"),  # cerebellum
        ((0, -31, 2), "cerebrospinal fluid", "background"),  # cistern of the great vein
    ],
)
def test_structures_hold_their_tissue_and_belong_to_their_class(point, tissue, of_class):
    at = np.array(point, dtype=float) - load_template().origin
    tissues, classes = load_tissue_maps().mixture(at[:, None])
    assert TISSUES[tissues[:, 0].argmax()] == tissue, dict(zip(TISSUES, tissues[:, 0].round(2), strict=True))
    assert tissues.max() > 0.65
    assert CLASS_NAMES[classes[:, 0].argmax()] == of_class


def test_fractions_are_fractions(brain):
    for values in brain[1:3]:
        assert values.min() >= 0
        np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-5)


def test_classes_agree_with_the_labels_of_the_template(brain):
    found, labels = brain[2].argmax(axis=0), brain[3]
    assert (found == labels).mean() > 0.95
    for k in (WHITE, CORTEX, DEEP, VENTRICLES):
        assert 2 * ((found == k) & (labels == k)).sum() / ((found == k).sum() + (labels == k).sum()) > 0.9


def test_borders_are_mixtures_and_the_inside_is_not(brain):
    purest = brain[1].max(axis=0)
    assert 0.1 < (purest < 0.9).mean() < 0.5
    assert np.median(purest) > 0.95


def test_sharpening_keeps_what_is_pure_or_even_and_fluid_gains():
    shares = np.array([[1.0, 0.5, 0.2, 0.0], [0.0, 0.5, 0.8, 1.0]])
    low, high = 0.2**SHARPNESS, 0.8**SHARPNESS
    np.testing.assert_allclose(sharpened(shares)[0], [1.0, 0.5, low / (low + high), 0.0])
    np.testing.assert_allclose(sharpened(shares, 3.0)[0], [1.0, 0.75, 3 * low / (3 * low + high), 0.0])


def test_growth_enlarges_the_ventricles_of_the_template_by_what_was_asked_for(brain):
    tables, maps = load_ageing(), load_tissue_maps()
    before = brain[2][VENTRICLES].sum()
    for ratio in (1.5, 2.5):
        ageing = tables.ageing(ratio, 0.0)
        assert ageing.fluid_gain == 1.0
        after = maps.mixture(tables.younger(brain[0], ageing.growth_mm))[1]
        assert after[VENTRICLES].sum() / before == pytest.approx(ratio, rel=0.1)
        solid = [WHITE, CORTEX, DEEP]
        assert after[solid].sum() < brain[2][solid].sum()


def test_gain_thins_the_cortex_of_the_template_by_what_was_asked_for_and_leaves_its_inner_border(brain):
    tables, maps = load_ageing(), load_tissue_maps()
    for thinning in (0.05, 0.1):
        ageing = tables.ageing(1.0, thinning)
        assert ageing.growth_mm == 0.0
        after = maps.mixture(brain[0], ageing.fluid_gain)[1]
        assert 1 - after[CORTEX].sum() / brain[2][CORTEX].sum() == pytest.approx(thinning, abs=0.01)
        assert after[WHITE].sum() / brain[2][WHITE].sum() == pytest.approx(1.0, abs=0.01)
        assert after[VENTRICLES].sum() / brain[2][VENTRICLES].sum() == pytest.approx(1.0, abs=0.03)


def test_no_ageing_leaves_everything_in_place(brain):
    tables = load_ageing()
    assert tables.ageing(1.0, 0.0) == Ageing()
    np.testing.assert_array_equal(tables.younger(brain[0], 0.0), brain[0])


def test_growth_does_not_fold_the_tissue_around_the_ventricles():
    """Neighbouring points of the older brain keep their orientation in the younger one, outside the ventricles."""
    tables, template = load_ageing(), load_template()
    inside = np.zeros(template.t1.shape, dtype=bool)
    inside[::3, ::9, ::3] = np.isin(template.labels[::3, ::9, ::3], (WHITE, DEEP))
    points = np.stack(np.nonzero(inside)).astype(float)
    growth = tables.ageing(2.4, 0.0).growth_mm
    columns = [
        tables.younger(points + 0.25 * e[:, None], growth) - tables.younger(points - 0.25 * e[:, None], growth)
        for e in np.eye(3)
    ]
    determinants = np.linalg.det(np.stack(columns, axis=-1).transpose(1, 0, 2)) / 0.5**3
    assert (determinants > 0).all()
    assert np.median(determinants) > 0.9
