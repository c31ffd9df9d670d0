import dataclasses

import numpy as np
import pytest
from metasynth.data_prep.cohorts import simulated
from metasynth.data_prep.cohorts.ageing import AgeingModel
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort
from metasynth.data_prep.cohorts.simulated import CONTRASTS, SimulatedSpec, draw_person_anatomy, scan
from metasynth.data_prep.cohorts.template import CORTEX, DEEP, VENTRICLES, WHITE
from metasynth.data_prep.cohorts.tissue_maps import FLUID
from metasynth.data_prep.cohorts.warped import CohortSpec
from metasynth.data_prep.montage import describe

from metasynth.data.cache import Cache
from metasynth.errors import UsageError
from metasynth.synthesis.sequences import Flash, Mprage

TINY = CohortSpec("template-30", n_subjects=2, slices_per_subject=2, spacing_mm=6.0, shape=(30, 28))
FINE = CohortSpec("template-96", n_subjects=3, slices_per_subject=3, spacing_mm=2.0, shape=(96, 96))
YOUNG = {contrast: SimulatedSpec.like(TINY, contrast, "young") for contrast in CONTRASTS}
OLDER = SimulatedSpec.like(TINY, "mprage", "older")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simulated")


def everything(spec, folder):
    with Cache(ensure_cohort(spec, folder)) as cache:
        return cache.read_images(range(cache.n)), cache.read_labels(range(cache.n)), cache.subjects, cache.slice_index


@pytest.mark.parametrize("spec", [YOUNG["flash-3"], OLDER], ids=lambda spec: spec.name)
def test_everything_says_that_it_is_simulated(spec, folder):
    path = ensure_cohort(spec, folder)
    assert path.name.startswith(f"simulated-{spec.name}-")
    with Cache(path) as cache:
        assert cache.info.source.startswith("SIMULATED MR images, not scans")
        assert repr(spec.sequence) in cache.info.source
        assert "Copyright (C)" in cache.info.source
        assert "Fonov" in cache.info.source
        assert cache.info.mapping.startswith("SIMULATED")
        assert cache.info.marks == ("SIMULATED",)
        assert all(name.startswith(f"simulated-{spec.group}-") for name in cache.subjects)
    shown = dict(describe(path))
    assert "simulated-" in shown["file"]
    assert shown["images"] == "yes, SIMULATED"
    assert "SIMULATED" in shown["mapping"]
    assert "SIMULATED" in shown["source"]


def test_the_young_are_the_same_people_under_every_contrast(folder):
    sets = [everything(spec, folder) for spec in YOUNG.values()]
    for _, labels, subjects, planes in sets[1:]:
        np.testing.assert_array_equal(labels, sets[0][1])
        np.testing.assert_array_equal(planes, sets[0][3])
        assert subjects == sets[0][2]
    for i, (one, *_) in enumerate(sets):
        assert one.min() == 0
        assert one.max() == 1
        for other, *_ in sets[i + 1 :]:
            assert np.abs(one - other)[sets[0][1] > 0].mean() > 0.01


def test_the_older_are_other_people(folder):
    young, older = everything(YOUNG["mprage"], folder), everything(OLDER, folder)
    assert not set(young[2]) & set(older[2])
    assert (young[1] != older[1]).mean() > 0.02


def test_neither_group_has_the_anatomy_of_the_template_cohorts(folder):
    with Cache(ensure_cohort(TINY, folder)) as cache:
        template = cache.read_labels(range(cache.n))
    for spec in (YOUNG["mprage"], OLDER):
        assert (everything(spec, folder)[1] != template).mean() > 0.02


def test_the_same_specification_gives_the_same_digest(folder, tmp_path):
    spec = YOUNG["mprage"]
    with Cache(ensure_cohort(spec, folder)) as cache:
        digest = cache.info.digest
    assert spec.build(tmp_path / "again.h5") == digest
    other = dataclasses.replace(spec, cohort=dataclasses.replace(spec.cohort, seed=7))
    assert other.build(tmp_path / "other.h5") != digest


def test_more_people_keep_the_first_ones(folder, tmp_path):
    spec = YOUNG["flash-20"]
    fewer = dataclasses.replace(spec, cohort=dataclasses.replace(spec.cohort, n_subjects=1))
    for one, other in zip(everything(fewer, tmp_path), everything(spec, folder), strict=True):
        np.testing.assert_array_equal(one, other[: len(one)])


@pytest.fixture(scope="module")
def people():
    """Anatomies of young people at 2 mm, and of the same people aged."""
    young = SimulatedSpec.like(FINE, "mprage", "young")
    aged = dataclasses.replace(young, group="older")
    return [(draw_person_anatomy(young, i), draw_person_anatomy(aged, i)) for i in range(FINE.n_subjects)]


