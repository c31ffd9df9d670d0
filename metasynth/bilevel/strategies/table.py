"""The table of strategies: what each is called, and what studies and the contract test have to know of it.

A strategy is added by its file and one line here.
"""

from dataclasses import dataclass

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.strategies.evolution_strategies import EvolutionStrategies
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.product import ProductStrategy
from metasynth.bilevel.strategies.score_function import ScoreFunction
from metasynth.bilevel.strategies.unrolled import Unrolled


@dataclass(frozen=True)
class StrategyEntry:
    """A line of the table.

    Attributes
    ----------
    name : str
        What settings and tests call it.
    strategy : HypergradientStrategy
        With its default options. It says itself how many inner steps it takes and how it differentiates.
    exact : bool
        Whether its hypergradient is that of the steps it differentiates, up to rounding: the contract test then holds
        it against closed forms and central differences. Of others that test has to know how far they may be off. For
        `ScoreFunction`, where a loss draws nothing by `draw`; its part for what is drawn has a test of its own.
    in_studies : bool
        Whether a study's settings offer it by name; a `ProductStrategy`, so that it can be taken in parts.

    Raises
    ------
    ValueError
        If a study cannot take it in parts.
    """

    name: str
    strategy: HypergradientStrategy
    exact: bool
    in_studies: bool = False

    def __post_init__(self) -> None:
        if self.in_studies and not isinstance(self.strategy, ProductStrategy):
            raise ValueError(f"strategy {self.name!r} must be a ProductStrategy to be offered by studies")


ENTRIES: tuple[StrategyEntry, ...] = (
    StrategyEntry("mixed", Mixed(), exact=True, in_studies=True),
    StrategyEntry("forward", Forward(), exact=True, in_studies=True),
    StrategyEntry("finite_difference", FiniteDifference(), exact=False, in_studies=True),
    StrategyEntry("in_parts", InParts(), exact=True),
    StrategyEntry("unrolled", Unrolled(), exact=True),
    StrategyEntry("implicit", Implicit(), exact=False),
    StrategyEntry("score_function", ScoreFunction(), exact=True),
    StrategyEntry("evolution_strategies", EvolutionStrategies(), exact=False),
)
"""The strategies of this package."""


def in_studies() -> dict[str, ProductStrategy]:
    """Those that settings of studies offer, by name."""
    return {
        entry.name: entry.strategy
        for entry in ENTRIES
        if entry.in_studies and isinstance(entry.strategy, ProductStrategy)
    }


def in_studies_over(steps: int, mean_of: int) -> HypergradientStrategy:
    """What studies follow several inner steps by, with the outer loss at the mean of the last ``mean_of`` iterates."""
    return Unrolled(steps, remat=True, mean_of=mean_of)
