"""`metasynth`, with trainings in float64: what the numbers of several processes are compared in."""

import copy
from typing import Any

import torch
from metasynth.experiments.recovery import study

from metasynth.cli.main import main
from metasynth.training import stages
from metasynth.training.sources import Example, mapped
from metasynth.training.streams import StepBatch


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def to_double(batch: StepBatch, device: str) -> StepBatch:
    return StepBatch(*(None if part is None else Example(*mapped(doubled, part)) for part in batch))


def of_single(function: Any) -> Any:
    """Calls ``function`` with a copy of its first argument, a segmenter, in float32."""
    return lambda segmenter, *others: function(copy.deepcopy(segmenter).float(), *others)


if __name__ == "__main__":
    segmenter_for, bilevel_trainer = stages.segmenter_for, stages.bilevel_trainer
    StepBatch.to = to_double  # type: ignore[method-assign,assignment]
    stages.segmenter_for = lambda *given: segmenter_for(*given).double()
    stages.bilevel_trainer = lambda context, segmenter, augmenter: bilevel_trainer(
        context, segmenter, augmenter.double()
    )
    study.evaluate, study.segment = of_single(study.evaluate), of_single(study.segment)
    main()
