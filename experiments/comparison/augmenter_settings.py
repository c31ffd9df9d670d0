"""The settings of what a comparison learns: where augmenters start, and what stays as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from metasynth.experiments.comparison.methods import BILEVEL_METHODS

from metasynth.augment.entry import Start
from metasynth.augment.learned_synthesis import VARYING, Priors
from metasynth.augment.table import entry_of
from metasynth.running.seeding import generator_for


@dataclass(frozen=True)
class AugmenterSettings:
    """The augmenters that are learned: where they start, the network of the nonparametric ones, what stays random.

    Attributes
    ----------
    start : float
        Where sigma starts, in units of intensity.
    start_c : float
        Where the exponent of each field starts, in (0, 1).
    nodes : tuple of int
        Nodes per axis of the fields' grids.
    network : tuple of int
        Channels of each level of the network.
    start_blur : float
        Where the width of a synthesis's blur starts, in voxels.
    start_gamma : float
        Where the standard deviation of the logarithm of its power starts.
    random_share : float
        How much of the images of a learned synthesis keeps random contrasts, in [0, 1); see
        `metasynth.augment.random_share.RandomShare`.
    varying : float
        How much its strengths differ from image to image, in [0, 1); see
        `metasynth.augment.learned_synthesis.LearnedSynthesis`.
    frozen : str
        File of what an earlier run learned (``learned/*.augmenter``), which the method 'optimised' trains with; empty:
        it trains with what is best of what this run learns.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {
        "start_blur": 0.4,
        "start_gamma": 0.2,
        "random_share": 0.0,
        "varying": 0.0,
        "frozen": "",
    }

    start: float = 0.1
    start_c: float = 0.3
    nodes: tuple[int, ...] = (2, 4, 8)
    network: tuple[int, ...] = (8, 16)
    start_blur: float = 0.4
    start_gamma: float = 0.2
    random_share: float = 0.0
    varying: float = VARYING
    frozen: str = ""

    def __post_init__(self) -> None:
        for name in BILEVEL_METHODS:
            self.check(name)

    def check(self, name: str) -> None:
        """Make the augmenter of a bilevel method once, about no real priors; UsageError or RunError if it cannot be."""
        entry_of(name).made(self.start_of(2, 0, 2, Priors.random(2)))

    def start_of(self, ndim: int, seed: int, structures: int, priors: Priors | None = None) -> Start:
        """Where the augmenter of a bilevel method starts, for images of so many structures."""
        return Start(
            ndim,
            generator_for(seed, "augmenter"),
            self.start,
            self.start_c,
            self.nodes,
            self.network,
            self.start_blur,
            self.start_gamma,
            structures,
            priors,
            self.random_share,
            self.varying,
        )
