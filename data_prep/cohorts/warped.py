"""Coronal slices of "subjects" that are seeded deformations of one labelled template, with its own T1 image.

It is real anatomy that needs no download, and it is one average brain: subjects differ in shape only, so what
is learned on it says how a method works, not how well it would do on people.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from metasynth.data_prep.cohorts.template import CLASS_NAMES, SOURCE, Template, load_template
from metasynth.data_prep.cohorts.warp import Warp, WarpModel, draw_warp
from numpy.typing import NDArray
from scipy import ndimage

from metasynth import __version__
from metasynth.data.cache import CacheInfo, write_cache
from metasynth.errors import UsageError

FloatArray = NDArray[np.floating]

RECIPE = 1  # raise it whenever the same specification would give other slices
SLICES_MM = (-26.0, 18.0)  # from the pulvinar and the trigone to the head of the caudate
CENTRE_Z_MM = 5.0
SMALLEST_FIELD_MM = (168.0, 160.0)  # the template's brain is 155 mm high and 144 mm wide in these planes
MAPPING = (
    "template structures: background (with the cerebellum and all fluid outside the ventricles), white "
    "matter (with the brain stem and hypothalamus), cortical grey, subcortical grey (caudate, accumbens, "
    "putamen, pallidum, thalamus, hippocampus, amygdala), ventricles (lateral and third)"
)


@dataclass(frozen=True)
class CohortSpec:
    """What a cohort is made of; the same specification always gives the same cohort.

    Attributes
    ----------
    name : str
        Name of the cohort, part of its file's name.
    n_subjects : int
        Number of deformations.
    slices_per_subject : int
        Coronal slices of each, evenly spaced from a random start; at most 44.
    spacing_mm : float
        In-plane distance between pixel centres.
    shape : tuple (int, int)
        (H, W) in pixels; must cover 168 x 160 mm.
    seed : int
        Seed of all randomness.

    Raises
    ------
    UsageError
        A value is not allowed.
    """

    name: str
    n_subjects: int
    slices_per_subject: int
    spacing_mm: float
    shape: tuple[int, int]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"name must be letters, digits, '-' and '_', got {self.name!r}")
        if self.n_subjects < 1:
            raise UsageError(f"n_subjects must be at least 1, got {self.n_subjects}")
        most = int(SLICES_MM[1] - SLICES_MM[0])
        if not 1 <= self.slices_per_subject <= most:
            raise UsageError(f"slices_per_subject must be 1 to {most}, got {self.slices_per_subject}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")
        if not 0 < self.spacing_mm < np.inf:
            raise UsageError(f"spacing_mm must be a positive number, got {self.spacing_mm}")
        field = tuple(n * self.spacing_mm for n in self.shape)
        if len(field) != 2 or any(f < s for f, s in zip(field, SMALLEST_FIELD_MM, strict=True)):
            covered = " x ".join(f"{f:g}" for f in field)
            raise UsageError(
                f"shape {self.shape} at {self.spacing_mm} mm covers {covered} mm; "
                f"a brain needs {SMALLEST_FIELD_MM[0]:g} x {SMALLEST_FIELD_MM[1]:g} mm"
            )

    @property
    def file_name(self) -> str:
        """Name of the cache: the cohort's name and a hash of the specification and the recipe."""
        key = json.dumps({**asdict(self), "recipe": RECIPE}, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.h5"

    def build(self, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
        """Make the cohort's cache: see `build_cohort`."""
        return build_cohort(self, path, progress)


def build_cohort(spec: CohortSpec, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Make the cohort and write its cache to `path`; returns the digest.

    Images (N, H, W) float16: the deformed T1, 0 outside the brain, divided by its 99.5 % quantile in the
    subject's slices and cut at 1. Labels (N, H, W): each class's indicator, smoothed in the plane to the
    pixel size and deformed with linear interpolation; the largest wins. Rows go from superior to inferior,
    columns from the subject's left to right.

    Raises
    ------
    DataError
        The file cannot be written.
    RunError
        A deformation folds.
    """
    template = load_template()
    volumes = _volumes(template, spec.spacing_mm)
    labels, images, slice_index = [], [], []
    for subject in range(spec.n_subjects):
        warp, planes = draw_anatomy(spec, subject, template)
        label, image = _slices(volumes, template.origin, warp, planes, spec)
        labels.append(label)
        images.append(image)
        slice_index.append((planes - template.file_y).astype(np.int32))
        if progress is not None:
            progress(subject + 1, spec.n_subjects)
    return write_cache(
        path,
        labels=np.concatenate(labels),
        images=np.concatenate(images),
        subject=np.repeat(np.arange(spec.n_subjects), spec.slices_per_subject),
        subjects=[f"{spec.name}-{i:03d}" for i in range(spec.n_subjects)],
        slice_index=np.concatenate(slice_index),
        info=CacheInfo(
            class_names=CLASS_NAMES,
            mapping=MAPPING,
            spacing_mm=(spec.spacing_mm, spec.spacing_mm),
            axis="coronal",
            orientation="IR",
            source=SOURCE,
            created_by=f"metasynth {__version__} prep template",
        ),
    )


def _volumes(template: Template, spacing_mm: float) -> list[FloatArray]:
    """T1, brain mask, then the indicator of every class, each (X, Y, Z) float32, smoothed in coronal planes.

    Sampling a 1 mm volume at a coarser spacing needs the detail between the samples averaged: the Gaussian
    has the full width at half maximum that takes 1 mm to the spacing.
    """
    sigma = np.sqrt(max(spacing_mm**2 - 1.0, 0.0)) / 2.355
    masks = [template.t1 > 0, *(template.labels == k for k in range(len(CLASS_NAMES)))]
    volumes = [template.t1, *(mask.astype(np.float32) for mask in masks)]
    return [ndimage.gaussian_filter(volume, (sigma, 0.0, sigma), mode="constant") for volume in volumes]


def draw_anatomy(spec: CohortSpec, subject: int, template: Template) -> tuple[Warp, FloatArray]:
    """Deformation and coronal planes (n,) in mm of one subject, whatever the number of subjects.

    Raises
    ------
    RunError
        The deformation folds.
    """
    rng = np.random.default_rng([spec.seed, subject])
    x, y, z = (start + n - 1 for start, n in zip(template.origin, template.t1.shape, strict=True))
    return draw_warp(rng, template.origin, (x, y, z), WarpModel()), _draw_planes(rng, spec.slices_per_subject)


def pixel_axes(spec: CohortSpec, finer: int = 1) -> tuple[FloatArray, FloatArray]:
    """Coordinates in mm of rows (z, falling) and columns (x, growing), of every pixel or of its parts.

    Parameters
    ----------
    spec : CohortSpec
        The cohort.
    finer : int
        Parts of a pixel along each axis.
    """
    height, width = (n * finer for n in spec.shape)
    step = spec.spacing_mm / finer
    return CENTRE_Z_MM - step * (np.arange(height) - (height - 1) / 2), step * (np.arange(width) - (width - 1) / 2)


def _draw_planes(rng: np.random.Generator, n: int) -> FloatArray:
    """(n,) whole mm along y, evenly spaced in SLICES_MM from a common random start, all different."""
    step = (SLICES_MM[1] - SLICES_MM[0]) / n
    return np.floor(SLICES_MM[0] + step * (np.arange(n) + rng.random()))


def _slices(
    volumes: list[FloatArray],
    origin: tuple[float, float, float],
    warp: Warp,
    planes: FloatArray,
    spec: CohortSpec,
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels and images (n, H, W) of one subject at the coronal planes (n,)."""
    z, x = pixel_axes(spec)
    y, z, x = np.meshgrid(planes, z, x, indexing="ij")
    points = warp(np.stack([x, y, z])) - np.asarray(origin).reshape(3, 1, 1, 1)
    t1, brain, *classes = (ndimage.map_coordinates(volume, points, order=1, mode="constant") for volume in volumes)
    inside = brain >= 0.5
    scale = np.quantile(t1[inside], 0.995)
    image = np.where(inside, np.clip(t1 / scale, 0.0, 1.0), 0.0)
    # Outside the brain no class has a value at all, and the first of equals is the background.
    label = np.argmax(np.stack(classes), axis=0) * inside
    return label.astype(np.uint8), image.astype(np.float16)
