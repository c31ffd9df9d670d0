"""The methods that are compared on real images (paper section 4.2): what each is called, needs and sees.

How each is trained is in `metasynth.experiments.comparison.fits`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from metasynth.experiments.real_images.titles import Titles

from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.table import built_in, entry_of, own_names
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
    real : {'none', 'training', 'augmenter'}
        Where real images come in: nowhere, into the segmenter's training, or into that of the augmenter alone.
    needs : tuple of str
        Methods whose segmenters it is made from.
    sized : bool
        Whether it depends on how many real subjects there are to learn from.
    """

    name: str
    title: str
    real: Literal["none", "training", "augmenter"]
    needs: tuple[str, ...] = ()
    sized: bool = True


BILEVEL_METHODS = built_in("comparison")
"""The variants of Learn2Synth: fields and noise or a network and noise, its sigma fixed or varying by image (Eq. 9)."""

CHOSEN = Method("learn2synth", "Learn2Synth, chosen on validation", "augmenter")
"""The variant that is best on the validation subjects; a row of its own, no training."""


def _title(entry: AugmenterEntry) -> str:
    return f"Learn2Synth, {entry.title}"


def _of_augmenter(name: str) -> Method:
    return Method(name, _title(entry_of(name)), "augmenter")


_METHODS = (
    Method("supervised_all", "Supervised U-Net, all training subjects", "training", sized=False),
    Method("supervised", "Supervised U-Net", "training"),
    Method("naive", "Naive SynthSeg", "none", sized=False),
    Method("clustered", "SynthSeg, clustered classes", "none", sized=False),
    Method("atlas", "SAMSEG-style atlas", "none", sized=False),
    Method("estimated", "SynthSeg, estimated priors", "augmenter"),
    Method("mixed", "Mixed SynthSeg", "training"),
    Method("finetuned", "Finetuned SynthSeg", "training", needs=("naive",)),
    Method("interpolated", "Interpolated weights", "training", needs=("naive", "finetuned")),
    *map(_of_augmenter, BILEVEL_METHODS),
    Method("optimised", "Optimised: learned augmentation, frozen", "augmenter"),
    Method("unlearned", "The same augmentation where it started, frozen", "augmenter"),
)
# In the order in which they are trained and shown: what a method needs comes before it.
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}

_ON_REQUEST = ("unlearned",)
_PART = {"optimised": "learned", "unlearned": "started from"}
FROZEN_METHODS = tuple(_PART)
"""Those that train with an augmenter that some variant of Learn2Synth ended with, or began with."""
DEFAULT = tuple(name for name in METHODS if name not in _ON_REQUEST)
"""The methods that are compared where the settings do not say."""

TITLES: Mapping[str, str] = Titles({method.name: method.title for method in (*_METHODS, CHOSEN)}, _title)
"""Those of `METHODS` and of `CHOSEN`; one from outside the package has its title when it is asked for."""


def method_of(name: str) -> Method:
    """The method of that name: one of `METHODS`, or Learn2Synth with an augmenter from outside the package.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    """
    if name in METHODS:
        return METHODS[name]
    if name in own_names():
        return _of_augmenter(name)
    raise UsageError(f"methods: unknown method {name!r}: {nearest(name, (*METHODS, *own_names()))}")


def variants_among(names: Iterable[str]) -> list[str]:
    """Those that are Learn2Synth, with ours first."""
    found = list(names)
    return [name for name in (*BILEVEL_METHODS, *_added()) if name in found]


def in_order(names: Sequence[str]) -> list[Method]:
    """The methods in the order of their training: what a method needs, and all that is learned, comes before it."""
    every = [name for name in METHODS if name not in FROZEN_METHODS] + _added() + list(FROZEN_METHODS)
    return [method_of(name) for name in every if name in names]


def _added() -> list[str]:
    return [name for name in own_names() if name not in METHODS]


def check_methods(names: Sequence[str], frozen: bool = False) -> None:
    """Raise UsageError unless every method is known, listed once, and has what it needs listed too.

    Where there is a ``frozen`` augmenter of an earlier run, `FROZEN_METHODS` need none that is learned.
    """
    for name in names:
        method_of(name)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"methods: must list at least one method, each once, got {list(names)}")
    for name in names:
        missing = [needed for needed in method_of(name).needs if needed not in names]
        if missing:
            raise UsageError(f"methods: {name} is made from {' and '.join(missing)}; list it too")
    for name in FROZEN_METHODS:
        if name in names and not (frozen or variants_among(names)):
            raise UsageError(
                f"methods: {name} trains with what a variant {_PART[name]}; list one of {', '.join(BILEVEL_METHODS)} "
                "too, or name a file of it as learned.frozen"
            )
