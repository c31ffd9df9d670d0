"""Where the graph between a loss and parameters ends, and what that place is called."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

Evaluate = Callable[[], Tensor]
"""Gives a loss; the same each time, with the same random draws, unless the loss draws from elsewhere."""

# What makes a Python value of a tensor, and so ends its graph.
_READERS = {"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "__index__", "__complex__"}
_NAMED_CUTS = {*_READERS, "detach", "detach_", "data"}
_TESTED = ("torch.", "metasynth.bilevel.")  # where Functions are whose derivatives of every order are right
_NOT_THE_USERS = ("torch.", "higher.", f"{__package__}.")


def why_disconnected(
    which: str, what: str, evaluate: Evaluate, wanted: Sequence[Tensor], all_leaves: Sequence[Tensor]
) -> str:
    """A phrase for what becomes of ``wanted`` in a loss that has no graph to it.

    Found by evaluating the loss with each operation watched, and with the values changed.

    Parameters
    ----------
    which, what : str
        What to call the loss and ``wanted``.
    evaluate : callable
        Evaluates the loss.
    wanted, all_leaves : sequence of tensor
        Leaves without a graph to the loss; and all that it may be evaluated on. They are left as they were.
    """
    cuts = _cuts(evaluate, wanted, all_leaves)
    moves = _moves(evaluate, wanted)
    if cuts:
        return f"{which} {'depends on' if moves else 'reads'} {what}, but the graph ends at {', '.join(cuts)}"
    if moves:
        return (
            f"{which} depends on {what}, but no graph leads there: detach(), torch.no_grad(), .item(), numpy or an "
            "operation without a derivative cuts it"
        )
    if moves is None:
        return f"{which} does not use {what}, or cuts the graph (detach(), torch.no_grad(), .item(), numpy)"
    return f"{which} does not use {what}"


def meeting_points(loss: Tensor, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[str]:
    """The operations of a loss' graph in which what depends on ``ours`` first meets what depends on ``theirs``."""
    operations = dependent_operations(loss, ours, theirs)
    on_both = {operation.node for operation in operations if operation.on_first and operation.on_second}
    found = [
        operation.name
        for operation in operations
        if operation.node in on_both and not any(child in on_both for child, _ in operation.node.next_functions)
    ]
    return list(dict.fromkeys(found))


@dataclass
class DependentOperation:
    """A node of a loss' graph.

    Attributes
    ----------
    node : node of torch's graph
    name : str
        Without Backward and number.
    on_first, on_second : bool
        Whether it depends on any of the first tensors, and of the second.
    used_outputs : set of int
        Which of its outputs the loss depends on.
    """

    node: Any
    name: str
    on_first: bool
    on_second: bool
    used_outputs: set[int] = field(default_factory=set)


