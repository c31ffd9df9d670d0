"""The methods of the study of scans without labels: what each is called, and what makes its training images.

A learned generator is a contrast, random or learned, and an augmenter, a line of the table of augmenters. One that the
table offers this study, as it does all from outside the package, is a method of its own name, which augments images of
random contrasts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metasynth.experiments.real_images.titles import Titles

from metasynth.augment.class_intensity import texture_names
from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.table import entry_of, known_entry, names
from metasynth.errors import UsageError
from metasynth.running.settings.config import nearest


@dataclass(frozen=True)
class Method:
    """One way to a segmenter.

    Attributes
    ----------
    name : str
        In settings, stages and rows.
    title : str
        In tables and figures.
    augmenter : str
        Of its learned generator, in the table of augmenters; empty: nothing is learned but the segmenter.
    learned_contrast : bool
        Whether that generator learns the intensities of classes, too.
    labelled : bool
        Whether its segmenter is trained on the scans with their labels.
    """

    name: str
    title: str
    augmenter: str = ""
    learned_contrast: bool = False
    labelled: bool = False


_METHODS = (
    Method("naive", "Naive SynthSeg"),
    Method("parametric", "Unpaired: random contrasts, fields, noise", "parametric"),
    Method("nonparametric", "Unpaired: random contrasts, network, noise", "nonparametric_fixed"),
    Method("intensities", "Unpaired: learned contrast, fields, noise", "parametric", learned_contrast=True),
    Method(
        "intensities_network",
        "Unpaired: learned contrast, network, fields, noise",
        "network_fields",
        learned_contrast=True,
    ),
    Method("supervised", "Supervised U-Net, with labels of the scans", labelled=True),
)
# In the order in which they are trained and shown.
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}

VARIANTS = tuple(method.name for method in _METHODS if method.augmenter)
"""Those with a learned generator."""


def _title(entry: AugmenterEntry) -> str:
    return f"Unpaired: random contrasts, {entry.title}"


TITLES: Mapping[str, str] = Titles({method.name: method.title for method in _METHODS}, _title)


def method_of(name: str) -> Method:
    """The method of that name: one of `METHODS`, or random contrasts with an augmenter that the table offers.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    """
    if name in METHODS:
        return METHODS[name]
    if name in names("unpaired"):
        return Method(name, _title(entry_of(name)), name)
    raise UsageError(f"methods: unknown method {name!r}: {nearest(name, (*METHODS, *names('unpaired')))}")


def in_order(wanted: Iterable[str]) -> list[Method]:
    """The methods in the order in which they are trained and shown, ours first."""
    found = list(wanted)
    return [method_of(name) for name in dict.fromkeys((*METHODS, *names("unpaired"))) if name in found]


def learned_among(wanted: Iterable[str]) -> list[Method]:
    """Those with a learned generator, in that order."""
    return [method for method in in_order(wanted) if method.augmenter]


def undrawn(name: str, n_classes: int) -> set[str]:
    """Which values that a method learned are in tables alone: as lines there would be too many to tell apart.

    A report may be made again where an augmenter from outside is missing; then all are drawn.
    """
    augmenter = METHODS[name].augmenter if name in METHODS else name
    entry = known_entry(augmenter)
    of_contrast = texture_names(n_classes) if name in METHODS and METHODS[name].learned_contrast else ()
    return {*of_contrast, *(entry.undrawn if entry else ())}
