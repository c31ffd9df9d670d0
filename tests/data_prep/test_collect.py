import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from metasynth.data_prep import parts
from metasynth.data_prep.collect import Job, make_cache
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.options import Options
from metasynth.data_prep.prepare import prepare
from metasynth.data_prep.slicing import Frame, SliceChoice
from metasynth.data_prep.sources import Scan, Sources
from metasynth.data_prep.structures import with_structures
from support import dying
from support.head_phantom import head_image, head_labels, save

from metasynth.data.cache import Cache
from metasynth.errors import DataError, RunError, UsageError

OPTIONS = Options(MAPPINGS["freesurfer-4"], slices=SliceChoice("around", (4,)))


@pytest.fixture
def sources(tmp_path) -> Sources:
    """Four subjects with images."""
    scans = []
    for i in range(4):
        ids = head_labels(seed=i)
        image = save(tmp_path / "in" / f"t1-{i}.nii.gz", head_image(ids, seed=i), "LIA")
        scans.append(Scan(f"s{i}", save(tmp_path / "in" / f"seg-{i}.nii.gz", ids, "LIA"), image))
    return Sources(scans, [])


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path / "c.h5", OPTIONS, Frame(), "prep test", "a phantom")


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "in")


def test_what_is_in_the_cache(sources, job, tmp_path):
    seen = []
    report = make_cache(sources, job, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with Cache(job.out) as cache:
        assert cache.class_names == MAPPINGS["freesurfer-4"].class_names
        assert cache.subjects == ("s0", "s1", "s2", "s3")
        assert cache.shape == report.shape == (48, 48)
        assert cache.info.spacing_mm == (1.0, 1.0)
        assert (cache.info.axis, cache.info.orientation, cache.info.source) == ("coronal", "IR", "a phantom")
        assert cache.info.created_by.endswith("prep test")
        for i, scan in enumerate(sources.scans):
            rows = np.flatnonzero(cache.subject_index == i)
            part = prepare(scan, OPTIONS)
            assert cache.slice_index[rows].tolist() == part.slice_index.tolist()
            counts = np.bincount(cache.read_labels(rows).ravel(), minlength=5)[1:]
            np.testing.assert_array_equal(counts, np.bincount(part.labels.ravel(), minlength=5)[1:])
            assert cache.read_images(rows).sum() == pytest.approx(part.images.sum(dtype=np.float64))
    assert files(tmp_path) == ["c.h5", "c.report.json"]
    assert json.loads(job.report.read_text())["used"] == {f"s{i}": 4 for i in range(4)}


def test_structures_are_kept_with_what_merges_them(sources, job):
    fine = with_structures(OPTIONS.mapping, "freesurfer-structures")
    job = dataclasses.replace(job, frame=Frame(margin_mm=0.0, divisor=2))  # which cuts some of the fluid
    report = make_cache(sources, dataclasses.replace(job, keep_work=True))
    assert report.notes == []
    with Cache(job.out) as cache:
        plain, classes, images = cache.slice_index.tolist(), *_all_of(cache)
        assert cache.info.version == 1
    job.out.unlink()
    report = make_cache(sources, dataclasses.replace(job, options=dataclasses.replace(OPTIONS, mapping=fine)))
    assert report.notes == []
    with Cache(job.out) as cache:
        assert cache.info.version == 2
        np.testing.assert_array_equal(_all_of(cache)[0], classes)
        np.testing.assert_array_equal(_all_of(cache)[1], images)
        assert cache.info.mapping == fine.text
        assert (cache.class_names, cache.generation_names) == (fine.class_names, fine.structures.names)
        assert cache.target.tolist() == list(fine.structures.target)
        assert cache.slice_index.tolist() == plain
        for i, scan in enumerate(sources.scans):
            part = prepare(scan, dataclasses.replace(OPTIONS, mapping=fine)).labels
            rows = np.flatnonzero(cache.subject_index == i)
            found, whole = (np.bincount(each.ravel(), minlength=22) for each in (cache.read_structures(rows), part))
            assert 0 < found[18] < whole[18]
            np.testing.assert_array_equal(np.delete(found, [0, 18]), np.delete(whole, [0, 18]))


def _all_of(cache):
    return cache.read_labels(range(cache.n)), cache.read_images(range(cache.n))


def test_volumes(sources, job):
    job = dataclasses.replace(job, options=dataclasses.replace(OPTIONS, volumes=True))
    make_cache(sources, job)
    with Cache(job.out) as cache:
        assert cache.n == 4
        assert len(cache.shape) == 3
        assert all(n % 16 == 0 for n in cache.shape)
        assert (cache.info.axis, cache.info.orientation) == ("volume", "AIR")
        expected = np.bincount(OPTIONS.mapping.apply(head_labels(seed=2)).ravel())[1:]
        np.testing.assert_array_equal(np.bincount(cache.read_labels([2]).ravel())[1:], expected)


def test_one_bad_subject_does_not_lose_the_others(sources, job):
    bad = sources.scans[1].labels
    bad.write_bytes(bad.read_bytes()[:1000])
    given = Sources(sources.scans, [("s9", "has no label map")])
    report = make_cache(given, job)
    assert [name for name, _ in report.used] == ["s0", "s2", "s3"]
    assert [name for name, _ in report.left_out] == ["s1", "s9"]
    assert "seg-1.nii.gz: is truncated" in report.left_out[0][1]
    with Cache(job.out) as cache:
        assert cache.subjects == ("s0", "s2", "s3")
    written = json.loads(job.report.read_text())
    assert written["left_out"][1] == {"name": "s9", "reason": "has no label map"}
    assert job.work.is_dir()  # for the run after the repair


def test_no_usable_subject_is_an_error(sources, job, tmp_path):
    for scan in sources.scans:
        scan.labels.write_bytes(b"")
    with pytest.raises(DataError, match=r"no subject could be used: s0: .*seg-0\.nii\.gz.* \(and 3 more\)"):
        make_cache(sources, job)
    assert not job.out.exists()
    with pytest.raises(DataError, match="no subject could be used: s9: gone"):
        make_cache(Sources([], [("s9", "gone")]), job)


def test_two_processes_make_what_one_makes(sources, job, tmp_path):
    make_cache(sources, job)
    other = dataclasses.replace(job, out=tmp_path / "d.h5", processes=2)
    sources.scans[3].labels.write_bytes(b"")
    report = make_cache(sources, other)
    assert [name for name, _ in report.left_out] == ["s3"]
    with Cache(job.out) as a, Cache(other.out) as b:
        np.testing.assert_array_equal(a.read_labels(range(12)), b.read_labels(range(12)))
        np.testing.assert_array_equal(a.read_images(range(12)), b.read_images(range(12)))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_goes_on_where_it_was(sources, job, monkeypatch, stop):
    make_cache(sources, dataclasses.replace(job, out=job.out.with_name("whole.h5")))
    made = []

    def until_the_third(scan, options):
        made.append(scan.name)
        if len(made) == 3:
            raise stop
        return prepare(scan, options)

    monkeypatch.setattr(parts, "prepare", until_the_third)
    with pytest.raises(stop):
        make_cache(sources, job)
    assert not job.out.exists()
    assert len(list(job.work.iterdir())) == 2
    monkeypatch.setattr(parts, "prepare", lambda scan, options: made.append(scan.name) or prepare(scan, options))
    make_cache(sources, job)
    assert made == ["s0", "s1", "s2", "s2", "s3"]
    with Cache(job.out) as a, Cache(job.out.with_name("whole.h5")) as b:
        assert a.info.digest == b.info.digest
    assert not job.work.exists()


def test_only_what_changed_is_made_again(sources, job, monkeypatch):
    made = []
    monkeypatch.setattr(parts, "prepare", lambda scan, options: made.append(scan.name) or prepare(scan, options))
    job = dataclasses.replace(job, keep_work=True)
    make_cache(sources, job)
    made.clear()
    make_cache(sources, dataclasses.replace(job, frame=Frame(size=(64, 64))))
    assert made == []
    os.utime(sources.scans[2].image, ns=(1, 1))
    make_cache(sources, job)
    assert made == ["s2"]
    make_cache(sources, dataclasses.replace(job, options=dataclasses.replace(OPTIONS, min_content=0.2)))
    assert made == ["s2", "s0", "s1", "s2", "s3"]
    part = next(job.work.glob("s1-*"))
    for path in job.work.glob("s1-*"):
        path.write_bytes(part.read_bytes()[:-40])  # damaged by a full disk, say
    made.clear()
    make_cache(sources, job)
    assert made == ["s1"]


@pytest.mark.parametrize("where", ["directory", "array", "seal", "none"])
def test_a_damaged_part_is_made_again(sources, job, monkeypatch, where):
    made = []
    monkeypatch.setattr(parts, "prepare", lambda scan, options: made.append(scan.name) or prepare(scan, options))
    job = dataclasses.replace(job, keep_work=True)
    make_cache(sources, job)
    before = job.out.read_bytes()
    path = next(job.work.glob("s1-*"))
    whole = path.read_bytes()
    data = bytearray(whole)
    flag = data.rindex(b"PK\x01\x02") + 8  # of the entry in the directory: how its name is encoded
    data[{"directory": flag, "array": 200, "seal": len(data) - 1, "none": 0}[where]] ^= 1
    path.write_bytes(whole[: whole.rindex(b"PK\x05\x06") + 20] + b"\0\0" if where == "none" else data)
    made.clear()
    make_cache(sources, job)
    assert made == ["s1"]
    assert path.read_bytes() == whole
    assert job.out.read_bytes() == before


def test_a_part_that_is_damaged_while_the_cache_is_made_is_named(sources, job):
    job = dataclasses.replace(job, keep_work=True)
    make_cache(sources, job)
    path = next(job.work.glob("s1-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError) as caught:
        parts.load_part(path)
    assert str(caught.value) == (
        f"{path}: is damaged (its SHA-256 is not the one it carries); run the same command again"
    )


@pytest.mark.parametrize("which", ["labels", "image"])
def test_a_file_of_equal_size_and_time_is_another_by_its_content(sources, job, which):
    make_cache(sources, dataclasses.replace(job, out=job.out.with_name("expected.h5")))
    changed, other = (getattr(scan, which) for scan in sources.scans[1:3])
    was, text = changed.stat(), changed.read_bytes()
    size = max(len(text), other.stat().st_size)
    for path in (changed, other):  # gzip files may end in zeros
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
    make_cache(sources, dataclasses.replace(job, keep_work=True))
    changed.write_bytes(other.read_bytes())
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (changed.stat().st_size, changed.stat().st_mtime_ns) == (size, was.st_mtime_ns)
    make_cache(sources, job)
    with Cache(job.out) as cache, Cache(job.out.with_name("expected.h5")) as expected:
        read = cache.read_labels if which == "labels" else cache.read_images
        before = expected.read_labels if which == "labels" else expected.read_images
        assert not np.array_equal(read(range(4, 8)), before(range(4, 8)))
        if which == "labels":
            part = prepare(sources.scans[1], OPTIONS)
            counts = np.bincount(cache.read_labels(range(4, 8)).ravel(), minlength=5)[1:]
            np.testing.assert_array_equal(counts, np.bincount(part.labels.ravel(), minlength=5)[1:])


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(sources, job, full_disk, tmp_path):
    with full_disk(), pytest.raises(DataError, match=r"s0-.*\.npz: cannot be written: No space left on device$"):
        make_cache(sources, job)
    assert list(job.work.iterdir()) == []
    make_cache(sources, dataclasses.replace(job, keep_work=True))
    before = job.out.read_bytes()
    with full_disk(), pytest.raises(DataError, match=r"c\.h5: cannot be written: No space left on device$"):
        make_cache(sources, dataclasses.replace(job, keep_work=True, frame=Frame(size=(64, 64))))
    assert job.out.read_bytes() == before
    assert files(tmp_path) == ["c.h5", "c.h5.work", "c.report.json"]


def test_a_killed_worker_is_said(sources, job, monkeypatch):
    monkeypatch.setattr(parts, "_attempt", dying.die)
    with pytest.raises(RunError, match="a worker process was killed, perhaps for want of memory: try fewer --jobs"):
        make_cache(sources, dataclasses.replace(job, processes=2))


def test_subjects_of_another_spacing_are_left_out(sources, job, tmp_path):
    ids = head_labels(seed=7)
    labels = save(tmp_path / "in" / "odd.nii", ids, spacing=(1.0, 1.0, 1.3))
    image = save(tmp_path / "in" / "odd-t1.nii", head_image(ids), spacing=(1.0, 1.0, 1.3))
    report = make_cache(Sources([*sources.scans, Scan("odd", labels, image)], []), job)
    ((name, reason),) = report.left_out
    assert name == "odd"
    assert reason.startswith(
        "its voxels are 1 x 1.3 x 1 mm (slicing axis, rows, columns), most are 1 x 1 x 1 mm; --spac"
    )


def test_sessions_of_one_person_are_one_subject(sources, job):
    scans = [dataclasses.replace(scan, subject=f"p{i // 2}") for i, scan in enumerate(sources.scans)]
    make_cache(Sources(scans, []), job)
    with Cache(job.out) as cache:
        assert cache.subjects == ("p0", "p1")
        assert np.bincount(cache.subject_index).tolist() == [8, 8]


def test_a_size_that_cuts_labels_is_noted(sources, job):
    report = make_cache(sources, dataclasses.replace(job, frame=Frame(size=(16, 32))))
    assert report.shape == (16, 32)
    assert len(report.notes) == 4
    assert "labelled voxels lie outside the size 16 x 32" in report.notes[0]
    with pytest.raises(UsageError, match="--size 16 x 16 x 16: expected two lengths for slices"):
        make_cache(sources, dataclasses.replace(job, frame=Frame(size=(16, 16, 16))))


def test_a_folder_that_is_not_there(sources, job, tmp_path):
    with pytest.raises(UsageError, match=r"--out .*absent/c\.h5: the folder .*absent does not exist"):
        make_cache(sources, dataclasses.replace(job, out=tmp_path / "absent" / "c.h5"))
