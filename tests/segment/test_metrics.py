import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.segment.metrics import DiceAccumulator, mean_of_present, sd_of_present


def by_hand() -> DiceAccumulator:
    """Two subjects of one 2x3 slice each, three classes; class 2 is in neither map of the second."""
    scores = DiceAccumulator(n_classes=3, n_subjects=2)
    scores.update(
        predicted=torch.tensor([[[0, 1, 1], [2, 2, 0]], [[0, 1, 1], [0, 0, 0]]]),
        target=torch.tensor([[[0, 1, 0], [2, 2, 2]], [[0, 0, 0], [0, 0, 0]]]),
        subject=torch.tensor([0, 1]),
    )
    return scores


def test_dice_by_hand() -> None:
    expected = [
        [2 * 1 / (2 + 2), 2 * 1 / (2 + 1), 2 * 2 / (2 + 3)],
        [2 * 4 / (4 + 6), 0.0, math.nan],
    ]
    np.testing.assert_allclose(by_hand().result(), expected, rtol=1e-15)


def test_summary_by_hand() -> None:
    summary = by_hand().summary(["background", "white", "grey"], ["a", "b"])
    first, second = (2 / 3 + 4 / 5) / 2, 0.0
    assert summary["per_subject"] == pytest.approx({"a": first, "b": second})
    assert summary["per_class"] == pytest.approx({"background": 0.65, "white": 1 / 3, "grey": 0.8})
    assert summary["mean"] == pytest.approx((first + second) / 2)
    assert summary["sd"] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_mean_is_over_classes_of_a_subject_before_subjects() -> None:
    scores = DiceAccumulator(n_classes=3, n_subjects=2)
    predicted = torch.tensor([[1, 2, 0], [1, 0, 0]])
    target = torch.tensor([[1, 2, 0], [0, 1, 0]])
    scores.update(predicted, target, torch.tensor([0, 1]))
    # Subject 0 scores 1 and 1; subject 1 scores 0 in class 1 and has no class 2. All three at once: 2/3.
    assert scores.summary(["0", "1", "2"], ["a", "b"])["mean"] == 0.5


def test_nothing_to_average_is_none() -> None:
    scores = DiceAccumulator(n_classes=2, n_subjects=2)
    scores.update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long(), torch.tensor([0]))
    assert np.isnan(scores.result()[1]).all()
    summary = scores.summary(["background", "brain"], ["a", "b"])
    assert summary == {
        "mean": None,
        "sd": None,
        "per_class": {"background": 1.0, "brain": None},
        "per_subject": {"a": None, "b": None},
    }


def batches(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(0, 4, (n, 3, 2, 4), generator=generator)
    target = torch.randint(0, 4, (n, 3, 2, 4), generator=generator)
    return predicted, target, torch.randint(0, 3, (n,), generator=generator)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 9), data=st.data())
def test_counts_do_not_depend_on_batches_or_their_order(seed: int, n: int, data: st.DataObject) -> None:
    predicted, target, subject = batches(seed, n)
    whole, parts = DiceAccumulator(4, 3), DiceAccumulator(4, 3)
    whole.update(predicted, target, subject)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cut = data.draw(st.integers(0, n))
    for part in (order[:cut], order[cut:]):
        parts.update(predicted[part], target[part], subject[part])
    np.testing.assert_array_equal(whole.result(), parts.result())


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6))
def test_dice_is_the_set_formula_of_each_subject_and_class(seed: int, n: int) -> None:
    predicted, target, subject = batches(seed, n)
    scores = DiceAccumulator(4, 3)
    scores.update(predicted, target, subject)
    for s in range(3):
        for k in range(4):
            p, t = predicted[subject == s] == k, target[subject == s] == k
            size = int(p.sum() + t.sum())
            dice = 2 * int((p & t).sum()) / size if size else math.nan
            np.testing.assert_equal(scores.result()[s, k], dice)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31))
def test_dice_is_symmetric_and_1_for_the_truth(seed: int) -> None:
    predicted, target, subject = batches(seed, 5)
    forward, backward, perfect = (DiceAccumulator(4, 3) for _ in range(3))
    forward.update(predicted, target, subject)
    backward.update(target, predicted, subject)
    perfect.update(target, target, subject)
    np.testing.assert_array_equal(forward.result(), backward.result())
    present = perfect.result()[~np.isnan(perfect.result())]
    np.testing.assert_array_equal(present, np.ones_like(present))


def test_an_empty_batch_counts_nothing() -> None:
    scores = DiceAccumulator(2, 1)
    scores.update(*(torch.zeros(shape, dtype=torch.int64) for shape in ((0, 4, 4), (0, 4, 4), (0,))))
    assert np.isnan(scores.result()).all()


@pytest.mark.parametrize(
    ("message", "predicted", "target", "subject"),
    [
        (r"^predicted: must have the target's shape \(1, 2\), got \(1, 3\)$", [[0, 0, 0]], [[0, 0]], [0]),
        (r"^subject: must have shape \(1,\), got \(2,\)$", [[0, 0]], [[0, 0]], [0, 0]),
        (r"^predicted: must be in 0\.\.1, got 0\.\.2$", [[0, 2]], [[0, 0]], [0]),
        (r"^target: must be in 0\.\.1, got -1\.\.0$", [[0, 0]], [[0, -1]], [0]),
        (r"^subject: must be in 0\.\.0, got 1\.\.1$", [[0, 0]], [[0, 0]], [1]),
    ],
)
def test_bad_batches_are_rejected(message: str, predicted: list, target: list, subject: list) -> None:
    scores = DiceAccumulator(2, 1)
    with pytest.raises(ValueError, match=message):
        scores.update(torch.tensor(predicted), torch.tensor(target), torch.tensor(subject))
    assert np.isnan(scores.result()).all()


def test_names_must_match() -> None:
    with pytest.raises(ValueError, match=r"^class_names: must be 3 different names"):
        by_hand().summary(["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^subject_names: must be 2 different names"):
        by_hand().summary(["a", "b", "c"], ["a", "a"])


@pytest.mark.parametrize(("name", "sizes"), [("n_classes", (1, 1)), ("n_subjects", (2, 0))])
def test_sizes_out_of_range_are_rejected(name: str, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: must be at least"):
        DiceAccumulator(*sizes)


@pytest.mark.parametrize(
    ("values", "mean", "sd"),
    [
        ([1.0, 3.0], 2.0, math.sqrt(2)),
        ([None, 1.0, math.nan, 3.0, math.inf], 2.0, math.sqrt(2)),
        (np.array([0.25, math.nan]), 0.25, None),
        ([None, math.nan], None, None),
        ([], None, None),
    ],
)
def test_the_mean_is_of_the_values_that_are_there(values, mean, sd) -> None:
    assert mean_of_present(values) == mean
    assert sd_of_present(values) == (None if sd is None else pytest.approx(sd, rel=1e-15))
