import dataclasses
import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from metasynth.data_prep import cohort as cohort_module
from metasynth.data_prep import warped
from metasynth.data_prep.cohort import COHORTS, CohortSpec, build_cohort, cache_folder, ensure_cohort

from metasynth.data.cache import Cache, verify_digest
from metasynth.data.splits import make_split
from metasynth.errors import DataError, UsageError

SPEC = CohortSpec("tiny", n_subjects=4, slices_per_subject=3, spacing_mm=6.0, shape=(30, 28), seed=5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return ensure_cohort(SPEC, tmp_path_factory.mktemp("cohort"))


def test_what_the_cache_says(kept):
    with Cache(kept) as cache:
        assert cache.shape == (30, 28)
        assert cache.n == 12
        assert len(cache.subjects) == 4
        assert cache.info.spacing_mm == (6.0, 6.0)
        assert cache.info.axis == "coronal"
        assert "One template, warped" in cache.info.source
        assert "Copyright (C)" in cache.info.source
        assert "cerebellum" in cache.info.mapping
        make_split(cache.subjects, seed=0)
        for subject in range(4):
            planes = cache.slice_index[cache.subject_index == subject]
            assert len(set(planes)) == 3


def test_every_class_is_in_every_subject(kept):
    with Cache(kept) as cache:
        for subject in range(4):
            labels = cache.read_labels(np.flatnonzero(cache.subject_index == subject))
            assert np.unique(labels).tolist() == [0, 1, 2, 3, 4]


def test_subjects_differ(kept):
    with Cache(kept) as cache:
        first, second = (cache.read_labels([i]) for i in (0, 3))
        assert 0.02 < (first != second).mean() < 0.5


def test_images_and_labels_lie_on_each_other_and_upright(tmp_path):
    spec = CohortSpec("upright", n_subjects=2, slices_per_subject=2, spacing_mm=2.0, shape=(96, 96))
    build_cohort(spec, tmp_path / "c.h5")
    with Cache(tmp_path / "c.h5") as cache:
        images, labels = cache.read_images(range(4)), cache.read_labels(range(4))
    assert not labels[images == 0].any()
    white, cortex, deep, fluid = (images[labels == k].mean() for k in (1, 2, 3, 4))
    assert fluid < cortex < deep < white
    assert ((images > 0) & (labels == 0)).sum() < 0.15 * (images > 0).sum()
    assert not any(edge.any() for edge in (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]))
    rows = np.arange(96).reshape(-1, 1)
    for label in labels:
        # The ventricles lie above the centre of the subcortical grey, hippocampus and amygdala included.
        ventricles, deep_grey = (np.average(rows + 0 * label, weights=label == k) for k in (4, 3))
        assert ventricles < deep_grey


def test_the_same_specification_gives_the_same_digest(kept, tmp_path):
    with Cache(kept) as cache:
        digest = cache.info.digest
    assert build_cohort(SPEC, tmp_path / "again.h5") == digest
    assert build_cohort(dataclasses.replace(SPEC, seed=6), tmp_path / "other.h5") != digest


def test_more_subjects_keep_the_first_ones(kept, tmp_path):
    build_cohort(dataclasses.replace(SPEC, n_subjects=5), tmp_path / "c.h5")
    with Cache(kept) as fewer, Cache(tmp_path / "c.h5") as more:
        np.testing.assert_array_equal(fewer.read_labels(range(12)), more.read_labels(range(12)))


def test_a_kept_cohort_is_not_made_again(kept, monkeypatch):
    monkeypatch.setattr(CohortSpec, "build", lambda *_: pytest.fail("was made again"))
    assert ensure_cohort(SPEC, kept.parent) == kept


