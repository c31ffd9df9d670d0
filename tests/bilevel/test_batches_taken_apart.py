"""Samples of batches made of anything that holds tensors."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from metasynth.bilevel.batches import batch_size, take_samples

Pair = namedtuple("Pair", "image label")


@dataclass(frozen=True)
class Example:
    images: torch.Tensor
    draws: dict[str, list[torch.Tensor]]
    name: str = "x"


def example() -> Example:
    return Example(torch.arange(12.0).reshape(4, 3), {"noise": [torch.arange(4), torch.tensor(7.0)]})


def test_every_container_keeps_its_type_and_takes_the_samples() -> None:
    indices = torch.tensor([3, 1])
    taken = take_samples(example(), indices)
    assert type(taken) is Example
    assert taken.images.tolist() == [[9.0, 10.0, 11.0], [3.0, 4.0, 5.0]]
    assert taken.draws["noise"][0].tolist() == [3, 1]
    assert taken.draws["noise"][1].item() == 7.0  # of no sample
    assert taken.name == "x"
    pair = take_samples(Pair(torch.arange(4), (torch.arange(4) * 2,)), indices)
    assert type(pair) is Pair
    assert pair.label[0].tolist() == [6, 2]


def test_size_is_that_of_all_tensors() -> None:
    assert batch_size(example()) == 4
    assert batch_size((torch.zeros(5, 2), torch.tensor(1.0), "text", None)) == 5


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((torch.zeros(5), torch.zeros(3, 2)), "first axes of lengths 3, 5"),
        (("text", 3, torch.tensor(1.0)), "no tensor with an axis"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(batch: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"of one B to be taken apart, got {found}$"):
        batch_size(batch)
