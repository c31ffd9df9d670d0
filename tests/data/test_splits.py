import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.data.splits import Split, make_split
from metasynth.errors import DataError

SUBJECTS = st.lists(st.text(min_size=1, max_size=8), min_size=3, max_size=40, unique=True)


@given(subjects=SUBJECTS, seed=st.integers(0, 2**63), shuffled=st.randoms())
def test_parts_cover_the_subjects_once_whatever_their_order(subjects, seed, shuffled):
    split = make_split(subjects, seed)
    parts = [split.train, split.val, split.test]
    assert sorted(name for part in parts for name in part) == sorted(subjects)
    assert all(parts)
    again = list(subjects)
    shuffled.shuffle(again)
    assert make_split(again, seed) == split
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


@pytest.mark.parametrize(
    ("n", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (8, (4, 2, 2)), (30, (18, 6, 6))]
)
def test_sizes(n, sizes):
    split = make_split([f"s{i}" for i in range(n)], seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == sizes


def test_the_division_is_fixed_for_ever():
    # Saved runs rely on it: a change here changes what every seed means.
    split = make_split([f"s{i}" for i in range(10)], seed=3)
    assert split.val == ("s1", "s4")
    assert split.test == ("s6", "s7")


def test_seeds_differ():
    subjects = [f"s{i}" for i in range(20)]
    assert len({make_split(subjects, seed).test for seed in range(20)}) > 15


def test_every_subject_is_tested_equally_often():
    subjects = [f"s{i}" for i in range(10)]
    tested = [name for seed in range(1000) for name in make_split(subjects, seed).test]
    counts = [tested.count(name) for name in subjects]
    assert max(abs(count - 200) for count in counts) < 60


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_subjects(n):
    with pytest.raises(DataError, match=f"needs at least 3 subjects .* got {n} subjects"):
        make_split([f"s{i}" for i in range(n)], seed=0)


def test_too_few_for_the_fractions():
    with pytest.raises(DataError, match="got 4 subjects for fractions"):
        make_split(["a", "b", "c", "d"], seed=0, fractions=(0.02, 0.49, 0.49))


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.3), (1.0, 0.0, 0.0), (1.2, -0.4, 0.2), (0.5, 0.5)])
def test_fractions_are_checked(fractions):
    with pytest.raises(DataError, match="three positive numbers that add to 1"):
        make_split(["a", "b", "c", "d"], seed=0, fractions=fractions)


def test_a_name_given_twice():
    with pytest.raises(DataError, match="got 'a' twice"):
        make_split(["a", "b", "a", "c"], seed=0)


GOOD = {"seed": 1, "train": ["a"], "val": ["b"], "test": ["c"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": ["a"]}, "subject 'a' is in 'train' and again in 'val'"),
        ({"test": ["c", "c"]}, "subject 'c' is in 'test' and again in 'test'"),
        ({"test": []}, "part 'test' is empty"),
        ({"train": "a"}, "'train' must be a list of subject names"),
        ({"train": [1]}, "'train' must be a list of subject names"),
        ({"seed": "one"}, "seed must be an integer, got 'one'"),
        ({"seed": True}, "seed must be an integer, got True"),
    ],
)
def test_a_damaged_saved_split_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        Split.from_dict({**GOOD, **change})


@pytest.mark.parametrize("key", GOOD)
def test_a_saved_split_without_a_key_is_refused(key):
    with pytest.raises(DataError, match=f"key '{key}' is missing"):
        Split.from_dict({k: v for k, v in GOOD.items() if k != key})
