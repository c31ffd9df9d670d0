"""The table of operations with wrong or missing second derivatives is exactly what torch, as it is installed, has."""

from collections.abc import Callable

import pytest
from bilevel.operations import OPERATIONS, Operation
from bilevel.second_derivatives import Verdict, by_differences, by_double_backward, by_forward_mode, loss_of

from metasynth.bilevel.checks.flawed_operations import COMPILED, FLAWED, Mode, key_of
from metasynth.bilevel.checks.graph_ends import dependent_operations
from metasynth.bilevel.checks.second_derivative import refuse_flawed, refuse_flawed_modules

SWEEPS: dict[Mode, Callable[[Operation], Verdict]] = {
    "double backward": by_double_backward,
    "forward mode": by_forward_mode,
    "differences": by_differences,
}
NOT_ON_A_CPU = {
    "ScaledDotProductFlashAttention",
    "ScaledDotProductEfficientAttention",
    "ScaledDotProductCudnnAttention",
    "CudnnBatchNormBackward",
    "CudnnRnn",
    "MiopenRnn",
}


def by_the_table(operation: Operation, mode: Mode) -> Verdict:
    try:
        refuse_flawed(loss_of(operation, operation.inputs), operation.inputs, operation.inputs, mode, True)
        if operation.module is not None and mode == "double backward":
            refuse_flawed_modules(operation.module, True)
    except ValueError as error:
        return "missing" if "has no second derivative" in str(error) else "wrong"
    return "right"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", SWEEPS)
def test_the_table_is_what_a_sweep_finds(mode: Mode) -> None:
    """Of what forward mode lacks torch tells itself, so that the table need not."""
    found = {name: SWEEPS[mode](operation) for name, operation in OPERATIONS.items()}
    listed = {name: by_the_table(operation, mode) for name, operation in OPERATIONS.items()}
    if mode == "forward mode":
        listed |= {name: "missing" for name, verdict in found.items() if verdict == "missing"}
    assert found == listed


def test_the_sweep_meets_every_entry_of_the_table() -> None:
    met = {
        key_of(node.node.name())
        for operation in OPERATIONS.values()
        for node in dependent_operations(loss_of(operation, operation.inputs), operation.inputs, [])
    }
    assert FLAWED.keys() - met == NOT_ON_A_CPU | {COMPILED}
