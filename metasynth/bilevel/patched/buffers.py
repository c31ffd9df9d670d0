"""What becomes of a model's buffers, such as the running statistics of normalisations, when it is trained."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

from torch import Tensor, nn

BufferPolicy = Literal["commit", "freeze", "batch"]
"""What inner and outer passes do with the model's buffers.

| policy | normalisation, inner passes | normalisation, outer pass | buffers after a step |
| --- | --- | --- | --- |
| commit | statistics of the batch | statistics of the batch | moved by the inner passes |
| freeze | running statistics | running statistics | as they were |
| batch | statistics of the batch | statistics of the batch | as they were |

This is for a model in `train` mode and layers with running statistics; in `eval` mode, or where a loss calls
``model.eval()``, each uses its running statistics: those of the inner passes just made (commit), or those that never
change. The outer pass moves no buffer under any policy.
"""


def check_policy(policy: str) -> None:
    """Raise ValueError unless ``policy`` is a `BufferPolicy`."""
    if policy not in get_args(BufferPolicy):
        raise ValueError(f"buffers must be one of {', '.join(get_args(BufferPolicy))}, got {policy!r}")


def tracks_statistics(module: nn.Module) -> bool:
    """Whether ``module`` is a normalisation with running statistics, told by the buffers torch's own layers have."""
    return all(module._buffers.get(name) is not None for name in ("running_mean", "running_var"))


def keep_evaluating(module: nn.Module) -> None:
    """Make ``module`` behave as in eval mode for good, whatever `train` is asked for."""
    _Evaluating(module)


def plain_pass(model: nn.Module, policy: BufferPolicy) -> AbstractContextManager[None]:
    """A context for one pass of the model itself, with its backward pass, under a policy."""
    return nullcontext() if policy == "commit" else _buffers_kept(model, policy)


def copies_of(module: nn.Module) -> dict[str, Tensor]:
    """Detached copies of all buffers, by name."""
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def restore(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Write back what `copies_of` gave."""
    for name, value in module.named_buffers():
        value.data.copy_(buffers[name])


@contextmanager
def _buffers_kept(model: nn.Module, policy: BufferPolicy) -> Iterator[None]:
    before = copies_of(model)
    layers = [module for module in model.modules() if policy == "freeze" and tracks_statistics(module)]
    held = [_Evaluating(layer) for layer in layers]
    try:
        yield
    finally:
        for layer in held:
            layer.let_go()
        restore(model, before)


class _Evaluating:
    """Holds a module in eval mode and notes which mode it is asked for meanwhile."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._asked_for = module.training
        module.training = False
        # An attribute of the instance, which `train` of the whole model finds before the method.
        module.__dict__["train"] = self._train

    def _train(self, mode: bool = True) -> Any:
        self._asked_for = mode
        return self._module

    def let_go(self) -> None:
        del self._module.__dict__["train"]
        self._module.training = self._asked_for
