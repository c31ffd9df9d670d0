"""What a solver's calls move is one thing: saved, restored, and put back by an error, whatever stops a call."""

import copy

import pytest
import torch
from bilevel.identical import assert_identical
from torch import Tensor, nn

from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.buffers import copies_of
from metasynth.bilevel.solver_state import SolverState


def state_of(seed: int) -> tuple[SolverState, nn.Module, nn.Module]:
    torch.manual_seed(seed)
    model, outer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.BatchNorm1d(2)
    optimizer, outer_optimizer = (torch.optim.Adam(one.parameters(), lr=0.1) for one in (model, outer))
    return SolverState(model, optimizer, outer, outer_optimizer, OuterStep(average=3, memory=0.5)), model, outer


def move(state: SolverState, model: nn.Module, outer: nn.Module) -> None:
    """Everything but parameters, which passes do not move."""
    outer(model(torch.ones(4, 2)))
    state.cotangents.add([torch.ones(2)])
    state.accumulator.add({"weight": torch.ones(2), "bias": None})


def stopped(
    state: SolverState, model: nn.Module, outer: nn.Module, copies: dict[str, Tensor], error: BaseException
) -> None:
    """A call that moves everything and then stops."""
    with state.unmoved_by_errors(copies) as (buffers, outers):
        assert buffers is copies
        assert_identical(outers, dict(outer.named_buffers()))
        move(state, model, outer)
        raise error


def test_what_is_saved_and_restored() -> None:
    state, model, outer = state_of(0)
    move(state, model, outer)
    state.inner_steps, state.outer_steps = 7, 2
    saved = copy.deepcopy(state.state_dict())
    assert [*saved] == [
        *("model", "optimizer", "outer", "outer_optimizer", "accumulator", "cotangents", "inner_steps", "outer_steps"),
    ]
    other, its_model, _ = state_of(1)
    assert not torch.equal(its_model[0].weight, model[0].weight)
    other.load_state_dict(saved)
    assert_identical(other.state_dict(), saved)
    assert (other.inner_steps, other.outer_steps) == (7, 2)


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_puts_back_what_passes_moved(error: BaseException) -> None:
    state, model, outer = state_of(0)
    move(state, model, outer)
    before = copy.deepcopy(state.state_dict())
    with pytest.raises(type(error)):
        stopped(state, model, outer, copies_of(model), error)
    assert_identical(state.state_dict(), before)


def test_without_copies_the_models_buffers_stay_and_without_an_error_all_does() -> None:
    state, model, outer = state_of(0)
    with pytest.raises(ValueError, match="stop"):
        stopped(state, model, outer, {}, ValueError("stop"))
    assert (model[1].num_batches_tracked, outer.num_batches_tracked) == (1, 0)
    with state.unmoved_by_errors(copies_of(model)):
        move(state, model, outer)
    assert (model[1].num_batches_tracked, outer.num_batches_tracked) == (2, 1)
    assert state.cotangents.state_dict()["calls"] == state.accumulator.state_dict()["count"] == 1
