"""What a model is wrapped in, compilers above all, is looked through, or refused when a solver is made."""

import copy
from abc import ABC
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import IMAGES, PROBLEM, check, inner_loss, network, outer_loss, outer_parameters, refuse
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.unrolled import Unrolled

DYNAMO_LOOKS_FOR_GRADIENTS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

Wrap = Callable[[nn.Sequential], nn.Module]


def solver_of(model: nn.Module, strategy: HypergradientStrategy | None = None, checked: bool = True) -> BilevelSolver:
    outer = outer_parameters()
    return BilevelSolver(
        PROBLEM,
        model,
        torch.optim.Adam(model.parameters(), lr=0.05),
        outer,
        torch.optim.SGD(outer.values(), lr=0.1),
        strategy,
        check=checked,
    )


def trained(model: nn.Module, strategy: HypergradientStrategy) -> list[Tensor]:
    """Everything that three steps of both kinds move: parameters, buffers and outer parameters."""
    solver = solver_of(model, strategy)
    for _ in range(3):
        solver.inner_step(IMAGES)
        solver.step([IMAGES] * strategy.inner_steps, IMAGES)
    assert isinstance(solver.outer, dict)
    return [x.detach().clone() for x in (*model.parameters(), *model.buffers(), *solver.outer.values())]


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def by_method(model: nn.Sequential) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_submodule(model: nn.Sequential) -> nn.Module:
    model[1] = compiled(model[1])
    return model


def submodule_by_method(model: nn.Sequential) -> nn.Module:
    model[1].compile(backend="eager")
    return model


def compiled_within_compiled(model: nn.Sequential) -> nn.Module:
    return compiled(compiled_submodule(model))


class Functional(nn.Module):
    """Calls its layers as functions of their parameters."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        return torch.func.functional_call(self.layers, dict(self.layers.named_parameters()), (images,))


def forward_compiled(model: nn.Sequential) -> nn.Module:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def forwards_of_submodules(model: nn.Sequential) -> nn.Module:
    model[0].forward = torch.compile(model[0].forward, backend="aot_eager")
    model[3].forward = torch.compiler.disable(model[3].forward)
    return model


def forward_bound(model: nn.Sequential) -> nn.Module:
    """With a forward of the instance's own, as some packages give modules."""
    model.forward = MethodType(lambda self, x: self[3](self[2](self[1](self[0](x)))), model)
    return model


def method_held(model: nn.Sequential) -> nn.Module:
    """Whose submodule calls a method that is an attribute of another."""
    model[2].forward = model[2].forward
    model[3].first = model[3].forward
    model[3].forward = MethodType(lambda self, x: self.first(x), model[3])
    return model


def function_held(model: nn.Sequential) -> nn.Module:
    """Compiled with its backward pass, which has no second one."""
    model[2].function = torch.compile(torch.tanh, backend="aot_eager")
    model[2].forward = MethodType(lambda self, x: self.function(x), model[2])
    return model


LOOKED_THROUGH: dict[str, Wrap] = {
    "forward compiled": forward_compiled,
    "forwards of submodules": forwards_of_submodules,
    "forward bound": forward_bound,
    "method held": method_held,
    "function held": function_held,
    "compiled": compiled,
    "by method": by_method,
    "compiled submodule": compiled_submodule,
    "submodule by method": submodule_by_method,
    "compiled within compiled": compiled_within_compiled,
    "data parallel without devices": nn.DataParallel,
    "traced symbolically": torch.fx.symbolic_trace,
    "called as a function": Functional,
}


@DYNAMO_LOOKS_FOR_GRADIENTS
@pytest.mark.parametrize("strategy", [Mixed(), Unrolled(2)], ids=["mixed", "unrolled"])
@pytest.mark.parametrize("wrap", LOOKED_THROUGH.values(), ids=list(LOOKED_THROUGH))
def test_a_wrapped_model_is_trained_as_the_model_itself(wrap: Wrap, strategy: HypergradientStrategy) -> None:
    torch._dynamo.reset()
    expected = trained(network(), strategy)
    found = trained(wrap(network()), strategy)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(expected[0], next(network().parameters()))


