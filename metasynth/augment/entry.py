"""What studies know of an augmenter: what it is called, how it is made, and what it asks of images and reports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from metasynth.augment.augmenter import Augmenter, check_groups, check_observed
from metasynth.augment.corruption import Corruption
from metasynth.augment.learned_synthesis import VARYING, Priors
from metasynth.errors import MetasynthError, RunError, UsageError
from metasynth.plugins import require_name

Study = Literal["noise", "inu", "comparison", "unpaired"]
"""Which studies there are for an augmenter; 'comparison' stands for both on real images."""


@dataclass(frozen=True)
class Start:
    """Where an augmenter starts; each takes what it needs.

    Attributes
    ----------
    ndim : int
        Spatial axes of the images, 2 or 3.
    generator : torch.Generator
        Source of initial weights.
    sigma : float
        Of the noise, in units of intensity.
    exponent : float
        Of each field, in (0, 1).
    nodes : tuple of int
        Nodes per axis of the fields' grids.
    network : tuple of int
        Channels of each level of a network.
    blur : float
        Width of a blur, in voxels.
    gamma : float
        Standard deviation of the logarithm of the power that images are raised to.
    structures : int
        G, the structures that there are, background included.
    priors : Priors or None
        What is known of their intensities; given to those whose line says `AugmenterEntry.priors`.
    random_share : float
        Share of images whose contrast stays random, in [0, 1).
    varying : float
        How much strengths differ from image to image, in [0, 1); see `metasynth.augment.learned_synthesis`.
    """

    ndim: int
    generator: torch.Generator
    sigma: float = 0.1
    exponent: float = 0.3
    nodes: tuple[int, ...] = (2, 4, 8)
    network: tuple[int, ...] = (8, 16)
    blur: float = 0.4
    gamma: float = 0.2
    structures: int = 2
    priors: Priors | None = None
    random_share: float = 0.0
    varying: float = VARYING


Build = Callable[[Start], Augmenter[Any]]
Known = Callable[[Mapping[str, float], Start], Corruption]


@dataclass(frozen=True)
class AugmenterEntry:
    """A line of the table.

    Attributes
    ----------
    name : str
        In settings, stages and rows: letters, digits, '_' and '-'.
    title : str
        In tables and figures.
    build : callable
        The augmenter at its start.
    fields, network : bool
        Whether it takes ``Start.nodes`` and ``Start.network``, so that images and memory have to fit them.
    priors : bool
        Whether it starts from ``Start.priors``, which a study then estimates from labelled images.
    sigma : tuple of str
        Which of the observed values are the noise that it adds: sigma, or the two ends of its range. Empty: none, and
        recovery studies show all observed values as they are.
    exponents : tuple of str
        Which of them are exponents of the fields of the study of non-uniformity.
    undrawn : tuple of str
        Which of them reports have in tables alone, and do not draw against outer steps.
    comparable : bool
        Whether its sigma means what a preset's sigma means.
    known : callable or None
        (observed values, start) -> the corruption that has them, for training with what was learned. None: that is
        done with the augmenter as it ended.
    told : str
        What is done to the images, in the past tense, for reports; ``{sigma:g}`` and ``{exponent:g}`` stand for starts.
    studies : tuple of str
        Of one of this package, the studies that offer it by its name. One from outside is offered by all.
    """

    name: str
    title: str
    build: Build
    fields: bool = False
    network: bool = False
    priors: bool = False
    sigma: tuple[str, ...] = ()
    exponents: tuple[str, ...] = ()
    undrawn: tuple[str, ...] = ()
    comparable: bool = False
    known: Known | None = None
    told: str = ""
    studies: tuple[Study, ...] = ()

    def __post_init__(self) -> None:
        require_name(self.name, "name of an augmenter")
        if len(self.sigma) > 2:
            raise UsageError(f"augmenter {self.name!r}: sigma: expected at most 2 names, got {len(self.sigma)}")

    def made(self, start: Start) -> Augmenter[Any]:
        """The augmenter at its start, checked.

        Raises
        ------
        UsageError
            (a ValueError) when a start is out of range, its parameter groups are not all of its parameters, it observes
            what is no number or has a name that records have anyway, or the line names values that it does not observe.
        RunError
            When it cannot be made.
        """
        try:
            augmenter = self.build(start)
        except (MetasynthError, ValueError):
            raise
        except Exception as error:
            raise RunError(f"augmenter {self.name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(augmenter, Augmenter):
            raise RunError(f"augmenter {self.name!r} cannot be made: got a {type(augmenter).__name__}, no Augmenter")
        check_groups(augmenter, f"augmenter {self.name!r}")
        observed = check_observed(augmenter, f"augmenter {self.name!r}")
        for kind, names in (("sigma", self.sigma), ("undrawn", self.undrawn)):
            if unknown := [name for name in names if name not in observed]:
                expected = f"expected values that it observes ({', '.join(observed)})"
                raise UsageError(f"augmenter {self.name!r}: {kind}: {expected}, got {unknown[0]!r}")
        return augmenter