def dependent_operations(loss: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[DependentOperation]:
    """Every operation of a loss' graph once, after all that it depends on, with what that is of two sets of leaves."""
    left, right = {id(t) for t in first}, {id(t) for t in second}
    found: dict[Any, DependentOperation] = {}
    for node in _children_first(loss.grad_fn):
        leaf = id(getattr(node, "variable", None))
        below = [found[child] for child, _ in node.next_functions if child is not None]
        for child, output in node.next_functions:
            if child is not None:
                found[child].used_outputs.add(output)
        found[node] = DependentOperation(
            node,
            _operation(node),
            leaf in left or any(b.on_first for b in below),
            leaf in right or any(b.on_second for b in below),
        )
    return list(found.values())


def once_differentiable(loss: Tensor) -> list[str]:
    """Names of the `torch.autograd.Function` in a loss' graph whose backward is marked once_differentiable."""
    found = []
    for node in _children_first(loss.grad_fn):
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        # The decorator leaves a function of torch's own file in place of the user's.
        code = getattr(backward, "__code__", None)
        if code is not None and code.co_filename == torch.autograd.function.__file__:
            found.append(_operation(node))
    return list(dict.fromkeys(found))


def functions_of_users(loss: Tensor) -> list[str]:
    """Names of the `torch.autograd.Function` in a loss' graph that are neither torch's nor this package's own."""
    made = [(node, getattr(node, "_forward_cls", None)) for node in _children_first(loss.grad_fn)]
    found = [_operation(node) for node, kind in made if kind is not None and not kind.__module__.startswith(_TESTED)]
    return list(dict.fromkeys(found))


def _operation(node: Any) -> str:
    return node.name().removeprefix("torch::autograd::").rstrip("0123456789").removesuffix("Backward")


def _children_first(root: Any) -> Iterator[Any]:
    """Every node of a graph once, after all that it leads to."""
    seen = set()
    pending = [(root, False)] if root is not None else []
    while pending:
        node, is_done = pending.pop()
        if is_done:
            yield node
        elif node not in seen:
            seen.add(node)
            pending.append((node, True))
            pending.extend((child, False) for child, _ in node.next_functions if child is not None)


def _moves(evaluate: Evaluate, tensors: Sequence[Tensor]) -> bool | None:
    """Whether the loss changes with the values of tensors; None if it is never the same anyway."""
    before = evaluate().detach()
    if not torch.equal(before, evaluate().detach()):
        return None
    kept = [t.detach().clone() for t in tensors]
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(t.shape, generator=generator).to(t) for t in tensors]
    try:
        for size in (0.01, -0.01, 1.0, -1.0, 10.0, -10.0):
            for tensor, value, direction in zip(tensors, kept, directions, strict=True):
                tensor.data.copy_(value + size * max(0.1, value.abs().mean().item()) * direction)
            try:
                if not torch.equal(before, evaluate().detach()):
                    return True
            except (ValueError, RuntimeError, ArithmeticError):  # such values are not allowed there
                continue
    finally:
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.data.copy_(value)
    return False


def _cuts(evaluate: Evaluate, wanted: Sequence[Tensor], all_leaves: Sequence[Tensor]) -> list[str]:
    """Up to three operations at which graphs from ``wanted`` end; the likely ones if there are any."""
    watch = _Watch()
    with _only(wanted, all_leaves), torch.enable_grad(), watch:
        evaluate()
    likely = [place for place, is_likely in watch.found.items() if is_likely]
    return (likely or list(watch.found))[:3]


@contextmanager
def _only(wanted: Sequence[Tensor], all_leaves: Sequence[Tensor]) -> Iterator[None]:
    """A context in which only ``wanted`` require a gradient, so that whatever does depends on them."""
    before = [(t, t.requires_grad) for t in all_leaves]
    chosen = {id(t) for t in wanted}
    try:
        for tensor, _ in before:
            tensor.requires_grad_(id(tensor) in chosen)
        yield
    finally:
        for tensor, required in before:
            tensor.requires_grad_(required)


class _Watch(TorchFunctionMode):
    """Notes every operation that takes in a tensor with a graph and gives out values without one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, bool] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        is_live = _requires_grad(tree_leaves((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        if is_live:
            name = _name(func)
            results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            makes_new = name.endswith("_like") or name.startswith("new_")
            if name in _READERS or (results and not makes_new and not _requires_grad(results)):
                self._note(name)
        return result

    def _note(self, name: str) -> None:
        place = ""
        frame = sys._getframe(2)
        while frame is not None:
            path = frame.f_code.co_filename
            if path == torch.autograd.function.__file__:
                return  # within a Function, where there is no graph but its own
            if not place and not f"{frame.f_globals.get('__name__')}.".startswith(_NOT_THE_USERS):
                place = f" ({Path(path).name}, line {frame.f_lineno})"
            frame = frame.f_back  # type: ignore[assignment]
        how = "" if torch.is_grad_enabled() or name in _NAMED_CUTS else " under torch.no_grad()"
        spoken = f"{name.strip('_')}()" if name.startswith("__") else name
        self.found[f"{spoken}{how}{place}"] = bool(how) or name in _NAMED_CUTS


def _name(func: Callable[..., Any]) -> str:
    """'detach' of `Tensor.detach`, 'data' of the property."""
    name = (resolve_name(func) or getattr(func, "__name__", type(func).__name__)).removesuffix(".__get__")
    return name.rpartition(".")[2]


def _requires_grad(values: Iterable[Any]) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in values)
