"""Two processes with half of every batch do what one does with the whole."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from bilevel.identical import assert_identical
from bilevel.two_processes import (
    BY_KIND,
    CASES,
    COUNT,
    NOT_FINITE,
    STEPS,
    Case,
    Heads,
    Normalised,
    NormalisedOuter,
    everything,
    inner_loss,
    share_of,
    solver_of,
    trained,
    trained_by_kind,
    whole,
)
from torch import Tensor

from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.strategies.mixed import Mixed


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, started once for all tests."""
    folder: Path = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(everything, (str(folder / "store"), str(folder)), nprocs=COUNT)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(COUNT)]


def numbers(found: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors and floats of a nest, with their places."""
    if isinstance(found, Tensor):
        yield name, found.double()
    elif isinstance(found, float):
        yield name, torch.tensor(found, dtype=torch.float64)
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from numbers(value, f"{name}/{key}")
    elif isinstance(found, list | tuple):
        for index, value in enumerate(found):
            yield from numbers(value, f"{name}/{index}")


def assert_agree(found: Any, wanted: Any, tolerance: float) -> None:
    pairs = list(zip(numbers(found), numbers(wanted), strict=True))
    assert pairs
    for (name, a), (other, b) in pairs:
        assert name == other
        assert (a - b).norm() <= tolerance * b.norm() + 1e-15, name


def tolerance_of(name: str) -> float:
    """A difference of gradients loses half of the digits."""
    return 1e-6 if name.startswith("finite_difference") else 1e-10


@pytest.mark.parametrize("name", CASES)
def test_halves_of_a_batch_are_the_whole(both: list[dict[str, Any]], name: str) -> None:
    found, wanted = copy.deepcopy(both[0]["trained"][name]), trained(CASES[name], Processes(), None)
    # Estimates of errors are means of those of the parts, larger than that of the whole; a residual is mostly rounding.
    for report in (*found["reports"], *wanted["reports"]):
        for diagnostic in ("rounding", "error", "residual"):
            report["diagnostics"].pop(diagnostic, None)
    assert_agree(found, wanted, tolerance_of(name))
    assert wanted["state"]["outer_steps"] == STEPS // CASES[name].outer_step.average
    start = solver_of(CASES[name], Processes(), 0).state_dict()
    for key in ("model", "outer"):
        moved = zip(numbers(wanted["state"][key]), numbers(start[key]), strict=True)
        assert all((a - b).norm() > 0 for (_, a), (_, b) in moved)


@pytest.mark.parametrize("name", CASES)
def test_processes_stay_identical(both: list[dict[str, Any]], name: str) -> None:
    assert_identical(both[1]["trained"][name], both[0]["trained"][name])


@pytest.mark.parametrize("name", ["implicit-solved-sgd", "implicit-solved-adam"])
def test_all_make_the_same_iterations_on_the_mean_hessian(both: list[dict[str, Any]], name: str) -> None:
    wanted = trained(CASES[name], Processes(), None)["reports"]
    for report, single in zip(both[1]["trained"][name]["reports"], wanted, strict=True):
        assert report["diagnostics"]["converged"] == single["diagnostics"]["converged"] == 1.0
        assert report["diagnostics"]["iterations"] == single["diagnostics"]["iterations"] > 3


@pytest.mark.parametrize("name", BY_KIND)
def test_what_only_one_process_reaches_is_learned_by_all(both: list[dict[str, Any]], name: str) -> None:
    found, other = (part["by kind"][name] for part in both)
    assert_identical(other, found)
    assert_agree(found, trained_by_kind(BY_KIND[name], Processes(), None), tolerance_of(name))


@pytest.mark.parametrize("name", BY_KIND)
def test_what_no_process_reaches_stays(both: list[dict[str, Any]], name: str) -> None:
    """Without a gradient there is no weight decay either."""
    state = both[0]["by kind"][name]["state"]
    start = Heads().state_dict()
    assert torch.equal(state["model"]["heads.c"], start["heads.c"])
    assert not torch.equal(state["model"]["heads.a"], start["heads.a"])
    assert state["outer"]["c"] == 0.3
    assert state["outer"]["a"] != 0.3


def test_running_statistics_are_averaged_and_other_buffers_stay(both: list[dict[str, Any]]) -> None:
    parts = []
    for rank in range(COUNT):
        model, outer = Normalised(), NormalisedOuter()
        inner_loss(model, outer, share_of(whole(0), rank))
        parts.append(dict((*model.named_buffers(), *outer.named_buffers())))
    found = both[0]["normalised"]["plain"]
    assert found.keys() == parts[0].keys()
    for name, value in found.items():
        if "running" in name:
            assert not torch.equal(parts[0][name], parts[1][name])
            torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
        else:
            assert torch.equal(value, parts[0][name])
    assert_identical(both[1]["normalised"], both[0]["normalised"])
    committed = both[0]["normalised"]["state"]
    assert committed["model"]["mask"].tolist() == [0.0, -torch.inf, 0.1]
    moved = [n for n, v in (committed["model"] | committed["outer"]).items() if "running" in n and v.ne(found[n]).any()]
    assert len(moved) == sum("running" in name for name in found)


@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_in_one_process_stops_all(both: list[dict[str, Any]], name: str) -> None:
    found, other = (part["not finite"][name] for part in both)
    assert_identical(other, found)
    terms = ("inner loss", "outer loss", "reference loss", "inner loss")
    assert found["messages"] == [f"NonFiniteError: {term} is nan at step 2" for term in terms]
    for state in found["states"][1:]:
        assert_identical(state, found["states"][0])
    assert torch.isfinite(torch.tensor(found["report"]["hypergradient_norm"]))
    assert found["report"]["outer_stepped"]


def test_means_of_lists_with_missing_entries(both: list[dict[str, Any]]) -> None:
    found, other = (part["means"] for part in both)
    (full, none, second, first, square, spoilt, empty), given = found["mean"], other["given"]
    assert torch.equal(full, torch.arange(6, dtype=torch.float64).view(2, 3) + 5)
    assert none is None
    assert torch.equal(second, torch.tensor([1.0, 2.0]))
    assert torch.equal(first, torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert square == (9 + 16) / 2
    assert not square.requires_grad
    assert spoilt[0] == 1
    assert spoilt[1].isnan()
    assert empty.shape == (0,)
    assert torch.equal(given[0], torch.arange(6, dtype=torch.float64).view(2, 3) + 10)  # what was given is not touched
    assert found["nothing"] == [[], [None, None]]
    torch.testing.assert_close(other["mean"], found["mean"], rtol=0, atol=0, equal_nan=True)
    assert found["messages"] == other["messages"]
    assert found["messages"][0].startswith("ValueError: processes differ in the shape of what they average, entry 0")


def test_what_is_wrong_in_one_process_is_told_in_all(both: list[dict[str, Any]]) -> None:
    first, second = (part["refusals"] for part in both)
    for name in ("unlike", "other rate", "loaded by one"):
        assert first[name] == second[name]
    assert first["unlike"] == (
        "ValueError: processes differ in model: encoder.0.convs.0.bias is (3,) torch.float64 in process 0 and missing "
        "in process 1; build it alike in all"
    )
    another = "ValueError: process 1 has another {!r} in the state of its solver than process 0; "
    assert first["other rate"].startswith(another.format("optimizer"))
    assert first["loaded by one"].startswith(another.format("inner_steps"))
    assert second["cut in one"].startswith("ValueError: outer parameter sigma cannot be learned")
    assert first["cut in one"] == second["cut in one"].replace("ValueError: ", "ValueError: process 1 stopped: ")
    assert second["raised in one"] == "ValueError: a batch that is none"
    assert first["raised in one"] == "ValueError: process 1 stopped: a batch that is none"
    assert first["no member"] == "nothing"
    assert "ValueError: group must be a torch.distributed group with this process in it" in second["no member"]


def test_without_a_group_there_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"needs torch\.distributed to be initialised: start with torchrun") as caught:
        Processes.current()
    assert "\n" not in str(caught.value)


def test_a_single_process_hands_on_what_it_is_given() -> None:
    given = [torch.ones(2, requires_grad=True), None]
    found = Processes().mean(given)
    assert found[0] is given[0]
    assert Processes().count == 1
    solver = solver_of(Case(Mixed(), "sgd"), Processes(), 0)
    before = {name: value.clone() for name, value in solver.model.state_dict().items()}
    Processes().share("model", dict(solver.model.named_parameters()))
    assert_identical(dict(solver.model.state_dict()), before)
