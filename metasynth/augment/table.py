"""The table of augmenters: what studies call each, how it is made, and what they have to know of it.

Studies decide nothing by a name; they ask the line of the table. An augmenter is added by one line here, by an entry
point of the group `GROUP`, or in a program by `register`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import torch

from metasynth.augment.augmenter import Augmenter, check_groups
from metasynth.augment.bias_field import BiasField, KnownBias
from metasynth.augment.compose import Compose, nonparametric
from metasynth.augment.corruption import Corruption, Corruptions
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.augment.residual import ResidualNetwork, residual_unet
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise
from metasynth.errors import MetasynthError, RunError, UsageError

GROUP = "metasynth.augmenters"
"""The group of entry points by which a package adds augmenters; each is an `AugmenterEntry`."""

Study = Literal["noise", "inu", "comparison"]


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
    """

    ndim: int
    generator: torch.Generator
    sigma: float = 0.1
    exponent: float = 0.3
    nodes: tuple[int, ...] = (2, 4, 8)
    network: tuple[int, ...] = (8, 16)


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
    sigma : tuple of str
        Which of the observed values are the noise that it adds: sigma, or the two ends of its range. Empty: none, and
        recovery studies show all observed values as they are.
    exponents : tuple of str
        Which of them are exponents of the fields of the study of non-uniformity.
    comparable : bool
        Whether its sigma means what a preset's sigma means.
    known : callable or None
        (observed values, start) -> the corruption that has them, for training with what was learned. None: that is
        done with the augmenter as it ended.
    told : str
        What is done to the images, in the past tense, for reports; ``{sigma:g}`` and ``{exponent:g}`` stand for starts.
    studies : tuple of str
        Of one of this package, the studies that offer it. One from outside is offered by all.
    """

    name: str
    title: str
    build: Build
    fields: bool = False
    network: bool = False
    sigma: tuple[str, ...] = ()
    exponents: tuple[str, ...] = ()
    comparable: bool = False
    known: Known | None = None
    told: str = ""
    studies: tuple[Study, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise UsageError(f"name of an augmenter: expected letters, digits, '_' and '-', got {self.name!r}")

    def made(self, start: Start) -> Augmenter[Any]:
        """The augmenter at its start, checked.

        Raises
        ------
        UsageError
            (a ValueError) when a start is out of range, or its parameter groups are not all of its parameters.
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
        return augmenter


def _noise(start: Start) -> Augmenter[Any]:
    return GaussianNoise(start.sigma)


def _random_amplitude(start: Start) -> Augmenter[Any]:
    return RandomAmplitudeNoise(start.sigma)


def _range(start: Start) -> Augmenter[Any]:
    return NoiseRange(0.1 * start.sigma, start.sigma)


def _field(start: Start) -> BiasField:
    return BiasField((start.exponent,) * len(start.nodes), start.nodes, ndim=start.ndim)


def _network(start: Start) -> torch.nn.Module:
    return residual_unet(ndim=start.ndim, widths=start.network, generator=start.generator)


def _parametric(start: Start) -> Augmenter[Any]:
    """Fields (Eq. 7), then noise of Eq. 8."""
    return Compose(_field(start), _noise(start))


def _nonparametric(start: Start) -> Augmenter[Any]:
    """A network (Eqs 10-11), then noise of Eq. 9."""
    return nonparametric(_network(start), start.sigma)


def _known_sigma(values: Mapping[str, float], start: Start) -> NoiseLevel:
    return NoiseLevel(values["sigma"], values["sigma"])


def _known_range(values: Mapping[str, float], start: Start) -> NoiseLevel:
    return NoiseLevel(values["sigma_low"], values["sigma_high"])


_EXPONENTS = ("c_low", "c_mid", "c_high")


def _known_fields(values: Mapping[str, float], start: Start) -> Corruption:
    return Corruptions((KnownBias(tuple(values[c] for c in _EXPONENTS), start.nodes), _known_sigma(values, start)))


