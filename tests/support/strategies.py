"""The strategies that tests take, by name: each of the package's table, and some with other options.

A strategy that is new in the table is in `EACH` and, if it is exact, in `EXACT`; tests that go through these take it.
"""

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, Neumann
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.table import ENTRIES
from metasynth.bilevel.strategies.unrolled import Unrolled

Strategies = dict[str, HypergradientStrategy]

STRATEGIES: Strategies = {
    **{entry.name: entry.strategy for entry in ENTRIES},
    "unrolled-2": Unrolled(2),
    "unrolled-3": Unrolled(3),
    "unrolled-5": Unrolled(5),
    "unrolled-3-last-1": Unrolled(3, last=1),
    "unrolled-3-last-2": Unrolled(3, last=2),
    "unrolled-3-last-3": Unrolled(3, last=3),
    "unrolled-remat-1": Unrolled(remat=True),
    "unrolled-remat-5": Unrolled(5, remat=True),
    "unrolled-remat-3-last-2": Unrolled(3, last=2, remat=True),
    "finite_difference-reporting": FiniteDifference(estimate_error=True),
    "finite_difference-limited": FiniteDifference(estimate_error=True, limit=3.0),
    "finite_difference-wide": FiniteDifference(relative_step=1e-4),
    "in_parts-of-1": InParts(Mixed(), chunk=1),
    "in_parts-of-2": InParts(Mixed(), chunk=2),
    "in_parts-by-differences": InParts(FiniteDifference(), chunk=2),
    "in_parts-of-samples": InParts(Mixed(), samples=3, chunk=2),
    "implicit-2": Implicit(steps=2),
    "implicit-damped": Implicit(ConjugateGradient(3, damping=1.0)),
    "implicit-solved": Implicit(ConjugateGradient(50, tolerance=1e-12, damping=1.0), steps=2),
    "implicit-neumann-3": Implicit(Neumann(3, scale=0.1, damping=1.0), steps=3),
}


def taken(*names: str) -> Strategies:
    """Those of these names."""
    return {name: STRATEGIES[name] for name in names}


EACH: Strategies = {
    **{entry.name: entry.strategy for entry in ENTRIES},
    **taken("unrolled-3", "unrolled-3-last-1", "unrolled-remat-5", "implicit-neumann-3"),
}
"""Every strategy of the package, and those that take several steps with several too."""

EXACT: Strategies = {
    **{entry.name: entry.strategy for entry in ENTRIES if entry.exact},
    **taken("unrolled-2", "unrolled-5", "unrolled-3-last-3", "unrolled-remat-1", "unrolled-remat-5"),
}
"""Those whose hypergradient is that of all their steps, up to rounding."""


BIASED = ("unrolled-3-last-1", "implicit", "implicit-neumann-3", "implicit-solved", "evolution_strategies")
"""Those that differentiate something else than all their steps, such as a smoothed loss, or in random directions."""


def each(without: tuple[str, ...] = ()) -> Strategies:
    """`EACH` but for those of these names, each of which there must be."""
    assert set(without) <= EACH.keys()
    return {name: strategy for name, strategy in EACH.items() if name not in without}
