"""Who is learned from, chosen by and tested; and caches that do not go together."""

import io
from dataclasses import replace
from itertools import pairwise

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metasynth.experiments.comparison.caches import check_comparison, require_same_generation
from metasynth.experiments.comparison.fits import FITS
from metasynth.experiments.comparison.settings import AugmenterSettings, ComparisonConfig, TestCache
from metasynth.experiments.real_images.cohorts import (
    check_caches,
    check_division,
    load_real_images,
)
from metasynth.experiments.real_images.settings import SubjectSettings
from metasynth.experiments.real_world import EXPERIMENT
from support.caches import FINE_INFO, GENERATION, TARGET, make
from support.tiny_comparison import carry_out, real_cache, rename, sign
from support.tiny_noise import make_cache

from metasynth.data.cache import Cache
from metasynth.data.splits import rotated_split
from metasynth.errors import DataError
from metasynth.running.manifest import make_manifest
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.study import StudyContext
from metasynth.training.segmenter_settings import SegmenterSettings

CONFIG = ComparisonConfig(
    methods=("naive",),
    domain="T1",
    tests=(TestCache("FLASH", "flash.h5"),),
    subjects=SubjectSettings(train=(1, 2, 0)),
    segmenter=SegmenterSettings(widths=(4, 8)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


def test_both_caches_of_a_reference_batch_have_the_same_generation_labels(folder):
    """Where label maps of both are synthesised from; else each may have its own."""
    data = real_cache(folder / "plain.h5", subjects=6)
    labels = make_cache(folder / "fine.h5", subjects=6, generation=True)
    learned = replace(CONFIG, methods=("naive", "parametric_fixed"), tests=(), subjects=SubjectSettings(train=(2,)))
    assert learned.outer.reference == "random"
    with pytest.raises(DataError) as caught:
        check_comparison(learned, data, labels)
    assert str(caught.value) == (
        f"{labels}: expected the generation labels of {data}, as outer.reference=random synthesises from both; label 1 "
        "is 'white matter' of class 'white matter' there, 'fluid' of class 'background' here: prepare both with the "
        "same --mapping and --generate, or set outer.reference=none"
    )
    more = replace(FINE_INFO, generation_names=(*GENERATION, "core"), target=(*TARGET, 1))
    with pytest.raises(DataError, match=r"; label 5 is absent there, 'core' of class 'white matter' here:"):
        require_same_generation(make(folder / "a.h5", info=FINE_INFO), make(folder / "b.h5", info=more), "so")
    check_comparison(replace(learned, methods=("naive",)), data, labels)
    check_comparison(replace(learned, outer=replace(learned.outer, reference="none")), data, labels)
    check_comparison(learned, real_cache(folder / "fine scans.h5", subjects=6, generation=True), labels)
    check_comparison(learned, real_cache(folder / "fine scans.h5", subjects=6, generation=True))


@pytest.fixture(scope="module")
def caches(folder):
    """Ten people with T1, eight of them and four others with FLASH, six of them and five others with label maps."""
    t1 = real_cache(folder / "t1.h5", subjects=10)
    flash = real_cache(folder / "flash.h5", subjects=12, contrast=0.5)
    labels = make_cache(folder / "labels.h5", subjects=11)
    rename(flash, lambda index, name: name if index < 8 else f"other {name}")
    rename(labels, lambda index, name: name if index < 6 else f"other {name}")
    return {"data": t1, "labels": labels, "tests.FLASH": flash}


def cohorts_of(run, config, caches, seed=0, resume=False):
    manifest = make_manifest("real_world", "quick", seed, {}, {"path": "c.h5", "digest": "d", "given": True})
    with (RunFolder.resume if resume else RunFolder.create)(run, manifest) as folder:
        others = {name: path for name, path in caches.items() if name != "data"}
        progress = Progress(quiet=True, stream=io.StringIO())
        context = StudyContext(config, "quick", seed, "cpu", 1, folder, caches["data"], resume, progress, others)
        return load_real_images(context), folder.read_json("split.json")


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    validation=st.integers(0, 3),
    test=st.integers(0, 3),
    rotation=st.integers(0, 2),
    own_labels=st.booleans(),
)
def test_no_test_or_validation_subject_is_learned_from(
    tmp_path_factory, caches, seed, validation, test, rotation, own_labels
):
    subjects = SubjectSettings((1, 2, 0), validation, test, rotation)
    chosen = {name: path for name, path in caches.items() if own_labels or name != "labels"}
    cohorts, split = cohorts_of(
        tmp_path_factory.mktemp("run") / "run", replace(CONFIG, subjects=subjects), chosen, seed
    )
    learned_from = {*cohorts.train.subjects, *cohorts.maps.subjects}
    held_out = {*cohorts.validation.subjects, *(name for one in cohorts.tests.values() for name in one.subjects)}
    assert not learned_from & held_out
    assert not set(cohorts.validation.subjects) & {n for one in cohorts.tests.values() for n in one.subjects}
    sizes = [set(cohorts.real(size).subjects) for size in cohorts.sizes]
    assert all(a <= b for a, b in pairwise(sizes))
    assert [len(size) for size in sizes] == [1, 2, len(cohorts.train.subjects)]
    assert list(cohorts.tests) == ["T1", "FLASH"]
    assert split["maps"] == list(cohorts.maps.subjects)
    assert split["test FLASH"] == list(cohorts.tests["FLASH"].subjects)


def test_rotations_test_different_subjects(tmp_path, caches):
    tested = [
        cohorts_of(tmp_path / str(r), replace(CONFIG, subjects=SubjectSettings((1,), 2, 3, r)), caches)[1]["test"]
        for r in range(3)
    ]
    assert len({name for names in tested for name in names}) == 9


def test_the_division_is_kept(tmp_path, caches):
    first, split = cohorts_of(tmp_path / "run", CONFIG, caches, seed=4)
    again, same = cohorts_of(tmp_path / "run", CONFIG, caches, seed=4, resume=True)
    assert split == same
    assert again.train.subjects == first.train.subjects


def changed(path, **attributes):
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
    return sign(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"class_names": ["background", "bone", "fat"]}, "expected the classes of .*got background, bone, fat"),
        ({"spacing_mm": [3.0, 2.0]}, "expected voxels of 3 x 3 mm as in .*got 3 x 2 mm"),
        ({"orientation": "IL"}, "expected coronal slices of orientation IR as in .*got coronal of IL"),
    ],
)
def test_caches_that_do_not_go_together(tmp_path, caches, attributes, message):
    for name in ("labels", "FLASH"):
        other = changed(real_cache(tmp_path / f"{name}.h5", subjects=12), **attributes)
        asked = {"labels": other} if name == "labels" else {"tests": {"FLASH": other}}
        with pytest.raises(DataError, match=rf"{name}\.h5: {message}"):
            check_caches(CONFIG, caches["data"], **asked)


