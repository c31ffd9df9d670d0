"""Packages that tests can do without, where their companions are not of one build."""

from importlib.util import find_spec

import torch


def make_torchvision_importable() -> None:
    """Declare the operators that torchvision's Python asks for, where what is compiled of it is for another torch.

    So it is with torchvision of the public index beside a torch for CPUs alone: timm and transformers, which import it
    and use none of these, could not be imported.
    """
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