@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_cohort_is_made_again_with_a_notice(kept, tmp_path, damage):
    content = kept.read_bytes()
    path = tmp_path / kept.name
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            file["labels"][0, 15, 14] = file["labels"][0, 15, 14] ^ 1
    else:
        path.write_text("not a cache")
    notices: list[str] = []
    assert ensure_cohort(SPEC, tmp_path, notice=notices.append) == path
    assert len(notices) == 1
    assert notices[0].startswith(f"{path}: the kept cohort is damaged (")
    assert "\n" not in notices[0]
    assert verify_digest(path)
    assert os.listdir(tmp_path) == [path.name]


def test_the_notice_is_a_warning_by_default(kept, tmp_path, capsys, caplog):
    (tmp_path / kept.name).write_text("not a cache")
    ensure_cohort(SPEC, tmp_path)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("metasynth.data_prep.cohort", "WARNING")
    assert record.getMessage().startswith(f"{tmp_path / kept.name}: the kept cohort is damaged (")
    assert record.getMessage().endswith("); making it again")
    assert capsys.readouterr() == ("", "")


def test_two_builders_at_once_do_not_harm_each_other(kept, tmp_path):
    found: list[Path] = []

    def build() -> None:
        found.append(ensure_cohort(SPEC, tmp_path))

    builders = [threading.Thread(target=build) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert found == [tmp_path / kept.name] * 2
    assert verify_digest(found[0])
    assert os.listdir(tmp_path) == [kept.name]


def test_progress_is_reported(tmp_path):
    calls: list[tuple[int, int]] = []
    ensure_cohort(SPEC, tmp_path / "new" / "folder", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the folder cannot be made"):
        ensure_cohort(SPEC, tmp_path / "file" / "cache")


def test_a_full_disk_leaves_nothing_behind(tmp_path, full_disk):
    with full_disk(), pytest.raises(DataError, match="cannot be written: No space left on device"):
        ensure_cohort(SPEC, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name must be letters"),
        ({"n_subjects": 0}, "n_subjects must be at least 1, got 0"),
        ({"slices_per_subject": 0}, "slices_per_subject must be 1 to 44, got 0"),
        ({"slices_per_subject": 45}, "slices_per_subject must be 1 to 44, got 45"),
        ({"spacing_mm": 0.0}, "spacing_mm must be a positive number, got 0"),
        ({"shape": (20, 28)}, "covers 120 x 168 mm; a brain needs 168 x 160 mm"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_a_specification_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SPEC, **change)


def test_the_file_name_follows_specification_and_recipe(monkeypatch):
    names = {spec.file_name for spec in COHORTS.values()}
    names |= {dataclasses.replace(SPEC, seed=seed).file_name for seed in range(3)}
    assert len(names) == len(COHORTS) + 3
    before = SPEC.file_name
    assert before.startswith("tiny-")
    monkeypatch.setattr(warped, "RECIPE", warped.RECIPE + 1)
    assert SPEC.file_name != before


def test_the_named_cohorts():
    kinds = ("template", "mprage-young", "mprage-older", "flash-3", "flash-5", "flash-20", "flash-30")
    assert set(COHORTS) == {f"{kind}-{size}" for kind in kinds for size in (64, 96, 192)}
    assert all(name == spec.name for name, spec in COHORTS.items())


def test_the_template_cohorts_stay_as_they_are():
    """Their caches are found by these names: a change of the specification or the recipe makes all of them anew."""
    assert [COHORTS[f"template-{size}"].file_name for size in (64, 96, 192)] == [
        "template-64-740a198504b0.h5",
        "template-96-c2317e0d4da2.h5",
        "template-192-8a48fed6bb12.h5",
    ]


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("METASYNTH_CACHE", "~/chosen")
    assert cache_folder() == Path.home() / "chosen"
    monkeypatch.setenv("METASYNTH_CACHE", "~nobody-of-that-name/chosen")
    assert cache_folder() == Path("~nobody-of-that-name/chosen")
    monkeypatch.delenv("METASYNTH_CACHE")
    monkeypatch.setattr(cohort_module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/metasynth")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "metasynth"
    monkeypatch.setattr(cohort_module.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "metasynth"
