"""The networks of MONAI, which are imported where one is made."""

import copy
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from metasynth.errors import UsageError
from metasynth.files import first_line
from metasynth.segment.backbone import Backbone, drawn_from, require, try_images

_AXES, _CLASSES = ("spatial_dims", "dimensions"), ("out_channels", "num_classes")


def monai_network(
    name: str, n_classes: int, shape: Sequence[int], /, *, generator: torch.Generator | None = None, **arguments: Any
) -> Backbone:
    """A network of `monai.networks.nets` for images with one channel.

    Parameters
    ----------
    name : str
        Of the class.
    n_classes : int
        K, background included.
    shape : sequence of int
        Voxels of the images along each axis. What other shapes it takes is not known, so larger images are predicted in
        windows of this one.
    generator : torch.Generator or None
        Source of the initial weights. None: torch's global stream.
    **arguments
        What the class is made with, plain values, beside the numbers of axes, channels and classes.

    Raises
    ------
    ShapeError
        When it cannot take images of this shape, or does not give logits for them.
    PackageError
        When the package is missing.
    UsageError
        (a ValueError) when there is no such class, it is no segmentation network, or it refuses the arguments.
    """
    made = _monai_class(name)
    taken = inspect.signature(made).parameters
    given = _own_arguments(name, taken, n_classes, shape)
    _check_arguments(name, taken, given, arguments)
    recipe = {"kind": "monai", "name": name, "n_classes": n_classes, "shape": list(shape), "arguments": arguments}
    # Weights are the generator's, or those of a file.
    given |= {key: False for key, p in taken.items() if "pretrained" in key and p.default is True}

    def make() -> Backbone:
        try:
            network = made(**given, **copy.deepcopy(arguments))
        except Exception as error:
            raise UsageError(f"monai {name}: cannot be made with {arguments}: {first_line(error)}") from error
        backbone = Backbone(network, n_classes, len(shape), None, recipe)
        try_images(backbone, shape, f"monai's {type(network).__name__}")
        return backbone

    return drawn_from(generator, make)


def _monai_class(name: str) -> Callable[..., nn.Module]:
    nets = require("monai", "the network monai")
    known = [key for key, value in vars(nets).items() if isinstance(value, type) and issubclass(value, nn.Module)]
    if name not in known:
        raise UsageError(f"monai: there is no network {name!r} in monai.networks.nets{_meant(name, known)}")
    found: Callable[..., nn.Module] = getattr(nets, name)
    return found


def _own_arguments(
    name: str, taken: Mapping[str, inspect.Parameter], n_classes: int, shape: Sequence[int]
) -> dict[str, Any]:
    """The arguments that say what goes in and comes out."""
    values = {**dict.fromkeys(_AXES, len(shape)), **dict.fromkeys(_CLASSES, n_classes), "img_size": tuple(shape)}
    given = {key: value for key, value in values.items() if key in taken}
    if not given.keys() & _CLASSES or "in_channels" not in taken:
        raise UsageError(
            f"monai {name}: is no segmentation network: it has no in_channels, or no {' or '.join(_CLASSES)}"
        )
    return given | {"in_channels": 1}


def _check_arguments(
    name: str, taken: Mapping[str, inspect.Parameter], given: Mapping[str, Any], arguments: Mapping[str, Any]
) -> None:
    named = {key: p for key, p in taken.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    free = [key for key in named if key not in given]
    any_name = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    for key in arguments:
        if key in given:
            raise UsageError(f"monai {name}: {key} is {given[key]!r} here, as the data are; leave it out")
        if key not in free and not any_name:
            raise UsageError(f"monai {name}: has no argument {key!r}{_meant(key, free)}")
        if "pretrained" in key and arguments[key]:
            raise UsageError(f"monai {name}: {key}: weights are drawn anew here; leave it out, got {arguments[key]!r}")
    missing = [key for key in free if named[key].default is inspect.Parameter.empty and key not in arguments]
    if missing:
        raise UsageError(f"monai {name}: needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3) or [k for k in known if name and name.lower() in k.lower()][:3]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; it has {', '.join(sorted(known))}"
