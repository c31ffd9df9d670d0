"""Files of trained segmenters: the weights, the network they belong to, and what images it was trained on.

A file holds tensors and plain values only, and reading one runs no code of it. The network is kept
as its recipe, from which its line of the table of networks makes it again.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.errors import DataError, PackageError, RunError, UsageError
from metasynth.files import MODELS, first_line
from metasynth.schema import FLAG, NUMBER, POSITIVE, TEXT, WHOLE, either, entries, expect, listing, mapping, scalar
from metasynth.segment.backbone import Backbone
from metasynth.segment.model_description import ModelDescription, TrainedModel
from metasynth.segment.table import from_recipe
from metasynth.segment.unet import UNet
from metasynth.tensor_files import load_tensors, save_tensors

_PLAIN = either(either(TEXT, FLAG), NUMBER)
_CONTENT = entries(
    {
        "network": mapping(lambda value: None),  # its maker checks its arguments
        "description": entries(
            {
                "class_names": listing(TEXT, least=2),
                "mapping": TEXT,
                "spacing_mm": listing(POSITIVE, least=2),
                "axis": TEXT,
                "orientation": TEXT,
                "shape": listing(WHOLE, least=2),
            },
            {
                "brain_only": FLAG,
                "percentiles": listing(NUMBER, length=2),
                "provenance": mapping(_PLAIN),
                "scaled_by": TEXT,
                "brain_share": NUMBER,
                "patch_size": listing(WHOLE),
            },
        ),
        "weights": mapping(scalar("a tensor", torch.is_tensor)),
    }
)
FORMAT = "metasynth-model"
VERSIONS = (1, 2, 3)
"""Version 2 is written of models of whole heads, 3 of those that look along several axes, as earlier versions of the
program would prepare scans otherwise."""
SUFFIX = ".pt"
BY_FILE = "give the file of one, in models/"
"""How one of several segmenters is named where there is no ``--stage``."""


def model_path(run: Path | str, stage: str) -> Path:
    """Where a run's folder keeps the segmenter of a stage ("sigma=0.1/learn"): in ``models/sigma=0.1-learn.pt``."""
    return Path(run) / MODELS / f"{stage.replace('/', '-')}{SUFFIX}"


def find_model(run: Path | str, stage: str | None = None, choose: str = "choose one with --stage") -> Path:
    """The model file that is meant by a file, or by a run's folder and the name of a stage.

    ``choose`` says how the user names one of several.

    Raises
    ------
    UsageError
        When there is none, or the folder holds several and no stage is named.
    """
    run = Path(run)
    if run.is_file():
        if stage is not None:
            raise UsageError(f"--stage {stage}: {run} is a model file; stages are those of a run's folder")
        return run
    if not run.is_dir():
        raise UsageError(f"{run}: there is no such model file or folder of a run")
    found = sorted((run / MODELS).glob(f"*{SUFFIX}"))
    if not found:
        several = any(run.glob(f"*/{MODELS}/*{SUFFIX}"))
        hint = "; it holds several runs: name one of them" if several else ""
        raise UsageError(f"{run}: holds no trained segmenter ({MODELS}/*{SUFFIX}){hint}")
    names = ", ".join(path.name.removesuffix(SUFFIX) for path in found)
    if stage is not None:
        wanted = model_path(run, stage)
        if wanted not in found:
            raise UsageError(f"--stage {stage}: {run} holds no segmenter of this stage; it has {names}")
        return wanted
    if len(found) > 1:
        raise UsageError(f"{run}: holds {len(found)} segmenters; {choose}: {names}")
    return found[0]


def save_model(path: Path | str, segmenter: nn.Module, description: ModelDescription, *, half: bool = False) -> None:
    """Write a trained segmenter atomically, and sealed (see `metasynth.sealed`); a folder that is missing is made.

    Parameters
    ----------
    path : Path or str
        The file.
    segmenter : torch.nn.Module
        A `UNet` or `Backbone`.
    description : ModelDescription
        Of it.
    half : bool
        Keep weights in half precision: a file of half the size, whose network computes in single precision as ever.

    Raises
    ------
    ValueError
        When the segmenter is no `UNet` or `Backbone`, the description is of another number of classes or axes, or a
        weight is beyond half precision.
    RunError
        When the file cannot be written; one of that name stays as it was.
    """
    if not isinstance(segmenter, UNet | Backbone):
        raise ValueError(
            f"segmenter: must be a UNet or a Backbone, got {type(segmenter).__name__}; keep its state_dict instead"
        )
    _check_match(segmenter, description)
    content = {
        "format": FORMAT,
        "version": 3 if len(description.views) > 1 else 2 if description.takes_heads else 1,
        "network": segmenter.recipe,
        "description": _described(description),
        "weights": {key: _stored(key, value, half) for key, value in segmenter.state_dict().items()},
    }
    save_tensors(Path(path), content)


def load_model(path: Path | str) -> TrainedModel:
    """Read a trained segmenter, from before there were seals too.

    Raises
    ------
    DataError
        When the file is missing, damaged, of another format or version, or its parts do not fit together.
    PackageError
        When its network is of a package that is missing.
    RunError
        When that package cannot be loaded, or cannot make the network.
    """
    content = load_tensors(Path(path), "the model", DataError, otherwise=f" or no {FORMAT} file")
    if content.get("format") != FORMAT:
        raise DataError(f"{path}: is not a {FORMAT} file; a run keeps its segmenters in {MODELS}/")
    if content.get("version") not in VERSIONS:
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise DataError(f"{path}: format versions {known} are supported, got {content.get('version')!r}")
    expect(content, _CONTENT, f"{path}: its parts do not fit together")
    try:
        given = content["description"]
        names = {f.name for f in fields(ModelDescription)}
        description = ModelDescription(**{key: value for key, value in given.items() if key in names})
        network = from_recipe(content["network"], torch.Generator())
        _check_match(network, description)
        network.load_state_dict(content["weights"])
    except (PackageError, RunError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise DataError(f"{path}: its parts do not fit together ({first_line(error)})") from error
    return TrainedModel(network.eval(), description)


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    """A weight as it is written."""
    value = value.detach().cpu().contiguous()
    if not (half and value.is_floating_point()):
        return value
    if not bool(torch.isfinite(value.half()).all()):
        raise ValueError(f"{name}: must be within the 65504 of half precision, got {float(value.abs().max()):g}")
    return value.half()


def _described(description: ModelDescription) -> dict[str, Any]:
    """The description as it is written; of version 1 without what that has no word for."""
    fields = asdict(description)
    if not description.takes_heads:
        del fields["scaled_by"], fields["brain_share"]
    if not description.patch_size:
        del fields["patch_size"]
    return fields


def _check_match(network: UNet | Backbone, description: ModelDescription) -> None:
    if network.n_classes != len(description.class_names):
        raise ValueError(
            f"class_names: must name the network's {network.n_classes} classes, got {description.class_names}"
        )
    if network.ndim != len(description.shape):
        raise ValueError(f"shape: must have the network's {network.ndim} axes, got {description.shape}")