_SIGMA = ("sigma",)
_FIELDS_TOLD = (
    "multiplied by fields with learned exponents, which started at {exponent:g}, and had noise added whose sigma "
    "started at {sigma:g}"
)
_NETWORK_TOLD = (
    "changed by a network on the image and a channel of noise, which began as weak random fields, and had noise of "
    "random amplitude added, whose sigma started at {sigma:g} (it stands for what the network leaves to be added, and "
    "is not to be compared with the preset)"
)
_ENTRIES = (
    AugmenterEntry("fixed", "Noise", _noise, sigma=_SIGMA, comparable=True, known=_known_sigma, studies=("noise",)),
    AugmenterEntry(
        "random_amplitude", "Noise of random amplitude", _random_amplitude, sigma=_SIGMA, studies=("noise",)
    ),
    AugmenterEntry(
        "range", "Noise of a range", _range, sigma=("sigma_low", "sigma_high"), known=_known_range, studies=("noise",)
    ),
    AugmenterEntry(
        "parametric",
        "Fields and noise",
        _parametric,
        fields=True,
        sigma=_SIGMA,
        exponents=_EXPONENTS,
        comparable=True,
        known=_known_fields,
        told=_FIELDS_TOLD,
        studies=("inu",),
    ),
    AugmenterEntry(
        "nonparametric",
        "Network and noise",
        _nonparametric,
        network=True,
        sigma=_SIGMA,
        told=_NETWORK_TOLD,
        studies=("inu",),
    ),
    AugmenterEntry("parametric_fixed", "parametric, fixed σ", _parametric, fields=True, studies=("comparison",)),
    AugmenterEntry(
        "parametric_varying",
        "parametric, varying σ",
        lambda start: Compose(_field(start), _random_amplitude(start)),
        fields=True,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "nonparametric_fixed",
        "nonparametric, fixed σ",
        lambda start: Compose(ResidualNetwork(_network(start)), _noise(start)),
        network=True,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "nonparametric_varying", "nonparametric, varying σ", _nonparametric, network=True, studies=("comparison",)
    ),
)
_TABLE: dict[str, AugmenterEntry] = {entry.name: entry for entry in _ENTRIES}
_BUILT_IN = tuple(_TABLE)


def register(entry: AugmenterEntry) -> None:
    """Add an augmenter to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    if entry.name in _TABLE or entry.name in _points():
        raise UsageError(f"augmenter {entry.name!r}: the name is taken")
    _TABLE[entry.name] = entry


def built_in(study: Study) -> tuple[str, ...]:
    """Those of this package that a study offers."""
    return tuple(entry.name for entry in _ENTRIES if study in entry.studies)


def names(study: Study) -> tuple[str, ...]:
    """The augmenters that a study offers, ours first; no package of others is imported."""
    return (*built_in(study), *own_names())


def own_names() -> tuple[str, ...]:
    """Those that came from outside the package."""
    return (*(name for name in _TABLE if name not in _BUILT_IN), *_points())


def known_entry(name: str) -> AugmenterEntry | None:
    """The line of that name; None if there is none.

    Raises
    ------
    RunError
        When the package that declares it cannot be loaded.
    """
    if name in _TABLE:
        return _TABLE[name]
    point = _points().get(name)
    return None if point is None else _loaded(point)


def entry_of(name: str) -> AugmenterEntry:
    """The line of that name.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    RunError
        When the package that declares it cannot be loaded.
    """
    found = known_entry(name)
    if found is None:
        raise UsageError(f"unknown augmenter {name!r}: expected one of {', '.join((*_TABLE, *_points()))}")
    return found


def _points() -> dict[str, EntryPoint]:
    """What other packages declare; a name of ours stays ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _TABLE}


def _loaded(point: EntryPoint) -> AugmenterEntry:
    where = f"augmenter {point.name!r} ({point.value})"
    try:
        found = point.load()
    except (MetasynthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends its process must not end this one
        raise RunError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, AugmenterEntry):
        raise RunError(f"{where} is a {type(found).__name__}, no AugmenterEntry")
    if found.name != point.name:
        raise RunError(f"{where} has the name {found.name!r}; its entry point must have it too")
    return found