def test_axes_may_be_named_in_another_order(tmp_path):
    data = real_cache(tmp_path / "t1.h5", subjects=10, views=("coronal,axial", "IR,PR"))
    labels = make_cache(tmp_path / "labels.h5", subjects=11, views=("axial,coronal", "PR,IR"))
    assert list(check_caches(CONFIG, data, labels).others) == ["labels"]
    one = make_cache(tmp_path / "one.h5", subjects=11)
    with pytest.raises(DataError) as caught:
        check_caches(CONFIG, data, one)
    assert str(caught.value) == (
        f"{one}: expected coronal,axial slices of orientation IR,PR as in {data}, got coronal of IR"
    )


def test_label_maps_of_another_shape_are_fitted_only_if_asked(tmp_path, caches):
    small = make_cache(tmp_path / "small.h5", shape=(12, 20))
    with pytest.raises(DataError, match=r"small\.h5: expected shape 16 x 16 as in .*got 12 x 20; .*fit_labels=true"):
        check_caches(CONFIG, caches["data"], small)
    prepared = check_caches(replace(CONFIG, fit_labels=True), caches["data"], small)
    with Cache(small) as cache:
        assert prepared.others["labels"].digest == cache.info.digest
    test = real_cache(tmp_path / "test.h5", shape=(12, 20))
    with pytest.raises(DataError, match=r"test\.h5: expected shape"):
        check_caches(replace(CONFIG, fit_labels=True), caches["data"], None, {"FLASH": test})


