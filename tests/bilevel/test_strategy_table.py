"""The one table of strategies: it has all of them, tests take them from it, and studies offer what it says."""

import importlib
import inspect
import pkgutil

import pytest
from support.strategies import EACH, EXACT, STRATEGIES

from metasynth import bilevel
from metasynth.bilevel import strategies
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.table import ENTRIES, StrategyEntry, in_studies
from metasynth.running.settings.config import apply_overrides
from metasynth.training.settings import OuterSettings


def classes() -> set[type]:
    """The concrete strategies that the folder's files define."""
    modules = [
        importlib.import_module(f"{strategies.__name__}.{m.name}") for m in pkgutil.iter_modules(strategies.__path__)
    ]
    members = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return {kind for kind in members if issubclass(kind, HypergradientStrategy) and not inspect.isabstract(kind)}


def test_every_strategy_is_in_the_table_once_and_in_the_face() -> None:
    kinds = [type(entry.strategy) for entry in ENTRIES]
    assert set(kinds) == classes()
    assert len(set(kinds)) == len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert {kind.__name__ for kind in kinds} <= set(bilevel.__all__)


def test_tests_take_every_one() -> None:
    names = {entry.name for entry in ENTRIES}
    assert names <= EACH.keys() <= STRATEGIES.keys()
    assert {entry.name for entry in ENTRIES if entry.exact} == names & EXACT.keys()
    assert len(set(map(repr, STRATEGIES.values()))) == len(STRATEGIES)


@pytest.mark.parametrize("name", ["mixed", "forward", "finite_difference"])
def test_studies_offer_those_of_the_table(name: str) -> None:
    assert [*in_studies()] == ["mixed", "forward", "finite_difference"]
    assert apply_overrides(OuterSettings(), [f"strategy={name}"]).hypergradient_strategy() is in_studies()[name]


def test_studies_offer_no_other() -> None:
    with pytest.raises(
        ValueError, match=r"^strategy must be one of mixed, forward, finite_difference, got 'implicit'$"
    ):
        OuterSettings(strategy="implicit")
    with pytest.raises(ValueError, match=r"^strategy 'own' must be a ProductStrategy to be offered by studies$"):
        StrategyEntry("own", Implicit(), exact=False, in_studies=True)
