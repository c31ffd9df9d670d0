"""Whose scans there are, by the names that data sets use; a split never parts the scans of one person."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metasynth.data_prep.collect import Job, make_cache
from metasynth.data_prep.layouts import bids_scans, freesurfer_scans
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.naming.people import by_person
from metasynth.data_prep.options import Options
from metasynth.data_prep.slicing import Frame, SliceChoice
from metasynth.data_prep.sources import Scan, Sources
from support.head_phantom import head_labels, save

from metasynth.data.cache import Cache
from metasynth.data.splits import PARTS, make_split
from metasynth.errors import UsageError


def sources(names: str) -> Sources:
    return Sources([Scan(name, Path(name)) for name in names.split()], [])


def people(names: str, pattern: str | None = None) -> dict[str, list[str]]:
    """{person: scans}."""
    found: dict[str, list[str]] = {}
    for scan in by_person(sources(names), pattern).scans:
        found.setdefault(scan.person, []).append(scan.name)
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("sub-1_ses-1 sub-1_ses-2 sub-2", {"sub-1": 2, "sub-2": 1}),
        ("sub-1_T1w sub-11_T1w sub-1_acq-x_T1w", {"sub-1": 2, "sub-11": 1}),
        ("sub-1_ses-1 sub-1_ses-1.long.sub-1 sub-1 sub-2_ses-1", {"sub-1": 3, "sub-2": 1}),
        ("a.long.bert b.long.bert bert a b ernie", {"bert": 5, "ernie": 1}),
        ("bert_tp1 bert_tp2 bert_tp1.long.bert_base bert_base ernie_tp1", {"bert": 4, "ernie": 1}),
        ("sub-1_ses-1 sub-1_ses-1.long.template7 template7 sub-1_ses-2", {"sub-1": 4}),
        ("bert_visit1 bert_visit2 ernie.tp1 ernie.tp2", {"bert": 2, "ernie": 2}),
        ("bert_baseline bert_followup bert_tp1_T1w", {"bert": 3}),
        ("bert_1 bert_2 ernie_1", {"bert_1": 1, "bert_2": 1, "ernie_1": 1}),
        ("subject_base_1 tp1 tp2 ses-1", {"subject_base_1": 1, "tp1": 1, "tp2": 1, "ses-1": 1}),
        ("study_visit1_001 study_visit1_002", {"study_visit1_001": 1, "study_visit1_002": 1}),
        ("bert_visit1_run1_T1w bert_visit2_T1w", {"bert": 2}),
        ("OAS1_0001_MR1 OAS1_0001_MR2_mpr OASIS_OAS1_0002_MR1", {"OAS1_0001": 2, "OASIS_OAS1_0002": 1}),
        ("case_mr_1 case_mr_2 study_base_1", {"case_mr_1": 1, "case_mr_2": 1, "study_base_1": 1}),
        ("stp1 stp2", {"stp1": 1, "stp2": 1}),
    ],
)
def test_people_by_the_names_of_their_scans(names, expected):
    assert {person: len(scans) for person, scans in people(names).items()} == expected


def test_a_regular_expression_for_other_schemes():
    names = "bert_1 bert_2 ernie_1"
    assert people(names, "(.+)_[0-9]") == {"bert": ["bert_1", "bert_2"], "ernie": ["ernie_1"]}
    assert people(names, "^[a-z]+") == {"bert": ["bert_1", "bert_2"], "ernie": ["ernie_1"]}
    assert list(people("sub-1_ses-1 sub-1_ses-2", ".*")) == ["sub-1_ses-1", "sub-1_ses-2"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("bert", "--person bert: finds nothing in 2 of 3 names: ernie_1, x"),
        ("(bert)?", "--person (bert)?: finds nothing in 2 of 3 names: ernie_1, x"),
        ("(", "--person (: expected a regular expression: missing ), unterminated subpattern at position 0"),
        ("", "--person : finds nothing in 3 of 3 names: bert_1, ernie_1, x"),
    ],
)
def test_an_expression_that_finds_no_person(pattern, message):
    with pytest.raises(UsageError) as raised:
        people("bert_1 ernie_1 x", pattern)
    assert str(raised.value) == message


def test_how_names_were_read_is_a_line():
    (note,) = by_person(sources("sub-1_ses-1 sub-1_ses-2 sub-2_ses-1")).notes
    assert note == (
        "3 scans of 2 people, by their names: sub-1 (sub-1_ses-1, sub-1_ses-2); --person REGEX reads them otherwise"
    )
    (note,) = by_person(sources("bert_1 bert_2 ernie_1"), "[a-z]+").notes
    assert note == "3 scans of 2 people, by --person: bert (bert_1, bert_2)"
    (note,) = by_person(sources("bert_1 bert_2 ernie_1")).notes
    assert note == (
        r"3 scans, each taken for a person; if bert_1 and bert_2 are one person's, give --person '(.+)[._-]\d+'"
    )
    (note,) = by_person(sources("bert_tp1 bert_tp2")).notes
    assert note == "2 scans of 1 person, by their names: bert (bert_tp1, bert_tp2); --person REGEX reads them otherwise"
    (note,) = by_person(sources("100 100_long 101 101_long")).notes
    assert note == (
        "4 scans, each taken for a person; if 100 and 100_long are one person's, give --person '(.+?)(_long)?$'"
    )
    assert people("100 100_long 101 101_long", "(.+?)(_long)?$") == {
        "100": ["100", "100_long"],
        "101": ["101", "101_long"],
    }
    (note,) = by_person(sources("a.1 b b.x-y")).notes
    assert note.endswith(r"if b and b.x-y are one person's, give --person '(.+?)(\.x\-y)?$'")
    assert by_person(sources("subject_1 subject_2 subject_3")).notes == []
    assert by_person(sources("a a_12 b_T1w c_long")).notes == []
    assert by_person(sources("sub-1 sub-2")).notes == []


LONGITUDINAL = {
    "sub-1_ses-1": 0,
    "sub-1_ses-2": 0,
    "sub-1": 0,
    "sub-1_ses-1.long.sub-1": 0,
    "tp_x": 1,
    "tp_y": 1,
    "mean7": 1,
    "sub-3": 2,
    "ernie_tp1": 3,
    "ernie_tp2.long.ernie_base": 3,
}


@pytest.fixture(scope="module")
def subjects_dir(tmp_path_factory) -> Path:
    """Four people's scans in FreeSurfer's folders; a base names its timepoints in a file alone."""
    folder = tmp_path_factory.mktemp("subjects")
    for name, person in LONGITUDINAL.items():
        save(folder / name / "mri" / "aseg.mgz", head_labels(shape=(36 + 4 * person, 44, 40)))
    (folder / "mean7" / "base-tps").write_bytes(b"tp_x\r\ntp_y\r\n")
    return folder


def test_a_base_and_its_timepoints_are_one_person(subjects_dir, tmp_path):
    found = {scan.name: scan.person for scan in freesurfer_scans(subjects_dir, None, "aseg").scans}
    assert [found[name] for name in LONGITUDINAL] == ["sub-1"] * 4 + ["mean7"] * 3 + ["sub-3"] + ["ernie"] * 2
    (subjects_dir / "broken").mkdir()
    save(tmp_path / "a" / "mri" / "aseg.mgz", head_labels())
    (tmp_path / "a" / "base-tps").write_bytes(b"tp\0x")
    (note,) = freesurfer_scans(tmp_path, None, "aseg").notes
    assert note.endswith("got a NUL byte; save the file as UTF-8; whose scans a was made of is read from names alone")


def test_a_split_never_parts_the_scans_of_one_person(subjects_dir, tmp_path):
    found = freesurfer_scans(subjects_dir, None, "aseg")
    options = Options(MAPPINGS["freesurfer-4"], slices=SliceChoice("around", (2,)))
    report = make_cache(found, Job(tmp_path / "c.h5", options, Frame(), "prep", "phantoms"))
    assert (len(report.used), report.people) == (10, 4)
    with Cache(tmp_path / "c.h5") as cache:
        assert cache.subjects == ("ernie", "mean7", "sub-1", "sub-3")
        assert np.bincount(cache.subject_index).tolist() == [4, 6, 8, 2]
        for seed in range(20):
            split = make_split(cache.subjects, seed)
            names = np.array(cache.subjects)[cache.subject_index]
            parts = [np.flatnonzero(np.isin(names, getattr(split, part))) for part in PARTS]
            heads = [{cache.read_labels([item]).tobytes() for item in part} for part in parts]
            assert not heads[0] & heads[1] | heads[0] & heads[2] | heads[1] & heads[2]


def test_sessions_and_an_expression_of_bids(tmp_path):
    for visit in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        save(tmp_path / "anat" / f"{visit}_T1w.nii.gz", head_labels())
        save(tmp_path / "derivatives" / "anat" / f"{visit}_desc-aseg_dseg.nii.gz", head_labels())
    found = bids_scans(tmp_path, None, "T1w", "aseg")
    assert [scan.person for scan in found.scans] == ["sub-01", "sub-01", "sub-02"]
    assert found.notes[0].startswith("3 scans of 2 people, by their names: sub-01 (sub-01_ses-1, sub-01_ses-2)")
    found = bids_scans(tmp_path, None, "T1w", "aseg", "ses-.")
    assert [scan.person for scan in found.scans] == ["ses-1", "ses-2", "ses-1"]


PARTS_OF_NAMES = st.sampled_from(["sub-1", "sub-2", "bert", "ernie", "tp1", "ses-2", "base", "1", "long"])


@given(st.lists(st.lists(PARTS_OF_NAMES, min_size=1, max_size=4).map("_".join), max_size=8, unique=True), st.data())
def test_who_a_scan_is_of_does_not_depend_on_the_order(names, data):
    names = [name.replace("_long_", ".long.") for name in names]
    names = list(dict.fromkeys(names))
    shuffled = data.draw(st.permutations(names))
    groups = [
        {frozenset(scans) for scans in people(" ".join(some)).values()} if some else set() for some in (names, shuffled)
    ]
    assert groups[0] == groups[1]
