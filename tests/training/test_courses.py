"""The course of learned values: kept while a stage goes on, and taken up from the records of earlier sessions."""

import pytest

from metasynth.errors import DataError
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RunFolder
from metasynth.training.courses import Course, tail_of, trajectory_of

MANIFEST = make_manifest("noise", "quick", 0, {"sigma": [0.1]}, {"path": "a.h5", "digest": "d", "given": False})
RECORDS = [
    {"stage": "b", "step": 1, "outer_step": 1, "sigma": 9.0, "c": 9.0},
    {"stage": "a", "step": 1, "inner_loss": 1.0},
    *({"stage": "a", "step": n + 1, "outer_step": n, "sigma": 0.1 + n / 3, "c": n, "note": "x"} for n in range(1, 22)),
    {"stage": "a", "step": 23, "outer_loss": 1.0},
]


def added(course, records=RECORDS[1:]):
    for record in records:
        course.add(record)
    return course.tails()


def expected():
    tails = {name: tail_of(trajectory_of(RECORDS, "a", name)[1]) for name in ("sigma", "c")}
    return {name: mean for name, (mean, _) in tails.items()}, {name: sd for name, (_, sd) in tails.items()}


def test_tails_are_to_the_bit_those_of_the_records():
    mean, sd = found = added(Course(["sigma", "c"]))
    assert found == expected()
    assert (mean["c"], sd["c"]) == (20.5, 0.5)
    assert added(Course(["c"])) == ({"c": 20.5}, {"c": 0.5})


def written(place, records):
    with RunFolder.create(place, MANIFEST) as folder:
        for record in records:
            folder.append(record)
    return RunFolder.resume(place, MANIFEST)


@pytest.mark.parametrize("until", [1, 2, 12, len(RECORDS)])
def test_what_earlier_sessions_recorded_of_the_stage_comes_first(tmp_path, until):
    course = Course(["sigma", "c"])
    added(course, RECORDS[3:5])  # is forgotten
    with written(tmp_path / "run", RECORDS[:until]) as folder:
        course.take_up(folder, "a")
    assert added(course, RECORDS[until:]) == expected()


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"sigma": 0.1}, "0: expected an entry 'c', got ['outer_step', 'sigma', 'stage']"),
        ({"sigma": 0.1, "c": "0.2"}, "0.c: expected a finite number, got '0.2'"),
    ],
)
def test_a_record_without_a_value_is_named(tmp_path, record, line):
    recorded = written(tmp_path / "run", [{"stage": "a", "outer_step": 1, **record}])
    with recorded as folder, pytest.raises(DataError) as refused:
        Course(["sigma", "c"]).take_up(folder, "a")
    assert str(refused.value) == f"{tmp_path / 'run' / 'metrics.jsonl'}: outer steps of 'a': {line}"
