"""The problems, each a module with ``QUESTION`` and ``make(tiny, dtype) -> Problem``."""

import importlib
from types import ModuleType

NAMES = ("ridge", "cleaning", "sinusoid", "digits", "noise")


def load(name: str) -> ModuleType:
    """The module of a problem."""
    return importlib.import_module(f"{__name__}.{name}")
