"""Training images as a raw data set of nnU-Net (version 2; its documentation/dataset_format.md).

A slice is a NIfTI file of one plane. nnU-Net takes the axis of the largest spacing, and of equal ones the last of a
file, for that of the planes: the plane is the last axis here, and as thick as its voxels are wide.
"""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt
from numpy.typing import NDArray
from torch import Tensor

from metasynth import __version__
from metasynth.data.cache import CacheInfo
from metasynth.data.dataset import draw_items
from metasynth.data_prep.datasets.nnunet import IMAGES, LABELS
from metasynth.data_prep.datasets.nnunet_labels import NAME
from metasynth.errors import UsageError
from metasynth.export.run_images import RunImages
from metasynth.export.whole_folder import require_free, whole_folder
from metasynth.interrupts import check
from metasynth.predict.geometry import stack_orientation
from metasynth.running.seeding import generator_for
from metasynth.text import shortened

ENDING = ".nii.gz"
CHANNEL = "synthetic"
"""What the channel is called; nnU-Net scales any name that it does not know by mean and standard deviation."""
_FOLDER = re.compile(r"Dataset[0-9]{3}_\w[\w-]*", re.ASCII)


def check_name(out: Path) -> None:
    """UsageError unless nnU-Net takes a folder of that name for a data set, and it can be made."""
    if not _FOLDER.fullmatch(out.name):
        raise UsageError(
            f"--out {shortened(str(out))}: expected a folder called DatasetXXX_Name, as Dataset501_Synthetic"
        )
    require_free(out)


def write_nnunet(
    made: RunImages, out: Path, n: int, seed: int = 0, progress: Callable[[], None] = lambda: None
) -> None:
    """Write training images of a run with their label maps.

    The same run and seed give the same images, and a larger n goes on with others.

    Parameters
    ----------
    made : RunImages
        The images.
    out : Path
        DatasetXXX_Name, which is absent or empty.
    n : int
        How many, at least 1.
    seed : int
        Of the label maps and images that are drawn.
    progress : callable
        Called after every image.

    Raises
    ------
    UsageError
        As `check_name`.
    RunError
        A file cannot be written.
    """
    check_name(out)
    dataset, info = made.images.dataset, made.images.dataset.cache.info
    items = draw_items(dataset, n, generator_for(seed, "export", "items"))
    with whole_folder(out) as folder:
        for name in (IMAGES, LABELS):
            (folder / name).mkdir()
        for number, item in enumerate(items.tolist()):
            check()
            batch = dataset.read([item])
            # One at a time, each from a seed of its own: no image depends on how many are made.
            example = made.images.source(batch, generator_for(seed, "export", number))
            assert example.images is not None
            case = f"{_plain(dataset.subjects[int(batch.subject)])}-{number:05d}"
            view = info.views[int(dataset.view[item])], info.spacing_mm
            _write(folder / IMAGES / f"{case}_0000{ENDING}", example.images[0, 0], np.float32, *view)
            _write(folder / LABELS / f"{case}{ENDING}", example.labels[0], np.uint8, *view)
            progress()
        text = json.dumps(_description(made, info, n, seed), indent=2, ensure_ascii=False) + "\n"
        (folder / NAME).write_text(text, encoding="utf-8")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)[:80]


def _description(made: RunImages, info: CacheInfo, n: int, seed: int) -> dict[str, Any]:
    what = f"SYNTHETIC images of {info.shows}s as they were learned ({made.origin}), drawn with seed {seed}"
    return {
        "channel_names": {"0": CHANNEL},
        "labels": {name: k for k, name in enumerate(info.class_names)},
        "numTraining": n,
        "file_ending": ENDING,
        "description": what,
        "reference": info.source,
        "converted_by": f"metasynth {__version__} export nnunet",
        "metasynth": {
            "run": made.run,
            "experiment": made.experiment,
            "stage": made.stage,
            "seed": made.seed,
            "export_seed": seed,
            "cache_digest": info.digest,
            "mapping": info.mapping,
            "shows": info.shows,
        },
    }


def _write(path: Path, data: Tensor, kind: type[np.generic], orientation: str, spacing_mm: tuple[float, ...]) -> None:
    volume, affine = as_volume(data.numpy().astype(kind), orientation, spacing_mm)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def as_volume(
    data: NDArray[Any], orientation: str, spacing_mm: tuple[float, ...]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """An item (*S) of a cache as a volume and its affine (4, 4): columns, rows, and planes or the one plane.

    Its middle lies at 0.

    Parameters
    ----------
    data : numpy.ndarray
        (H, W), or (D, H, W).
    orientation : str
        Where each axis grows to, a letter each.
    spacing_mm : tuple of float
        Of each axis; a plane is as thick as its largest.
    """
    letters = stack_orientation(orientation)
    spacing = (max(spacing_mm), *spacing_mm)[-3:]
    volume = data.reshape((1, *data.shape)[-3:]).transpose()
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, ((body, sign), step) in enumerate(zip(axcodes2ornt(letters[::-1]), spacing[::-1], strict=True)):
        affine[int(body), axis] = sign * step
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(volume.shape) - 1) / 2)
    return volume, affine
