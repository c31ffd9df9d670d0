"""Plain training: what is not finite, or moves nothing, is no step, and never becomes a checkpoint or a model."""

import copy
import math
import re
from dataclasses import dataclass

import pytest
import torch
from bilevel.identical import assert_identical
from support.tiny_noise import session
from torch import Tensor, nn
from torch.utils.data import Dataset

from metasynth.bilevel.solver import NonFiniteError
from metasynth.errors import RunError
from metasynth.running.checkpoint import load_checkpoint
from metasynth.training.loop import Pace, Stage, run_stage
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch
from metasynth.training.trainers import Supervised, differentiate

SETTINGS = SegmenterSettings(lr=0.01, steps=7, cooldown=0.5)
NOTHING = (
    "the loss depends on no parameter that the Adam holds, so the step would move nothing; it may be detached, or "
    "evaluated under torch.no_grad"
)


class Steep(nn.Module):
    """A layer and batch statistics; where images hold more than 1000, of a finite value and an infinite slope."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.cut = False

    def forward(self, images: Tensor) -> Tensor:
        logits = self.norm(self.layer(images))
        if images.max() > 1e3:
            logits = logits + (self.layer.weight.sum() - self.layer.weight.sum().detach()).sqrt()
        return logits.detach() if self.cut else logits


@dataclass(frozen=True)
class Images(Dataset[StepBatch]):
    """Random images and labels, of which those of one step hold ``value``."""

    step: int = -1
    value: float = 0.0

    def __getitem__(self, step: int) -> StepBatch:
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(2, 1, 4, 4, generator=generator)
        labels = (images[:, 0] > 0.5).long()
        if step == self.step:
            images[0, 0, 0, 0] = self.value
        return StepBatch(Example(images, labels, None), None, None)


def trainer() -> Supervised:
    torch.manual_seed(0)
    return Supervised(Steep(), SETTINGS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2e3, "gradient is inf at step 7"),
        (math.nan, "loss is nan at step 7"),
        (math.inf, "loss is nan at step 7"),
    ],
)
def test_the_last_step_of_a_stage(tmp_path, value, message):
    """The last good checkpoint is the one before, and what resumes from it is what would have been."""

    def stage(run, data, resume=False):
        with session(run, resume) as context:
            trained = trainer()
            run_stage(Stage("plain", 7, data), trained, Pace(checkpoint_every=4, workers=0), context)
            return trained

    place = tmp_path / "run" / "checkpoints" / "plain"
    expected = (
        f"{tmp_path / 'run'}: stage plain stopped: {message}; last good checkpoint: {place / 'latest.pt'} (step 4)"
    )
    with pytest.raises(RunError, match=f"^{re.escape(expected)}$"):
        stage(tmp_path / "run", Images(step=6, value=value))
    assert not (place / "final.pt").exists()
    kept = load_checkpoint(place / "latest.pt")["trainer"]["model"]
    assert all(v.isfinite().all() for v in kept.values())
    resumed, whole = stage(tmp_path / "run", Images(), resume=True), stage(tmp_path / "whole", Images())
    assert_identical(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("value", [2e3, math.nan])
def test_a_step_that_cannot_be_taken_leaves_all_as_it_was(value):
    trained = trainer()
    for step in range(3):
        trained.step(step, Images()[step])
    before = copy.deepcopy(trained.state_dict())
    with pytest.raises(NonFiniteError):
        trained.step(6, Images(step=6, value=value)[6])
    assert_identical(trained.state_dict(), before)
    assert all(p.grad is None for p in trained.segmenter.parameters())
    assert math.isfinite(trained.step(3, Images()[3])[0]["inner_loss"])


@pytest.mark.parametrize("no_grad", [False, True])
def test_a_step_that_moves_nothing_raises(no_grad):
    trained = trainer()
    trained.step(0, Images()[0])
    before = copy.deepcopy(trained.state_dict())
    trained.segmenter.cut = not no_grad
    with torch.set_grad_enabled(not no_grad), pytest.raises(ValueError, match=f"^{re.escape(NOTHING)}$"):
        trained.step(1, Images()[1])
    assert_identical(trained.state_dict(), before)


def test_a_loss_of_other_parameters_moves_nothing():
    held, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    held.grad = torch.ones(2)  # of an earlier step
    with pytest.raises(ValueError, match=f"^{re.escape(NOTHING)}$"):
        differentiate(other.square().sum(), torch.optim.Adam([held]), 1)
    assert held.grad is None


def test_an_infinite_entry_of_many_is_found():
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(50)]
    slopes = torch.ones(50, 3)
    slopes[31, 2] = -math.inf
    optimizer = torch.optim.Adam(parameters)
    hold = torch.stack(list(parameters))
    hold.register_hook(lambda gradient: gradient * slopes)
    with pytest.raises(NonFiniteError, match=r"^gradient is inf at step 9$"):
        differentiate(hold.sum(), optimizer, 9)
    assert all(p.grad is None for p in parameters)