@DYNAMO_LOOKS_FOR_GRADIENTS
def test_compiling_stays_with_the_models_own_passes() -> None:
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*given: Any) -> Any:
            calls.append(len(given))
            return graph.forward(*given)

        return run

    torch._dynamo.reset()
    model = network()
    model[0] = torch.compile(model[0], backend=backend)
    inside = model[0]
    solver = solver_of(model)
    assert model[0] is inside
    solver.inner_step(IMAGES)
    before = len(calls)
    assert before == 1
    solver.step([IMAGES], IMAGES)
    solver.step([IMAGES], IMAGES)
    assert len(calls) == before + 2  # preflight compares with the model itself, twice


def uninitialised(model: nn.Sequential) -> nn.Module:
    model[3] = nn.LazyLinear(2)
    return model


def scripted_submodule(model: nn.Sequential) -> nn.Module:
    model[0] = torch.jit.script(model[0])
    return model


def in_inference_mode(model: nn.Sequential) -> nn.Module:
    with torch.inference_mode():
        return network()


def exported(model: nn.Sequential) -> nn.Module:
    return torch.export.export(model.eval(), (IMAGES,)).module()


def with_devices(model: nn.Sequential) -> nn.Module:
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = [0, 1]
    return wrapped


def distributed(model: nn.Sequential) -> nn.Module:
    """As it is made in a process group, which is not needed to be told."""
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    return wrapped


def sharded(model: nn.Sequential) -> nn.Module:
    """As `torch.distributed.fsdp.fully_shard` changes a model's class."""
    base = type("FSDPModule", (), {})
    model.__class__ = type("FSDPSequential", (base, nn.Sequential), {})
    return model


def patched(model: nn.Sequential) -> nn.Module:
    return solver_of(model)._functional.bind(list(model.parameters()))


class ModuleBeforeABC(nn.Module, ABC):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


