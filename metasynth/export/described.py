"""What a model is and what images it needs, for other programs: plain values, and the steps in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metasynth import __version__
from metasynth.predict.geometry import stack_orientation
from metasynth.predict.network import window_lengths
from metasynth.predict.scan import stack_spacing
from metasynth.predict.shipped import shipped_models
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.windows import OVERLAP, SIGMA
from metasynth.text import by


def described(model: TrainedModel, card: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `metasynth predict` knows of a model and does to a scan, by name.

    Parameters
    ----------
    model : TrainedModel
        The model.
    card : mapping or None
        Its card, if it is one of the package.

    Returns
    -------
    dict
        ``class_names`` (background first), ``spacing_mm``, ``shape``, ``stride``, ``axis``, ``orientation`` (of the
        three axes of a stack of slices, or of a volume; with commas between those along several axes), ``takes``
        ("brain" or "head"), ``brain_only``, ``percentiles``, ``preprocessing`` and ``postprocessing`` (lists of steps
        in words), ``mapping``, ``provenance``, ``created_by``, and the ``card``.
    """
    own = model.description
    found = {
        "class_names": list(own.class_names),
        "spacing_mm": list(own.spacing_mm),
        "shape": list(own.shape),
        "stride": None if model.stride is None else list(model.stride),
        "axis": own.axis,
        "orientation": ",".join(map(stack_orientation, own.views)),
        "takes": own.scaled_by,
        "brain_only": own.brain_only,
        "percentiles": list(own.percentiles),
        "preprocessing": preprocessing(model),
        "postprocessing": postprocessing(model),
        "mapping": own.mapping,
        "provenance": dict(own.provenance),
        "created_by": f"metasynth {__version__}",
    }
    return found if card is None else {**found, "card": dict(card)}


def card_of(path: Path) -> Mapping[str, Any] | None:
    """The card of a model of the package, told by its file; None of any other."""
    return next((one.card for one in shipped_models().values() if one.path == path), None)


def preprocessing(model: TrainedModel) -> list[str]:
    """What is done to a scan, a step a line, as `metasynth.predict.scan.make_stack` does it."""
    own = model.description
    if own.takes_heads:
        scale = (
            "Scale the whole head linearly and cut it to [0, 1]: 0 is l, the 1 % quantile of all voxels; 1 is the 99 % "
            "quantile of the voxels above l + 0.1 (q - l), where q is the 99 % quantile of all"
        )
    else:
        low, high = own.percentiles
        scale = (
            f"Scale linearly so that the {low:g} % and {high:g} % quantiles of the voxels in the brain mask (without a "
            "mask: of what is not background) become 0 and 1, and cut there"
        )
        scale += "; set all outside the mask to 0" if own.brain_only else ""
    spacing = tuple(mm for mm in stack_spacing(own) if mm is not None)
    grid = f"Resample {'the rows and columns' if len(spacing) == 2 else 'it'} to voxels of {by(spacing)} mm"
    least, divisors = window_lengths(model)
    cut = (
        f"Cut or pad with 0 about the middle of the content, to {by(least[-len(spacing) :])} voxels or more, multiples "
        f"of {by(divisors[-len(spacing) :])}"
    )
    if model.stride is None:
        cut = f"Take windows of {by(own.shape)} voxels"
    return [
        scale,
        f"Turn it so that its axes grow to {', '.join(stack_orientation(own.views[0]))}",
        f"{grid}, linearly; where that is coarser, after a Gaussian of sqrt(r^2 - 1) / 2.355 voxels along each axis, r "
        "being the new spacing over the old",
        cut,
        _images(model),
    ]


def _images(model: TrainedModel) -> str:
    """What of a scan that is cut goes through the network."""
    own = model.description
    if model.ndim == 3:
        return "It is one image (1, D, H, W)"
    if len(own.views) == 1:
        return "Each plane along the first axis is an image (1, H, W)"
    ways = (f"{axis} ones to {', '.join(view)}" for axis, view in zip(own.axis.split(","), own.views, strict=True))
    return (
        "Each plane along each axis, from the first with content to the last, is an image (1, H, W): rows and columns "
        f"grow in {'; in '.join(ways)}"
    )


def postprocessing(model: TrainedModel) -> list[str]:
    """What is done with the logits, a step a line."""
    own = model.description
    steps = ["The softmax over axis 1 of the logits is the posterior of each class"]
    if model.ndim == 3 or model.stride is None:
        steps.append(
            f"Of more than one window of {by(own.shape)}: average the posteriors of windows that overlap by "
            f"{OVERLAP:.0%}, weighted by a Gaussian of {SIGMA:g} of their length"
        )
    if len(own.views) > 1:
        steps.append(
            f"The posterior of a voxel is the mean of those that its {len(own.views)} planes give, turned back; a "
            "plane beyond the content gives background"
        )
    if own.brain_only:
        steps.append("Outside the brain, its holes filled, all is background")
    return [*steps, "Resample the posteriors to the scan's own voxels; the label is the class of the largest"]
