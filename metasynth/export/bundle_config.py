"""What a MONAI bundle does: the steps of `metasynth predict` in MONAI's transforms and those of `bundle.transforms`."""

from typing import Any

from metasynth.predict.geometry import stack_orientation
from metasynth.predict.network import window_lengths
from metasynth.predict.scan import stack_spacing
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.unet import UNet
from metasynth.segment.windows import OVERLAP, SIGMA
from metasynth.synthesis.intensity import AIR

AT_ONCE = 8  # planes
_RAS = [["L", "R"], ["P", "A"], ["I", "S"]]

Config = dict[str, Any]


def inference(model: TrainedModel) -> Config:
    """The content of `configs/inference.json`."""
    return {
        "imports": ["$import glob", "$import os", "$import sys", "$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/labels'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))]",
        "network_def": _network(model),
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "weights": "$@network_def.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
        "network": "$torch.nn.Sequential(@network_def, torch.nn.Softmax(dim=1))",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(model)},
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "inferer": _inferer(model),
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(model)},
        "evaluator": {
            "_target_": "scripts.inference.Evaluator",
            "dataset": "@dataset",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "device": "@device",
        },
        "initialize": ["$sys.path.insert(0, os.path.abspath(@bundle_root))"],
        "run": ["@weights", "$@evaluator.run()"],
    }


def _network(model: TrainedModel) -> Config:
    recipe: Any = model.network.recipe
    if isinstance(model.network, UNet):
        return {"_target_": "scripts.network.UNet", **recipe}
    return {"_target_": "metasynth.segment.table.from_recipe", "recipe": recipe}


def _preprocessing(model: TrainedModel) -> list[Config]:
    own = model.description
    keys = ["image", "brain"] if own.brain_only else ["image"]
    pixdim = [-1.0 if spacing is None else spacing for spacing in stack_spacing(own)]
    least, divisors = window_lengths(model)
    low, high = own.percentiles
    scale: Config = {"_target_": "scripts.transforms.ScaleHeadd", "keys": "image"}
    if not own.takes_heads:
        scale = {
            "_target_": "scripts.transforms.ScaleBraind",
            "keys": "image",
            "low": low,
            "high": high,
            "strip": own.brain_only,
        }
    window: Config = {
        "_target_": "scripts.transforms.WindowAboutContentd",
        "keys": keys,
        "source_key": "image",
        "least": least,
        "divisors": divisors,
        "threshold": _threshold(model),
    }
    again = [{"_target_": "scripts.transforms.StripAgaind", "keys": "image"}] if own.brain_only else []
    return [
        {"_target_": "LoadImaged", "keys": "image", "image_only": True, "ensure_channel_first": True},
        scale,
        {"_target_": "Orientationd", "keys": keys, "axcodes": stack_orientation(own.views[0]), "labels": _RAS},
        {"_target_": "scripts.transforms.ResampleToSpacingd", "keys": keys, "pixdim": pixdim},
        *again,
        window,
    ]


def _window(model: TrainedModel) -> list[int]:
    """The shape of training images, as the network takes it."""
    stride = model.stride or (1,) * model.ndim
    return [-(-n // s) * s for n, s in zip(model.description.shape, stride, strict=True)]


def _threshold(model: TrainedModel) -> float:
    """What is above it in a scaled image is content."""
    return AIR if model.description.takes_heads else 0.0


def _inferer(model: TrainedModel) -> Config:
    views = [stack_orientation(view) for view in model.description.views]
    if len(views) == 1:
        return _along_first_axis(model)
    return {
        "_target_": "scripts.inference.EachView",
        "inferer": _along_first_axis(model),
        "views": views,
        "threshold": _threshold(model),
    }


def _along_first_axis(model: TrainedModel) -> Config:
    if model.ndim == 2 and model.stride is not None:  # planes go through whole
        return {"_target_": "SliceInferer", "spatial_dim": 0, "sw_batch_size": AT_ONCE, "roi_size": [-1, -1]}
    return {
        "_target_": "scripts.inference.EvenWindows",
        "window": _window(model),
        "overlap": OVERLAP,
        "sigma": SIGMA,
    }


def _postprocessing(model: TrainedModel) -> list[Config]:
    limit = [{"_target_": "scripts.transforms.BackgroundOutsided", "keys": "pred"}]
    return [
        *(limit if model.description.brain_only else []),
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "dseg",
            "output_dtype": "$np.uint8" if len(model.description.class_names) <= 256 else "$np.int16",
            "resample": False,
            "separate_folder": False,
            "print_log": False,
        },
    ]
