"""Splits by numbers of subjects, whose rotations test other subjects each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.data.splits import rotated_split
from metasynth.errors import DataError


@given(n=st.integers(3, 40), data=st.data(), seed=st.integers(0, 5))
def test_nobody_is_in_two_parts_and_rotations_test_everyone_once(n, data, seed):
    n_test = data.draw(st.integers(1, n - 2))
    n_val = data.draw(st.integers(1, n - n_test - 1))
    names = [f"s{i}" for i in range(n)]
    tested = []
    for rotation in range(n // n_test):
        split = rotated_split(names, seed, n_val, n_test, rotation)
        assert sorted((*split.train, *split.val, *split.test)) == sorted(names)
        assert (len(split.val), len(split.test)) == (n_val, n_test)
        assert split == rotated_split(names[::-1], seed, n_val, n_test, rotation)  # whatever their order
        tested += split.test
    assert len(set(tested)) == len(tested) == n_test * (n // n_test)


def test_seeds_divide_differently():
    names = [f"s{i}" for i in range(12)]
    assert len({rotated_split(names, seed, 2, 3).test for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((2, 3, 3), "rotation must be 0 to 2 for 3 test subjects of 10, got 3"),
        ((5, 5, 0), "got 10 subjects for 5 of validation and 5 of test"),
        ((0, 3, 0), "at least 1 subject each"),
        ((2, 0, 0), "at least 1 subject each"),
    ],
)
def test_numbers_that_cannot_be(numbers, message):
    with pytest.raises(DataError, match=message):
        rotated_split([f"s{i}" for i in range(10)], 0, *numbers)


def test_a_name_given_twice():
    with pytest.raises(DataError, match="got 'a' twice"):
        rotated_split(["a", "b", "a", "c"], 0, 1, 1)
