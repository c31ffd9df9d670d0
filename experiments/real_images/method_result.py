"""What a method of a study on real images gives: segmenters, and when each was saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metasynth.experiments.real_images.evaluation import Segment

from metasynth.augment.augmenter import Augmenter

BEST, LAST, ONLY = "best", "last", "only"


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What a method gave.

    Attributes
    ----------
    checkpoints : mapping
        'best' and 'last' -> its segmenter at either; 'only' -> that of a method that takes no steps.
    validation : mapping
        Checkpoint -> mean Dice of the validation subjects, where these were looked at.
    steps : int
        Inner steps of its own.
    seconds, total_seconds : float
        Of its own training, with the looks at the validation subjects, and with that of what it is made from.
    peak_mib : float or None
        Peak memory.
    augmenter, start : Augmenter or None
        As it was learned, on the CPU.
    found : mapping
        What it found, for the rows: learned parameters, a chosen weight.
    """

    checkpoints: Mapping[str, Segment]
    validation: Mapping[str, float]
    steps: int
    seconds: float
    total_seconds: float
    peak_mib: float | None = None
    augmenter: Augmenter[Any] | None = None
    start: Augmenter[Any] | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
