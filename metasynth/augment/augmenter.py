"""What all learned augmenters have in common, and the form of their random draws."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn

from metasynth.augment.intensities import Priors
from metasynth.errors import UsageError
from metasynth.files import is_plain

Draws = Tensor | tuple["Draws", ...]
"""The randomness of one application: tensors with the batch as first axis, nested in tuples at will."""

Rate = Literal["values", "weights"]
"""How fast a parameter travels: a value in natural units behind its bijection, or one of a network's many weights."""

Takes = Literal["images", "structures"]
"""What an augmenter makes its images of: synthetic images, or the label maps that these are synthesised from."""

RECORDED = (
    *("stage", "step", "inner_loss", "outer_loss", "reference_loss", "hypergradient_norm", "outer_step"),
    *("validation", "real_loss", "synthetic_loss", "accuracy"),
)
"""What records of a training hold beside the values that an augmenter observes, which take other names."""

DrawsT = TypeVar("DrawsT", bound=Draws)


class Augmenter(nn.Module, ABC, Generic[DrawsT]):
    """A learned augmentation of synthetic images: x <- A_θ(x, draws).

    Drawing is apart from applying. `draw` does not depend on the parameters and can be done ahead, in another process;
    `forward` draws nothing, so that equal draws give equal images, and is twice differentiable with respect to the
    parameters. What an image becomes depends on its own draws alone. Augmenters can be pickled.

    Attributes
    ----------
    takes : {'images', 'structures'}
        What x is: synthetic images (B, C, *S), or structures, (B, *S) int64 generation labels with 0 for background, of
        which the augmenter makes images (B, 1, *S) itself. Whoever feeds one asks for it.
    """

    takes: Takes = "images"

    @abstractmethod
    def draw(self, images: Tensor, generator: torch.Generator) -> DrawsT:
        """All randomness of one application to images of the shape, dtype and device of `images` (B, C, *S).

        Drawn on the generator's device and moved to that of the images, whose values are not looked at. The first
        axis of every tensor is the batch.
        """

    @abstractmethod
    def forward(self, images: Tensor, draws: DrawsT) -> Tensor:
        """Augmented images (B, C, *S) from `images` (B, C, *S), or what else it takes, and `draws` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """

    @abstractmethod
    def observed(self) -> dict[str, float]:
        """What is learned, by name and in natural units, such as {"sigma": 0.1}; for records (see `RECORDED`)."""

    def priors(self) -> Priors | None:
        """What has been learned of the intensities of structures; None of one that makes no contrast."""
        return None

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """All parameters by the rate that suits them, each once; here all of them are values."""
        return {"values": list(self.parameters())}

    def shown(self, images: Tensor, draws: DrawsT) -> dict[str, Tensor]:
        """What becomes visible of one application, by name, (B, C, *S) each.

        Here the 'noise' that is added to images; of structures the 'synthetic' image that becomes of them. A report
        draws 'synthetic' and 'augmented', the image at the end where it is not what `forward` gives, as images, 'field'
        around 1, as a factor, and all else around 0, as what is added.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """
        made = self(images, draws)
        return {"noise": made - images} if self.takes == "images" else {"synthetic": made}


def joined_groups(groups: Iterable[dict[Rate, list[nn.Parameter]]]) -> dict[Rate, list[nn.Parameter]]:
    """The groups of several modules as one: by rate, in their order, a parameter that they share once."""
    joined: dict[Rate, dict[int, nn.Parameter]] = {}
    for group in groups:
        for rate, parameters in group.items():
            joined.setdefault(rate, {}).update((id(p), p) for p in parameters)
    return {rate: list(parameters.values()) for rate, parameters in joined.items()}


class Grouped(Protocol):
    """What says which of its parameters travel at which rate: an `Augmenter` or a `LabelGenerator`."""

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """All parameters by the rate that suits them, each once."""

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters by name."""


def check_groups(augmenter: Grouped, name: str) -> None:
    """Raise UsageError, which begins with ``name``, unless each parameter is in one group of a known rate."""
    groups = augmenter.parameter_groups()
    unknown = [rate for rate in groups if rate not in get_args(Rate)]
    if unknown:
        raise UsageError(f"{name}: parameter_groups: expected the rates {', '.join(get_args(Rate))}, got {unknown[0]}")
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    for own, parameter in augmenter.named_parameters():
        if (count := grouped.count(id(parameter))) != 1:
            raise UsageError(f"{name}: parameter_groups: expected parameter {own} in one group, got it in {count}")


def check_observed(augmenter: Augmenter[Any], name: str) -> dict[str, float]:
    """What an augmenter observes; UsageError, which begins with ``name``, unless records can hold all of it."""
    observed = augmenter.observed()
    for own, value in observed.items():
        if not (isinstance(own, str) and is_plain(own)):
            raise UsageError(f"{name}: observed: expected names that files can have, as figures do, got {own!r}")
        if own in RECORDED:
            expected = f"expected other names than what records hold anyway ({', '.join(RECORDED)})"
            raise UsageError(f"{name}: observed: {expected}, got {own!r}")
        if not isinstance(value, int | float):
            raise UsageError(f"{name}: observed: expected numbers, got a {type(value).__name__} for {own!r}")
    return observed


def check_draws(draws: Draws, expected: tuple[Any, ...]) -> None:
    """Raise ValueError unless `draws` has the shapes `expected`, nested in tuples alike."""
    found = shapes_of(draws)
    if found != expected:
        raise ValueError(f"draws: must have shapes {expected}, got {found}")


def shapes_of(draws: Draws) -> Any:
    """The shape of each tensor in `draws`, nested alike; of anything else the name of its type."""
    if isinstance(draws, Tensor):
        return tuple(draws.shape)
    return tuple(map(shapes_of, draws)) if isinstance(draws, tuple) else type(draws).__name__
