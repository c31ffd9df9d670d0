"""`metasynth`, with trainings in float64: what the numbers of several processes are compared in."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from metasynth.experiments import inu, label_maps, noise, real_world  # so that they are there to be changed

from metasynth.cli.main import main
from metasynth.training import evaluation, stages
from metasynth.training.sources import Example, mapped
from metasynth.training.streams import StepBatch

STUDIES = (inu, label_maps, noise, real_world)


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def to_double(batch: StepBatch, device: str) -> StepBatch:
    return StepBatch(*(None if part is None else Example(*mapped(doubled, part)) for part in batch))


def of_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a segmenter in float64."""
    return lambda *given: function(*given).double()


def with_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Is given its augmenter, the third argument, in float64."""
    return lambda context, segmenter, augmenter, *others: function(context, segmenter, augmenter.double(), *others)


def of_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Is given a copy of its first argument, a segmenter, in float32."""
    return lambda segmenter, *others: function(copy.deepcopy(segmenter).float(), *others)


def change(function: Callable[..., Any], how: Callable[..., Any]) -> None:
    """In every module of the package that has it."""
    changed = how(function)
    for module in [module for name, module in sys.modules.items() if name.startswith("metasynth")]:
        for name, value in [*vars(module).items()]:
            if value is function:
                setattr(module, name, changed)


if __name__ == "__main__":
    StepBatch.to = to_double  # type: ignore[method-assign,assignment]
    change(stages.segmenter_for, of_double)
    change(stages.bilevel_trainer, with_double)
    change(evaluation.segment, of_single)
    main()