def test_what_is_missing(tmp_path, caches):
    plain = make_cache(tmp_path / "plain.h5")
    with pytest.raises(DataError, match=r"plain\.h5: holds labels only"):
        check_caches(CONFIG, plain)
    with pytest.raises(DataError, match="cannot be halved 5 times; expected sizes divisible by 32"):
        check_caches(replace(CONFIG, segmenter=SegmenterSettings(widths=(2,) * 6)), caches["data"])
    deep = replace(CONFIG, learned=AugmenterSettings(network=(2,) * 6))
    check_comparison(replace(deep, methods=("parametric_fixed",)), caches["data"])
    with pytest.raises(DataError, match=r"\.h5: images of 16 x 16 cannot be halved 5 times; .* \(learned\.network\)$"):
        check_comparison(replace(deep, methods=("parametric_fixed", "nonparametric_varying")), caches["data"])
    with pytest.raises(DataError, match=r"asks for 7 training subjects; 6 of 10 are left beside 2 .* and 2 for tests"):
        check_caches(replace(CONFIG, subjects=SubjectSettings((7,))), caches["data"])
    with pytest.raises(DataError, match="rotation must be 0 to 4"):
        check_caches(replace(CONFIG, subjects=SubjectSettings(rotation=5)), caches["data"])
    everyone = SubjectSettings((0,), validation=1, test=1)
    same = real_cache(tmp_path / "same.h5", subjects=10)
    cut = SubjectSettings((0,), validation=1, test=8)
    with pytest.raises(DataError, match=r"needs label maps of at least 2 training subjects, got 's.' alone"):
        check_caches(replace(CONFIG, subjects=cut), caches["data"])
    assert check_caches(replace(CONFIG, subjects=everyone), caches["data"], None, {"FLASH": same}).others


def test_everyone_left_out(tmp_path, caches):
    config = replace(CONFIG, subjects=SubjectSettings((0,), validation=1, test=1))
    cohorts, _ = cohorts_of(tmp_path / "run", config, caches)  # seed 0, by which caches are checked
    learned_from = cohorts.train.subjects[0]
    few = rename(real_cache(tmp_path / "few.h5", subjects=1), lambda index, name: learned_from)
    with pytest.raises(DataError, match=r"few\.h5: all 1 subjects are left out, as ones that are for training"):
        check_caches(config, caches["data"], None, {"FLASH": few})


def run_of(out, caches, seed, name, **settings):
    """The real subjects that the first stage of a run is given."""
    found = {}

    def fit(trial):
        found[trial.name] = trial.real.subjects
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FITS, name, fit)
        with pytest.raises(KeyboardInterrupt):
            carry_out(EXPERIMENT, out, caches["data"], seed=seed, methods=name, **settings)
    return found


@pytest.mark.parametrize("method", ["naive", "supervised_all"])
@pytest.mark.parametrize(("train", "fewest"), [("3,1", 1), ("1,3", 1), ("0,2", 2), ("2,0", 2), ("0", 6), ("3,3", 3)])
def test_the_fewest_are_the_fewest_however_they_are_listed(tmp_path, caches, train, fewest, method):
    alone = replace(CONFIG, tests=(), subjects=SubjectSettings((0,)))
    everyone = check_division(alone, check_caches(alone, caches["data"]), 0).train
    found = run_of(tmp_path / "run", caches, 0, method, subjects__train=train)
    assert found == {method: everyone[: 6 if method == "supervised_all" else fewest]}


def test_a_seed_that_leaves_nobody_is_refused_before_the_folder_is_made(tmp_path, caches):
    """And no other: seed 0 has no say in a run with another one."""
    few = rename(real_cache(tmp_path / "few.h5", subjects=1), lambda index, name: "s3")
    config = replace(CONFIG, subjects=SubjectSettings((2,)))
    prepared = check_caches(config, caches["data"], None, {"FLASH": few}, seed=None)
    kept = {seed: "s3" in rotated_split([f"s{i}" for i in range(10)], seed, 2, 2).test for seed in range(20)}
    good, bad = next(seed for seed in kept if kept[seed]), next(seed for seed in kept if not kept[seed])
    assert check_division(config, prepared, good).tests["FLASH"] == ("s3",)
    with pytest.raises(DataError, match=r"few\.h5: all 1 subjects are left out, as ones that are for training"):
        carry_out(EXPERIMENT, tmp_path / "bad", caches["data"], seed=bad, tests=f"T2={few}", methods="naive")
    assert not (tmp_path / "bad").exists()
    assert run_of(tmp_path / "good", caches, good, "naive", tests=f"T2={few}")
