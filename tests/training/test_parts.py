"""The parts of a step's batches, and the losses of the parts."""

import pytest
import torch

from metasynth.bilevel.processes.processes import Processes
from metasynth.errors import RunError
from metasynth.running.ranks.ranks import ALONE
from metasynth.segment.losses import soft_dice_loss
from metasynth.training.sources import Example
from metasynth.training.stages import processes_of
from metasynth.training.streams import Part, StepBatch


def example(size):
    images = torch.arange(float(size)).reshape(size, 1, 1, 1)
    return Example(images, images[:, 0].long(), (images[:, 0], (torch.tensor(7.0), None)))


class Whole:
    def __getitem__(self, step):
        return StepBatch(example(step), example(2), None)


def test_the_parts_of_a_batch_are_the_batch():
    parts = [Part(Whole(), rank, 2)[6] for rank in range(2)]
    assert [part.inner.images.flatten().tolist() for part in parts] == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert [part.inner.labels.flatten().tolist() for part in parts] == [[0, 2, 4], [1, 3, 5]]
    assert [part.inner.draws[0].flatten().tolist() for part in parts] == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert [part.outer.labels.flatten().tolist() for part in parts] == [[0], [1]]
    assert all(part.inner.draws[1] == (torch.tensor(7.0), None) and part.reference is None for part in parts)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(RunError) as caught:
        Part(Whole(), 0, 2)[3]
    assert str(caught.value) == "a batch of 3 cannot be divided among the 2 processes of the run"


def test_one_process_averages_over_itself():
    assert processes_of(ALONE) == Processes()


def test_dice_of_a_part_with_the_sums_of_the_batch_is_that_of_the_batch():
    logits, labels = torch.randn(4, 3, 5, 5, dtype=torch.float64), torch.randint(3, (4, 5, 5))
    rest = torch.zeros(2, 3, dtype=torch.float64)

    def sums(given):
        rest.copy_(given)
        return given

    whole = soft_dice_loss(logits, labels)
    soft_dice_loss(logits[2:], labels[2:], total=sums)
    assert torch.isclose(soft_dice_loss(logits[:2], labels[:2], total=lambda own: own + rest), whole, rtol=1e-12)
    each = soft_dice_loss(logits, labels, batch=False)
    assert soft_dice_loss(logits, labels, batch=False, total=sums) == each  # a mean over images has nothing to sum
