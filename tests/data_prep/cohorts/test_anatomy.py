"""The structures of simulated people: finer labels of the same images, from which others can be synthesised."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.cohorts import cohort
from metasynth.data_prep.cohorts.anatomy import STRUCTURE_NAMES, TARGET, structure_fractions, structure_labels
from metasynth.data_prep.cohorts.cohort import ensure_cohort
from metasynth.data_prep.cohorts.simulated import SimulatedSpec, draw_person_anatomy
from metasynth.data_prep.cohorts.template import BACKGROUND, CLASS_NAMES, DEEP, VENTRICLES, load_template
from metasynth.data_prep.cohorts.tissue_maps import NUCLEUS_TISSUES, load_tissue_maps
from metasynth.data_prep.cohorts.warped import CohortSpec

from metasynth.cli.main import main
from metasynth.data.cache import Cache

TINY = CohortSpec("template-30", n_subjects=2, slices_per_subject=2, spacing_mm=6.0, shape=(30, 28))
FINE = replace(TINY, slices_per_subject=3, spacing_mm=2.0, shape=(96, 96))
PLAIN = SimulatedSpec.like(TINY, "mprage", "young")


def test_fractions_of_structures_sum_to_those_of_their_classes():
    inside = np.argwhere(load_template().t1 > 0)
    points = np.random.default_rng(0).choice(inside, 4000, replace=False).T.astype(np.float64)
    sample = load_tissue_maps().sample(points)
    found = structure_fractions(sample)
    assert found.shape == (len(STRUCTURE_NAMES), 4000)
    classes = sample.classes()
    for k in range(len(CLASS_NAMES)):
        np.testing.assert_allclose(found[np.array(TARGET) == k].sum(axis=0), classes[k], atol=1e-6)


def test_the_label_is_the_largest_structure_of_the_class():
    fractions = np.zeros((1, len(STRUCTURE_NAMES), 2, 2))
    putamen, caudate, fluid = (
        STRUCTURE_NAMES.index(name) for name in ("putamen", "caudate", "fluid outside the ventricles")
    )
    fractions[0, [putamen, caudate, fluid], 0, 0] = 0.35, 0.25, 0.4
    fractions[0, fluid, 0, 1] = 1
    classes = np.array([[[DEEP, BACKGROUND], [BACKGROUND, BACKGROUND]]])
    assert structure_labels(classes, fractions).tolist() == [[[putamen, fluid], [0, 0]]]


def test_the_same_images_and_classes_with_structures(tmp_path):
    fine = replace(PLAIN, structures=True)
    assert fine.name == "mprage-young-30-structures"
    paths = [ensure_cohort(spec, tmp_path) for spec in (PLAIN, fine)]
    assert paths[0].name == "simulated-mprage-young-30-59a2ed47869c.h5"  # as ever
    assert paths[1].name.startswith("simulated-mprage-young-30-structures-")
    with Cache(paths[0]) as plain, Cache(paths[1]) as cache:
        assert (cache.generation_names, tuple(cache.target)) == (STRUCTURE_NAMES, TARGET)
        assert (cache.class_names, cache.subjects) == (plain.class_names, plain.subjects)
        assert cache.info.mapping == f"{plain.info.mapping}; images are synthesised from 14 structures"
        every = range(cache.n)
        np.testing.assert_array_equal(cache.read_labels(every), plain.read_labels(every))
        np.testing.assert_array_equal(cache.read_images(every), plain.read_images(every))
        structures, images = cache.read_structures(every), cache.read_images(every)
        assert (structures[images == 0] == 0).mean() > 0.99
        assert {STRUCTURE_NAMES.index(name) for name in ("fluid outside the ventricles", "cerebellar grey")} <= set(
            np.unique(structures).tolist()
        )


@pytest.mark.parametrize("group", ["young", "older"])
def test_what_is_in_a_brain_has_a_structure_and_nothing_outside(group):
    anatomy = draw_person_anatomy(replace(SimulatedSpec.like(FINE, "mprage", group), structures=True), 0)
    labels, brain = anatomy.labels(), anatomy.tissues.sum(axis=1) > 0.5
    np.testing.assert_array_equal(labels > 0, brain)
    np.testing.assert_array_equal(np.array(TARGET)[labels], anatomy.classes.argmax(axis=1))
    assert (labels == STRUCTURE_NAMES.index("ventricles")).sum() == (anatomy.classes.argmax(axis=1) == VENTRICLES).sum()
    assert {STRUCTURE_NAMES[g] for g in np.unique(labels)} > {"caudate", "putamen", "thalamus"} <= set(NUCLEUS_TISSUES)


def test_structures_of_a_cohort_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("METASYNTH_CACHE", str(tmp_path / "kept"))
    monkeypatch.setitem(cohort.COHORTS, "mprage-young-64", PLAIN)
    given = ["prep", "template", "--generate", "simulated-structures", "--out", str(tmp_path / "c.h5"), "--quiet"]
    done = CliRunner().invoke(main, [*given, "--cohort", "mprage-young-64"])
    assert done.exit_code == 0, done.output
    with Cache(tmp_path / "c.h5") as cache:
        assert cache.generation_names == STRUCTURE_NAMES
    done = CliRunner().invoke(main, [*given[:4], "--cohort", "template-64"])
    assert done.exit_code == 2
    assert done.stderr == (
        "Error: --generate simulated-structures: expected a simulated cohort, got --cohort template-64\n"
    )