def test_fractions_are_of_whole_pixels_in_the_brain_and_nothing_outside(people):
    for anatomy, _ in people:
        tissues, classes = anatomy.tissues.sum(axis=1), anatomy.classes.sum(axis=1)
        assert set(np.unique(tissues.round(4))) == {0.0, 1.0}
        np.testing.assert_allclose(classes, 1, atol=1e-4)
        assert (anatomy.classes[:, 0][tissues < 0.5] == 1).all()
        mixed = anatomy.tissues.max(axis=1)[tissues > 0.5] < 0.9
        assert 0.3 < mixed.mean() < 0.7  # partial volume is everywhere at 2 mm


def test_ageing_enlarges_ventricles_and_thins_the_cortex(people):
    """Of the same person, by fractions and by labels; the drawn sizes are those of AgeingModel, within a quarter."""
    ratios = []
    for young, aged in people:
        before, after = (anatomy.classes.sum(axis=(0, 2, 3)) for anatomy in (young, aged))
        counted = [np.bincount(a.classes.argmax(axis=1).ravel(), minlength=5) for a in (young, aged)]
        ratios.append(np.stack([after / before, counted[1] / counted[0]]))
    mean = np.mean(ratios, axis=0)
    for ratio in (*np.concatenate(ratios), *mean):
        assert 1.3 < ratio[VENTRICLES] < 2.9
        assert 0.86 < ratio[CORTEX] < 0.97
    model = AgeingModel()
    assert model.ventricles[0] < mean[0, VENTRICLES] < model.ventricles[1] * 1.05
    assert 0.90 < mean[0, CORTEX] < 0.95
    assert 0.93 < mean[0, WHITE] < 1.0


def means(spec, anatomy):
    """Mean brightness, by class, of pixels that hold nearly nothing else."""
    image = scan(spec, 0, anatomy)
    return {k: float(image[anatomy.classes[:, k] > 0.9].mean()) for k in (WHITE, CORTEX, DEEP, VENTRICLES)}


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        # From dark to bright; deep grey and cortex differ in FLASH by less than the coils' shading.
        ("mprage", (VENTRICLES, CORTEX, DEEP, WHITE)),
        ("flash-20", (VENTRICLES, CORTEX, WHITE)),
        ("flash-30", (VENTRICLES, CORTEX, WHITE)),
        ("flash-3", (WHITE, CORTEX, VENTRICLES)),
    ],
)
def test_contrasts_come_out_in_the_images(people, contrast, order):
    found = means(SimulatedSpec.like(FINE, contrast, "young"), people[0][0])
    assert sorted(order, key=lambda k: found[k]) == list(order), found


def test_at_5_degrees_the_tissues_are_nearly_alike(people):
    found = means(SimulatedSpec.like(FINE, "flash-5", "young"), people[0][0])
    assert max(found.values()) - min(found.values()) < 0.15


def test_images_show_the_mixtures_and_not_the_labels(people):
    """Within one label, what a pixel holds of fluid explains how bright it is."""
    anatomy, _ = people[0]
    image = scan(SimulatedSpec.like(FINE, "mprage", "young"), 0, anatomy)
    cortex = anatomy.classes.argmax(axis=1) == CORTEX
    assert np.corrcoef(anatomy.tissues[:, FLUID][cortex], image[cortex])[0, 1] < -0.5


def test_the_file_name_follows_all_that_a_set_is_made_by(monkeypatch):
    names = {spec.file_name for spec in COHORTS.values()}
    assert len(names) == len(COHORTS)
    spec = YOUNG["mprage"]
    before = spec.file_name
    monkeypatch.setattr(simulated, "NOISE_SD", 0.002)
    assert spec.file_name != before
    monkeypatch.undo()
    monkeypatch.setitem(CONTRASTS, "mprage", Mprage(ti_ms=1000.0))
    assert spec.file_name != before
    monkeypatch.undo()
    monkeypatch.setattr(simulated, "SIMULATION_RECIPE", 2)
    assert spec.file_name != before


def test_the_flip_angles_are_those_of_the_names():
    for name, sequence in CONTRASTS.items():
        assert isinstance(sequence, Mprage) or sequence == Flash(float(name.removeprefix("flash-")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": "flash-7"}, "contrast must be one of mprage, flash-3, .*, got 'flash-7'"),
        ({"group": "old"}, "group must be one of young, older, got 'old'"),
    ],
)
def test_a_specification_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(OLDER, **change)
