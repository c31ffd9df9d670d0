"""The best weights by validation, through interruptions, and peak memory."""

import numpy as np
import pytest
import torch
from torch import nn

from metasynth.training.selection import PeakMemory, Selecting, weights_of

VALUES = (0.2, 0.5, 0.4, 0.5, 0.1)


class Counting:
    """A trainer whose only weight is the number of its steps."""

    def __init__(self, network):
        self.network = network

    def step(self, index, batch):
        with torch.no_grad():
            self.network.weight.fill_(index + 1)
        return [{"inner_loss": 0.0}]

    def state_dict(self):
        return {"network": weights_of(self.network)}

    def load_state_dict(self, state):
        self.network.load_state_dict(state["network"])


def selecting(every=2, steps=9):
    network = nn.Linear(1, 1, bias=False)
    looks = []

    def validate():
        looks.append(int(network.weight.item()))
        return VALUES[(looks[-1] - 1) // 2]

    return Selecting(Counting(network), network, validate, every, steps, PeakMemory("cpu")), network, looks


def test_the_first_of_the_best_looks_is_kept_and_the_last_step_is_looked_at():
    trainer, network, looks = selecting()
    records = [record for index in range(9) for record in trainer.step(index, None)]
    assert looks == [2, 4, 6, 8, 9]
    assert [record.get("validation") for record in records] == [None, 0.2, None, 0.5, None, 0.4, None, 0.5, 0.1]
    assert (trainer.best_step, trainer.best_value, trainer.last_value) == (4, 0.5, 0.1)
    assert trainer.best["weight"].item() == 4
    assert network.weight.item() == 9


def test_a_look_within_steps_that_are_taken_as_one_comes_after_the_last_of_them():
    class InThrees(Counting):
        def step(self, index, batch):
            return super().step(index, batch) * 3 if index % 3 == 2 else []

    network, looks = nn.Linear(1, 1, bias=False), []

    def validate():
        looks.append(int(network.weight.item()))
        return -looks[-1]

    trainer = Selecting(InThrees(network), network, validate, 4, 12, PeakMemory("cpu"))
    counts = [[record.get("validation") for record in trainer.step(index, None)] for index in range(12)]
    assert looks == [6, 9, 12]
    assert [one for one in counts if one] == [[None] * 3, [None, None, -6], [None, None, -9], [None, None, -12]]
    assert (trainer.best_step, trainer.best["weight"].item()) == (6, 6)


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_resumed_training_keeps_the_same_weights(stop):
    whole, *_ = selecting()
    for index in range(9):
        whole.step(index, None)
    first, *_ = selecting()
    for index in range(stop):
        first.step(index, None)
    second, *_ = selecting()
    second.load_state_dict(first.state_dict())
    for index in range(stop, 9):
        second.step(index, None)
    states = [one.state_dict() for one in (whole, second)]
    for state in states:
        del state["peak_mib"]
    assert torch.equal(states[0].pop("best")["weight"], states[1].pop("best")["weight"])
    assert states[0].pop("trainer")["network"]["weight"] == states[1].pop("trainer")["network"]["weight"]
    assert states[0] == states[1]


def test_peak_memory_counts_from_where_it_began():
    before = PeakMemory("cpu")
    block = np.ones(60 * 2**17)  # 60 MiB
    high = before.mib()
    del block
    after = PeakMemory("cpu").mib()
    assert high > 60
    assert after < high - 40 or after == pytest.approx(high)  # the latter where the system cannot count anew


def test_the_peak_of_earlier_sessions_stays():
    trainer, *_ = selecting()
    state = trainer.state_dict()
    assert state["peak_mib"] > 0
    other, *_ = selecting()
    other.load_state_dict({**state, "peak_mib": 1e9})
    assert other.state_dict()["peak_mib"] == 1e9
