"""Several processes that train one model together, each on its own part of every batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """How many processes share the work, and how what each found is averaged."""

    def mean(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The mean of each tensor over the processes."""
        return list(tensors)
