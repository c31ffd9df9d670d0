"""Settings of hyper-cleaning."""

from dataclasses import dataclass

from metasynth.running.settings.bounds import require_at_least, require_positive
from metasynth.training.reach import LARGEST_UNCONSTRAINED, require_rate

DIGITS = 1797
"""How many images scikit-learn has."""


@dataclass(frozen=True)
class HyperCleaningConfig:
    """Settings of the study.

    Attributes
    ----------
    train : int
        Samples to learn from.
    validation : int
        Clean samples to judge them by; the rest are the test set.
    corrupted : float
        Fraction of the training labels replaced by one of the other nine, all equally likely.
    hidden : int
        Units of the classifier's hidden layer; 0 for a linear classifier.
    steps : int
        Inner steps, with an outer step after each.
    batch_size : int
        Samples an inner step.
    lr : float
        Learning rate of the inner SGD.
    outer_lr : float
        Learning rate of Adam on the theta_i.
    repeats : int
        Divisions and corruptions of the data, each with everything done anew.
    """

    train: int = 1000
    validation: int = 200
    corrupted: float = 0.5
    hidden: int = 0
    steps: int = 1000
    batch_size: int = 200
    lr: float = 0.5
    outer_lr: float = 0.1
    repeats: int = 3

    def __post_init__(self) -> None:
        require_positive(train=self.train, validation=self.validation, steps=self.steps)
        require_positive(batch_size=self.batch_size, repeats=self.repeats, lr=self.lr)
        require_rate(LARGEST_UNCONSTRAINED, outer_lr=self.outer_lr)
        if self.train + self.validation >= DIGITS or self.batch_size > self.train:
            raise ValueError(
                f"train + validation must be below {DIGITS} and batch_size at most train, got "
                f"{self.train} + {self.validation} and {self.batch_size}"
            )
        if not 0 < self.corrupted < 1 or not 0 < round(self.corrupted * self.train) < self.train:
            raise ValueError(f"corrupted must leave both wrong and right labels, got {self.corrupted}")
        require_at_least(0, hidden=self.hidden)