BY_JIT = "it was made by torch.jit; give the module that it was made of"
REFUSED: dict[str, tuple[Wrap, str, str]] = {
    "checkpoint wrapper": (
        lambda m: nn.Sequential(checkpoint_wrapper(m[0]), *m[1:]),
        "0 (CheckpointWrapper)",
        "it is a wrapper of torch; give what it wraps, and call "
        "torch.utils.checkpoint.checkpoint(..., use_reentrant=False) in forward",
    ),
    "script": (torch.jit.script, "RecursiveScriptModule", BY_JIT),
    "trace": (lambda m: torch.jit.trace(m.eval(), IMAGES), "TopLevelTracedModule", BY_JIT),
    "scripted submodule": (scripted_submodule, "0 (RecursiveScriptModule)", BY_JIT),
    "devices": (with_devices, "DataParallel", "give its .module"),
    "distributed": (
        distributed,
        "DistributedDataParallel",
        "give its .module, and the processes as InnerUpdate(optimizer, processes=Processes.current())",
    ),
    "sharded": (sharded, "FSDPSequential", "its parameters are sharded; give the model as it was before"),
    "lazy": (
        uninitialised,
        "3 (LazyLinear)",
        "weight is not initialised yet; pass a batch through the model once, before its optimiser is made",
    ),
    "meta": (
        lambda m: m.to("meta"),
        "0 (Linear)",
        "weight is on the meta device, without values; give it some",
    ),
    "inference": (
        in_inference_mode,
        "0 (Linear)",
        "weight was made under torch.inference_mode(); make the model outside of it",
    ),
    "order of bases": (
        lambda m: ModuleBeforeABC(),
        "ModuleBeforeABC",
        "its class derives from (nn.Module, ABC); let it derive from (ABC, nn.Module)",
    ),
    "patched": (patched, "FunctionalSequential", "it is patched already; give the model itself"),
    "exported": (
        exported,
        "GraphModule",
        "its class has a metaclass, _StatefulGraphModuleFactory (as if exported); give the module that it was made of",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_patched_is_refused_when_the_solver_is_made(name: str) -> None:
    wrap, where, reason = REFUSED[name]
    with pytest.raises(ValueError, match="inner model") as caught:
        solver_of(wrap(network()))
    assert str(caught.value) == f"inner model: {where} cannot be patched for differentiation: {reason}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_weights_cannot_be_trained() -> None:
    model = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match="inner model") as caught:
        solver_of(model)
    assert str(caught.value) == (
        "inner model: 0 (Linear) cannot be patched for differentiation: its weights are quantised; give the model "
        "before its quantisation"
    )


def test_a_function_is_no_model() -> None:
    outer = outer_parameters()
    optimizers = [torch.optim.SGD([x], lr=0.1) for x in outer.values()]
    with pytest.raises(ValueError, match=r"^the inner model must be a torch.nn.Module, got function$"):
        BilevelSolver(PROBLEM, lambda x: x, optimizers[0], outer, optimizers[1])  # type: ignore[arg-type]


@DYNAMO_LOOKS_FOR_GRADIENTS
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_functions_in_a_loss_are_differentiated_once() -> None:
    """Compiled with its backward pass a function has no second one: it may shape images, but not follow the model."""
    torch._dynamo.reset()
    double = torch.compile(lambda x: x.sin(), backend="aot_eager")

    def shaping(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(model, {**outer, "gain": double(outer["gain"])}, given)

    def following(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return double(model(given * outer["gain"]) + outer["shift"]).square().mean()

    check(BilevelProblem(shaping, outer_loss))
    check(BilevelProblem(following, outer_loss), strategy=FiniteDifference())
    assert refuse("inner_loss", problem=BilevelProblem(following, outer_loss)) == (
        "inner_loss cannot be differentiated twice: a function compiled by torch.compile has no second derivative; "
        "call it as it was before, or choose FiniteDifference"
    )


class Copying(nn.Module):
    """Adds what a copy of its first layer makes of the images, or that layer with its parameters as constants."""

    def __init__(self, layers: nn.Sequential, how: str) -> None:
        super().__init__()
        self.layers, self.how = layers, how

    def forward(self, images: Tensor) -> Tensor:
        first = self.layers[0]
        if self.how == "copy":
            held = copy.deepcopy(first)(images)
        else:
            held = nn.functional.linear(images, first.weight.detach(), first.bias.detach())
        return self.layers(images) + held.mean(1, keepdim=True)


@pytest.mark.parametrize("checked", [True, False])
def test_a_deep_copy_in_a_pass_is_refused_and_leaves_all_as_it_was(checked: bool) -> None:
    model = Copying(network(), "copy")
    before = copy.deepcopy(model.state_dict())
    solver = solver_of(model, checked=checked)
    with pytest.raises(ValueError, match="copy") as caught:
        solver.step([IMAGES], IMAGES)
    assert str(caught.value) == (
        "inner model: layers.0 (Linear) is copied by copy.deepcopy where it is differentiated, but derivatives do not "
        "reach the parameters of a copy; copy it when the model is made, or compute with its parameters, detached"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_so_is_one_of_the_whole_model_in_a_loss() -> None:
    outer = outer_parameters()
    problem = BilevelProblem(lambda m, o, b: PROBLEM.inner_loss(copy.deepcopy(m), o, b), PROBLEM.outer_loss)
    model = network()
    inner, own = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(outer.values(), lr=0.1)
    with pytest.raises(ValueError, match=r"^inner model: Sequential is copied by copy\.deepcopy where it is"):
        BilevelSolver(problem, model, inner, outer, own).step([IMAGES], IMAGES)


def test_what_the_line_advises_is_trained_as_by_torch() -> None:
    model, plain = Copying(network(), "detached"), Copying(network(), "detached")
    solver = solver_of(model)
    solver.step([IMAGES], IMAGES)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05)
    PROBLEM.inner_loss(plain, outer_parameters(), IMAGES).backward()
    optimizer.step()
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_a_module_that_says_how_it_is_copied_is_copied_so() -> None:
    class Own(nn.Linear):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            return nn.Identity()

    twin = FunctionalModel(Own(2, 2)).bind([torch.zeros(2, 2), torch.zeros(2)])
    assert isinstance(copy.deepcopy(twin), nn.Identity)
