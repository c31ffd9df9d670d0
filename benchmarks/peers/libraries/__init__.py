"""The libraries, each a module with ``SOLVERS`` by the names of problems, and ``UNABLE``: why it solves the others not.

A solver takes a `Problem` and gives a function that makes one whole outer step.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from benchmarks.peers.problem import Problem

Solver = Callable[[Problem], Callable[[], object]]


@dataclass(frozen=True)
class Library:
    """Its name in the table, that of what is installed, and the module here that imports it."""

    name: str
    distribution: str
    module: str

    def load(self) -> ModuleType:
        """The module; ImportError where the library is not there."""
        return importlib.import_module(self.module)


OURS = Library("metasynth", "metasynth-toolkit", f"{__name__}.by_metasynth")
LIBRARIES = (
    OURS,
    Library("higher", "higher", f"{__name__}.by_higher"),
    Library("TorchOpt", "torchopt", f"{__name__}.by_torchopt"),
    Library("Betty", "betty-ml", f"{__name__}.by_betty"),
    Library("learn2learn", "learn2learn", f"{__name__}.by_learn2learn"),
)
