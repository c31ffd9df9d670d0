"""A solver that was deep-copied or pickled between steps goes on to the last bit, by itself."""

import copy
import io
import pickle
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from bilevel.identical import assert_identical
from support.problems import OF_MATRICES, OPTIMISERS
from support.strategies import EACH
from torch import Tensor, nn

from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

Copy = Callable[[Any], Any]

ROWS = torch.randn(9, 5, 6, generator=torch.Generator().manual_seed(0))


def pickled(given: Any) -> Any:
    return pickle.loads(pickle.dumps(given))


def saved(given: Any) -> Any:
    file = io.BytesIO()
    torch.save(given, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Copy] = {"deep copy": copy.deepcopy, "pickle": pickled, "save": saved}


class Corrupt(nn.Module):
    """An augmenter with draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.rate = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.1))
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, given: Tensor) -> Tensor:
        return given * self.gain


def inner_loss(model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
    return (model(outer(given)) - given[:, :2]).square().mean()


def outer_loss(model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
    return (model(given) - given[:, :2].abs()).square().mean()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def learned(outer: Corrupt, group: Mapping[str, Any]) -> dict[str, Tensor]:
    return {"lr": group["lr"] * outer.rate.exp()}


def network(couples: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    between = [nn.BatchNorm1d(5), nn.Dropout(0.3)] if couples else [nn.LayerNorm(5)]
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 2))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1, eps=0.01)


def solver_of(
    model: nn.Module, make: Callable[[Any], torch.optim.Optimizer] = adam, strategy: Any = None, **options: Any
) -> BilevelSolver:
    """With clipping and a learned rate inside, and means and clipping outside."""
    outer, of_optimum = Corrupt(), isinstance(strategy, Implicit)
    outer.rate.requires_grad_(not of_optimum)
    update = InnerUpdate(make(model.parameters()), hyperparameters=None if of_optimum else learned, clip_norm=0.5)
    given = {
        "problem": PROBLEM,
        "optimizer": update,
        "outer_step": OuterStep(average=2, clip=3.0, memory=0.5),
    } | options
    own = torch.optim.Adam(outer.parameters(), lr=0.1)
    return BilevelSolver(model=model, outer=outer, outer_optimizer=own, strategy=strategy, **given)


def goes_on(solver: BilevelSolver, schedulers: tuple[Any, ...] = ()) -> list[Any]:
    """The reports of two steps of each kind from the same random states, and the state after them."""
    torch.manual_seed(7)
    found: list[Any] = []
    for index in range(2):
        found.append(vars(solver.inner_step(ROWS[8])))
        found.append(vars(solver.step(list(ROWS[index : index + solver.strategy.inner_steps]), ROWS[7], ROWS[6])))
    for scheduler in schedulers:
        scheduler.step()
    return [*found, solver.state_dict()]


def tensors_of(state: Any) -> list[Tensor]:
    return [value for value in torch.utils._pytree.tree_leaves(state) if isinstance(value, Tensor)]


def require_same(solver: BilevelSolver, by: Copy) -> BilevelSolver:
    """After some steps: the copy moves as the solver does, whichever goes first, and the other stays."""
    goes_on(solver)
    solver.step(list(ROWS[: solver.strategy.inner_steps]), ROWS[7])  # one hypergradient waits for the outer step
    twin = by(solver)
    before = copy.deepcopy(solver.state_dict())
    theirs = goes_on(twin)
    assert_identical(solver.state_dict(), before)
    ours = goes_on(solver)
    assert_identical(theirs, ours)
    assert not torch.equal(next(solver.model.parameters()), before["model"]["0.weight"])
    places = {t.data_ptr() for t in tensors_of(solver.state_dict())}
    assert not places & {t.data_ptr() for t in tensors_of(twin.state_dict())}
    assert twin.outer_steps == solver.outer_steps >= 1
    return twin


@pytest.mark.parametrize("strategy", EACH)
@pytest.mark.parametrize("by", COPIES)
def test_every_strategy(by: str, strategy: str) -> None:
    require_same(solver_of(network(strategy != "in_parts"), strategy=EACH[strategy]), COPIES[by])


@pytest.mark.parametrize("optimiser", OPTIMISERS | OF_MATRICES)
@pytest.mark.parametrize("by", ["deep copy", "pickle"])
def test_every_inner_optimiser(by: str, optimiser: str) -> None:
    model = network(couples=False)
    if optimiser in OF_MATRICES:
        model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 2, bias=False))
    require_same(solver_of(model, (OPTIMISERS | OF_MATRICES)[optimiser]), COPIES[by])


def test_rprop() -> None:
    """Which no hypergradient goes through after its first step."""
    solver = solver_of(network(), partial(torch.optim.Rprop, lr=0.05))
    solver.inner_step(ROWS[0])
    twin = pickled(solver)
    for one in (twin, solver):
        torch.manual_seed(7)
        one.inner_step(ROWS[1])
    assert_identical(twin.state_dict(), solver.state_dict())


@pytest.mark.parametrize("by", COPIES)
def test_schedulers_of_both_levels(by: str) -> None:
    solver = solver_of(network())
    schedulers = tuple(
        torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.3) for optimizer in (solver.optimizer, solver.outer_optimizer)
    )
    goes_on(solver, schedulers)
    twin, its = COPIES[by]((solver, schedulers))
    assert its[0].optimizer is twin.optimizer
    assert_identical(goes_on(twin, its), goes_on(solver, schedulers))
    assert twin.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.3**2)


@pytest.mark.parametrize("by", COPIES)
def test_generators_of_modules(by: str) -> None:
    solver = solver_of(network())
    torch.rand(3, generator=solver.outer.generator)
    twin = COPIES[by](solver)
    assert twin.outer.generator is not solver.outer.generator
    expected = torch.rand(3, generator=solver.outer.generator)
    assert torch.equal(torch.rand(3, generator=twin.outer.generator), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("by", COPIES)
def test_a_compiled_model(by: str) -> None:
    torch._dynamo.reset()
    twin = COPIES[by](solver_of(torch.compile(network(), backend="eager")))
    assert_identical(goes_on(twin)[:-1], goes_on(solver_of(network()))[:-1])


def test_a_copy_of_the_patched_model_is_of_a_copy_of_the_model() -> None:
    functional = FunctionalModel(network(), "freeze")
    twin = copy.deepcopy(functional)
    assert twin.policy == "freeze"
    assert twin.model is not functional.model
    for own, its in zip(functional.refresh(), twin.refresh(), strict=True):
        assert torch.equal(own, its)
        assert own.data_ptr() != its.data_ptr()


def test_a_copy_is_of_the_same_processes() -> None:
    processes = Processes()
    assert copy.deepcopy(processes) is processes


def test_losses_that_are_objects_are_copied_with_what_they_hold() -> None:
    class Noisy:
        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(1)

        def __call__(self, model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
            return inner_loss(model, outer, given + torch.randn(given.shape, generator=self.generator))

    solver = solver_of(network(), problem=BilevelProblem(Noisy(), outer_loss), strategy=Mixed())
    goes_on(solver)
    twin = copy.deepcopy(solver)
    assert_identical(goes_on(twin), goes_on(solver))


class Lambda(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda x: x.tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def activated() -> nn.Sequential:
    model = network()
    model[3] = Lambda()
    return model


INSTEAD = "; functions must be made by def at the top level of a module, or be objects of a class with __call__ that is"
UNPICKLABLE: dict[str, tuple[Callable[[], BilevelSolver], str]] = {
    "inner loss": (
        lambda: solver_of(network(), problem=BilevelProblem(lambda m, o, b: inner_loss(m, o, b), outer_loss)),
        "inner_loss of the solver",
    ),
    "outer loss": (
        lambda: solver_of(network(), problem=BilevelProblem(inner_loss, lambda m, o, b: outer_loss(m, o, b))),
        "outer_loss of the solver",
    ),
    "module": (lambda: solver_of(activated()), "model (3, Lambda) of the solver"),
}


@pytest.mark.parametrize("dump", [pickle.dumps, lambda solver: torch.save(solver, io.BytesIO())])
@pytest.mark.parametrize("name", UNPICKLABLE)
def test_what_cannot_be_pickled_is_named(name: str, dump: Copy) -> None:
    make, what = UNPICKLABLE[name]
    solver = make()
    with pytest.raises(pickle.PicklingError, match="lambda") as caught:
        dump(solver)
    said = str(caught.value)
    assert said.startswith(f"{what} cannot be pickled: ")
    assert said.endswith(INSTEAD)
    assert "\n" not in said
    assert_identical(goes_on(copy.deepcopy(solver)), goes_on(solver))  # which asks for no names


def test_so_are_learned_hyperparameters() -> None:
    model = network()
    update = InnerUpdate(adam(model.parameters()), hyperparameters=lambda outer, group: learned(outer, group))
    with pytest.raises(pickle.PicklingError, match=r"^hyperparameters of the solver cannot be pickled: .*<lambda>"):
        pickle.dumps(solver_of(model, optimizer=update))


def test_a_pickler_of_functions_takes_them() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    make, _ = UNPICKLABLE["inner loss"]
    solver = make()
    goes_on(solver)
    twin = pickle.loads(cloudpickle.dumps(solver))
    assert_identical(goes_on(twin), goes_on(solver))


GENERATOR = torch.Generator()


def of_a_global(model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
    return inner_loss(model, outer, given + torch.rand((), generator=GENERATOR))


def calling_another(model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
    return of_a_global(model, outer, given)


def held_by(value: Any) -> Callable[..., Tensor]:
    def loss(model: nn.Module, outer: Corrupt, given: Tensor) -> Tensor:
        return inner_loss(model, outer, given) if value is not None else given.sum()

    return loss


@pytest.mark.parametrize("loss", [of_a_global, calling_another, partial(calling_another)])
@pytest.mark.parametrize("by", ["deep copy", "pickle"])
def test_a_generator_that_copies_would_share(by: str, loss: Callable[..., Tensor]) -> None:
    solver = solver_of(network(), problem=BilevelProblem(loss, outer_loss))
    with pytest.raises(ValueError, match="GENERATOR") as caught:
        COPIES[by](solver)
    assert str(caught.value) == (
        "inner_loss holds a random generator, as GENERATOR, which a copy of the solver would share; take it from the "
        "arguments, or let an object of a class with __call__ hold it, which is copied too"
    )


@pytest.mark.parametrize(
    ("of", "what"),
    [
        (lambda solver: solver.outer, "Corrupt of the solver's own"),
        (lambda solver: [solver.outer.gain], "a tensor of the solver's own"),
        (lambda solver: {"model": solver.model[0]}, "Linear of the solver's own"),
        (lambda solver: solver.optimizer, "Adam of the solver's own"),
        (lambda solver: random.Random(0), "a random generator"),
        (lambda solver: np.random.default_rng(0), "a random generator"),
    ],
)
def test_what_moves_and_copies_would_share(of: Callable[[Any], Any], what: str) -> None:
    solver = solver_of(network())
    solver.problem = BilevelProblem(inner_loss, held_by(of(solver)))
    with pytest.raises(ValueError, match=f"^outer_loss holds {what}, as value, which a copy of the solver would share"):
        copy.deepcopy(solver)


def test_other_tensors_and_modules_may_be_held() -> None:
    solver = solver_of(network())
    solver.problem = BilevelProblem(inner_loss, held_by([ROWS, network(), None, "text"]))
    assert copy.deepcopy(solver).problem.outer_loss is solver.problem.outer_loss


def test_step_hooks_of_the_outer_optimiser_would_be_lost() -> None:
    solver = solver_of(network())
    solver.outer_optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"^the outer Adam has step hooks, which torch does not copy; remove them$"):
        copy.deepcopy(solver)


def test_a_copied_solver_still_gives_its_own_hypergradient() -> None:
    """Its patched twin is of the copied model, not of the first one's."""
    solver = solver_of(network(couples=False), strategy=Mixed(), outer_step=OuterStep())
    twin = copy.deepcopy(solver)
    inputs = StepInputs(PROBLEM, twin._functional, twin.update, twin.outer, [ROWS[0]])
    assert inputs.model.model is twin.model
    with torch.no_grad():
        for parameter in solver.model.parameters():
            parameter.zero_()
    assert_identical(goes_on(twin)[0], goes_on(solver_of(network(couples=False), outer_step=OuterStep()))[0])
