"""The methods that are compared on real images (paper section 4.2): what each is called, needs and sees.

How each is trained is in `metasynth.experiments.comparison.fits`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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


BILEVEL_METHODS = ("parametric_fixed", "parametric_varying", "nonparametric_fixed", "nonparametric_varying")
"""The variants of Learn2Synth: fields and noise or a network and noise, its sigma fixed or varying by image (Eq. 9)."""

CHOSEN = Method("learn2synth", "Learn2Synth, chosen on validation", "augmenter")
"""The variant that is best on the validation subjects; a row of its own, no training."""

_METHODS = (
    Method("supervised_all", "Supervised U-Net, all training subjects", "training", sized=False),
    Method("supervised", "Supervised U-Net", "training"),
    Method("naive", "Naive SynthSeg", "none", sized=False),
    Method("clustered", "SynthSeg, clustered classes", "none", sized=False),
    Method("atlas", "SAMSEG-style atlas", "none", sized=False),
    Method("mixed", "Mixed SynthSeg", "training"),
    Method("finetuned", "Finetuned SynthSeg", "training", needs=("naive",)),
    Method("interpolated", "Interpolated weights", "training", needs=("naive", "finetuned")),
    Method("parametric_fixed", "Learn2Synth, parametric, fixed σ", "augmenter"),
    Method("parametric_varying", "Learn2Synth, parametric, varying σ", "augmenter"),
    Method("nonparametric_fixed", "Learn2Synth, nonparametric, fixed σ", "augmenter"),
    Method("nonparametric_varying", "Learn2Synth, nonparametric, varying σ", "augmenter"),
    Method("optimised", "Optimised: learned augmentation, frozen", "augmenter"),
)
# In the order in which they are trained and shown: what a method needs comes before it.
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}
TITLES: Mapping[str, str] = {method.name: method.title for method in (*_METHODS, CHOSEN)}


def check_methods(names: Sequence[str]) -> None:
    """Raise UsageError unless every method is known, listed once, and has what it needs listed too."""
    for name in names:
        if name not in METHODS:
            raise UsageError(f"methods: unknown method {name!r}: {nearest(name, METHODS)}")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"methods: must list at least one method, each once, got {list(names)}")
    for name in names:
        missing = [needed for needed in METHODS[name].needs if needed not in names]
        if missing:
            raise UsageError(f"methods: {name} is made from {' and '.join(missing)}; list it too")
    if "optimised" in names and not set(names) & set(BILEVEL_METHODS):
        raise UsageError(
            f"methods: optimised trains with what a variant learned; list one of {', '.join(BILEVEL_METHODS)} too"
        )
