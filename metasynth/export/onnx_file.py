"""A segmenter as an ONNX file, which is compared with the segmenter before it is written.

What the model is and what images it needs is in the file's `metadata_props`, as JSON where it is no text.
"""

import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metasynth.errors import PackageError, RunError, install_hint
from metasynth.export.described import described
from metasynth.files import first_line, write_atomically
from metasynth.segment.model_description import TrainedModel
from metasynth.text import by

OPSET = 17
INPUT, OUTPUT = "image", "logits"
MOST_OFF = 1e-4
"""How far outputs may be off, of logits of this size or less than 1; else as a share of the largest."""


def write_onnx(model: TrainedModel, path: Path, card: Mapping[str, Any] | None = None) -> float:
    """Write a model whose input ``image`` is (B, 1, *S) and whose output ``logits`` is (B, K, *S).

    B is free; S is too where the network says what sizes have to be multiples of, and else that of its training images.

    Parameters
    ----------
    model : TrainedModel
        On the CPU.
    path : Path
        The file.
    card : mapping or None
        Its card, if it is one of the package.

    Returns
    -------
    float
        The largest difference from the model's own outputs that was found.

    Raises
    ------
    PackageError
        onnx or onnxruntime is missing.
    RunError
        The network cannot be exported, the file gives other outputs, or it cannot be written.
    """
    onnx, runtime = _package("onnx"), _package("onnxruntime")
    content = onnx.load_model_from_string(_exported(model))
    values = described(model, card)
    onnx.helper.set_model_props(
        content, {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    )
    content.producer_name = values["created_by"]
    data = content.SerializeToString()
    difference = _difference(model, data, runtime)
    write_atomically(path, data)
    return difference


def is_onnx(path: Path) -> bool:
    """Whether a file is one that this program wrote; without onnx it is not known, and so it is not."""
    try:
        return bool(_package("onnx").load(str(path), load_external_data=False).producer_name.startswith("metasynth "))
    except Exception:  # of damaged files any may come
        return False


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise PackageError(f"export onnx needs the package {name}: {install_hint('export')}") from error


def _shapes(model: TrainedModel) -> list[tuple[int, ...]]:
    """Shapes of a batch to export and to compare with: those of training images and, where it may be, larger ones."""
    stride = model.stride or model.description.shape
    shape = tuple(-(-n // s) * s for n, s in zip(model.description.shape, stride, strict=True))
    larger = tuple(n + s for n, s in zip(shape, stride, strict=True)) if model.stride else shape
    return [(2, model.in_channels, *shape), (1, model.in_channels, *larger)]


def _images(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _exported(model: TrainedModel) -> bytes:
    free = {0: "batch"}
    if model.stride is not None:
        free |= {axis + 2: name for axis, name in enumerate("DHW"[-model.ndim :])}
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            # Torch warns that this way is its older one (the other needs a further package), and of all that depends
            # on shapes, which `_difference` tries.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model.network,
                (_images(_shapes(model)[0]),),
                file := str(Path(folder, "model.onnx")),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: free, OUTPUT: free},
            )
            return Path(file).read_bytes()
    except Exception as error:  # of networks of others any may come
        raise RunError(f"the network cannot be exported as ONNX: {first_line(error)}") from error


def _difference(model: TrainedModel, data: bytes, runtime: Any) -> float:
    """The largest difference between the outputs of the file and of the model."""
    worst = 0.0
    try:
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for shape in _shapes(model):
            images = _images(shape)
            with torch.inference_mode():
                expected = model.network(images).numpy()
            (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
            off = float(np.abs(found - expected).max())
            if not off <= MOST_OFF * max(1.0, float(np.abs(expected).max())):
                raise RunError(f"outputs for images of {by(shape[2:])} differ by {off:g} from the model's")
            worst = max(worst, off)
    except RunError as error:
        raise RunError(f"the network cannot be exported as ONNX: {error}") from error
    except Exception as error:
        raise RunError(f"the network cannot be exported as ONNX: {first_line(error)}") from error
    return worst
