"""What may hold the outer parameters, and what may not."""

from typing import Any

import pytest
import torch
from torch import nn

from metasynth.bilevel.problem import named_outer_parameters


def learned() -> torch.Tensor:
    return torch.zeros(2, requires_grad=True)


def test_names() -> None:
    a, b, frozen = learned(), learned(), torch.zeros(1)
    assert named_outer_parameters(a) == {"outer": a}
    assert list(named_outer_parameters([a, frozen, b])) == ["outer[0]", "outer[2]"]
    assert list(named_outer_parameters({"x": a, "y": frozen})) == ["x"]
    module = nn.Linear(1, 1)
    module.bias.requires_grad_(False)
    assert list(named_outer_parameters(module)) == ["weight"]
    assert list(named_outer_parameters(nn.ParameterList([nn.Parameter(a)]))) == ["0"]


@pytest.mark.parametrize(
    ("outer", "error", "message"),
    [
        (3.0, TypeError, "must be a torch.nn.Module, a tensor, or a sequence or mapping of tensors, got float"),
        ("ab", TypeError, "got str"),
        ({"x": learned(), "y": 1.0}, TypeError, "got dict with y a float"),
        ([learned(), None], TypeError, r"got list with outer\[1\] a NoneType"),
        ({"x": 2 * learned()}, ValueError, "outer parameter x must be a leaf tensor"),
        ({"x": torch.zeros(1)}, ValueError, "outer holds no parameter with requires_grad=True"),
        ([], ValueError, "outer holds no parameter with requires_grad=True"),
        (nn.ReLU(), ValueError, "outer holds no parameter with requires_grad=True"),
    ],
)
def test_refused(outer: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        named_outer_parameters(outer)
