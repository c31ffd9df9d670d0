"""What tests of the core share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def _scalars_in_double_precision() -> Iterator[None]:
    """Of states (step counts, the rates of ASGD), which differences of single precision would drown in."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
