"""A segmenter as a MONAI bundle: a folder that `monai.bundle` loads and runs, with the preprocessing of `predict`.

The U-Net of this package needs MONAI alone, as its module goes along; networks of other packages are made by this one.
"""

import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metasynth import __version__
from metasynth.errors import DISTRIBUTION
from metasynth.export.bundle_config import Config, inference
from metasynth.export.described import described
from metasynth.export.whole_folder import whole_folder
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.unet import UNet

SCRIPTS = ("network", "transforms", "inference")
MONAI = "1.5.0"


def write_bundle(model: TrainedModel, out: Path, card: Mapping[str, Any] | None = None) -> None:
    """Write the folder of a bundle: `configs`, `models/model.pt`, `scripts`, a page for people and `LICENSE`.

    Parameters
    ----------
    model : TrainedModel
        On the CPU.
    out : Path
        The folder, which is absent or empty.
    card : mapping or None
        The model's card, if it is one of the package.

    Raises
    ------
    UsageError
        The folder holds something.
    RunError
        A file cannot be written.
    """
    values = described(model, card)
    with whole_folder(out) as folder:
        for name in ("configs", "models", "scripts", "docs"):
            (folder / name).mkdir()
        for name, content in (("metadata", metadata(model, values)), ("inference", inference(model))):
            (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / "models" / "model.pt").write_bytes(_weights(model))
        for name in ("__init__", *SCRIPTS):
            text = files("metasynth.export.bundle").joinpath(f"{name}.py").read_text(encoding="utf-8")
            (folder / "scripts" / f"{name}.py").write_text(text, encoding="utf-8")
        (folder / "docs" / "README.md").write_text(readme(values), encoding="utf-8")
        (folder / "LICENSE").write_text(licence(card), encoding="utf-8")


def _weights(model: TrainedModel) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu() for name, value in model.network.state_dict().items()}, buffer)
    return buffer.getvalue()


def metadata(model: TrainedModel, values: Mapping[str, Any]) -> Config:
    """The content of `configs/metadata.json`; ``values`` are what `described` gives."""
    own, card = model.description, values.get("card", {})
    sizes = [f"{s}*n" for s in model.stride] if model.stride else list(own.shape)
    channels = {str(k): name for k, name in enumerate(own.class_names)}
    needed = {} if isinstance(model.network, UNet) else {DISTRIBUTION: __version__}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": model.in_channels,
        "spatial_shape": sizes,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": model.ndim == 3,
        "channel_def": {"0": "image"},
    }
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(own.class_names),
        "spatial_shape": sizes,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": model.ndim == 3,
        "channel_def": channels,
    }
    return {
        "version": __version__,
        "changelog": {__version__: values["created_by"]},
        "monai_version": MONAI,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"scipy": "1.11", **needed},
        "name": "metasynth segmenter",
        "task": f"Segmentation of {values['takes']}s in MR scans",
        "description": card.get("summary", f"A segmenter of {', '.join(own.class_names[1:])}"),
        "authors": "made by metasynth",
        "copyright": card.get("licence", ""),
        "data_source": card.get("data", own.mapping),
        "data_type": "nifti",
        "image_classes": f"one channel, an MR scan of the {'head' if own.takes_heads else 'brain'}",
        "label_classes": "none",
        "pred_classes": ", ".join(f"{k}: {name}" for k, name in channels.items()),
        "intended_use": f"Not for: {card['not_for']}" if card else "Research",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "metasynth": dict(values),
    }


def readme(values: Mapping[str, Any]) -> str:
    """What people read of the bundle; ``values`` are what `described` gives."""
    card, origin = values.get("card", {}), ", ".join(f"{k} {v}" for k, v in values["provenance"].items())
    return "\n".join(
        [
            "# A segmenter made by metasynth",
            "",
            card.get("summary", f"It tells apart: {', '.join(values['class_names'][1:])}."),
            f"Where it comes from: {origin or 'not said'}. {values['created_by']}.",
            "",
            "Run it in this folder, with scans (.nii, .nii.gz) in `scans`; label maps are written to `labels`. With",
            "the package fire:",
            "",
            "    python -m monai.bundle run --config_file configs/inference.json",
            "",
            "`dataset_dir`, `output_dir`, `bundle_root` and `device` of the configuration say otherwise.",
            "",
            "What is done to a scan:",
            "",
            *(f"{k}. {step}." for k, step in enumerate([*values["preprocessing"], *values["postprocessing"]], 1)),
            "",
            "A scan of the brain alone is needed: all of it but its background is taken for brain. "
            if values["takes"] == "brain"
            else "Scans of heads are taken as they come.",
            "No scan is refused here, as `metasynth predict` refuses CT, noise, and heads without a brain.",
            "",
            *(f"{key.replace('_', ' ').capitalize()}: {card[key]}" for key in ("data", "licence", "not_for") if card),
            "",
        ]
    )


def licence(card: Mapping[str, Any] | None) -> str:
    """What may be done with the files."""
    weights = card["licence"] if card else "the model does not say."
    return f"The weights (models/model.pt): {weights}\nThe modules in scripts: MIT licence, metasynth contributors.\n"
