"""The embedded cohort: coronal slices of "subjects" that are seeded deformations of one labelled template.

It is real anatomy that needs no download, and it is one average brain: subjects differ in shape only, so what
is learned on it says how a method works, not how well it would do on people. A cohort is made once, kept in
the user's cache folder and checked by its digest afterwards.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from metasynth.data_prep.template import CLASS_NAMES, SOURCE, Template, load_template
from metasynth.data_prep.warp import Warp, WarpModel, draw_warp
from numpy.typing import NDArray
from scipy import ndimage

from metasynth.data.cache import CacheInfo, verify_digest, write_cache
from metasynth.errors import DataError, UsageError

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

    Attributes:
        name: Name of the cohort, part of its file's name.
        n_subjects: Number of deformations.
        slices_per_subject: Coronal slices of each, evenly spaced from a random start; at most 44.
        spacing_mm: In-plane distance between pixel centres.
        shape: (H, W) in pixels; must cover 168 x 160 mm.
        seed: Seed of all randomness.

    Raises:
        UsageError: A value is not allowed.

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


COHORTS = {
    spec.name: spec
    for spec in (
        CohortSpec("template-64", n_subjects=30, slices_per_subject=6, spacing_mm=3.0, shape=(64, 64)),
        CohortSpec("template-96", n_subjects=40, slices_per_subject=8, spacing_mm=2.0, shape=(96, 96)),
        CohortSpec("template-192", n_subjects=60, slices_per_subject=10, spacing_mm=1.0, shape=(192, 192)),
    )
}


def cache_folder() -> Path:
    """The user's cache folder: METASYNTH_CACHE, else the platform's own place for caches."""
    chosen = os.environ.get("METASYNTH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "metasynth"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "metasynth" / "Cache"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metasynth"


def ensure_cohort(
    spec: CohortSpec,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Path:
    """Path of the cohort's cache, made first where it is absent or damaged.

    Two processes may make the same cohort at once: each writes its own temporary file and renames it.

    Args:
        spec: The cohort.
        folder: Where caches are kept; the user's cache folder by default. Made where absent.
        progress: Called with (subjects done, subjects in all) while the cohort is made.
        notice: Called with a line of text when a damaged cache is rebuilt; standard error by default.

    Raises:
        DataError: The folder or the file cannot be written.

    """
    folder = cache_folder() if folder is None else Path(folder)
    path = folder / spec.file_name
    if path.exists():
        damage = _damage(path)
        if damage is None:
            return path
        say = notice or (lambda line: print(line, file=sys.stderr))
        say(f"{path}: the kept cohort is damaged ({damage}); making it again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    build_cohort(spec, path, progress)
    return path


def _damage(path: Path) -> str | None:
    """What is wrong with a kept cache, None when nothing is."""
    try:
        return None if verify_digest(path) else "its content does not match its digest"
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def build_cohort(spec: CohortSpec, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Make the cohort and write its cache to `path`; returns the digest.

    Images (N, H, W) float16: the deformed T1, 0 outside the brain, divided by its 99.5 % quantile in the
    subject's slices and cut at 1. Labels (N, H, W): each class's indicator, smoothed in the plane to the
    pixel size and deformed with linear interpolation; the largest wins. Rows go from superior to inferior,
    columns from the subject's left to right.

    Raises:
        DataError: The file cannot be written.
        RunError: A deformation folds.

    """
    template = load_template()
    volumes = _volumes(template, spec.spacing_mm)
    low = template.origin
    high = tuple(start + n - 1 for start, n in zip(low, template.t1.shape, strict=True))
    labels, images, slice_index = [], [], []
    for subject in range(spec.n_subjects):
        rng = np.random.default_rng([spec.seed, subject])
        warp = draw_warp(rng, low, (high[0], high[1], high[2]), WarpModel())
        planes = _draw_planes(rng, spec.slices_per_subject)
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
            created_by=f"metasynth {version('metasynth')} prep template",
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
    height, width = spec.shape
    z = CENTRE_Z_MM - spec.spacing_mm * (np.arange(height) - (height - 1) / 2)
    x = spec.spacing_mm * (np.arange(width) - (width - 1) / 2)
    y, z, x = np.meshgrid(planes, z, x, indexing="ij")
    points = warp(np.stack([x, y, z])) - np.asarray(origin).reshape(3, 1, 1, 1)
    t1, brain, *classes = (ndimage.map_coordinates(volume, points, order=1, mode="constant") for volume in volumes)
    inside = brain >= 0.5
    scale = np.quantile(t1[inside], 0.995)
    image = np.where(inside, np.clip(t1 / scale, 0.0, 1.0), 0.0)
    # Outside the brain no class has a value at all, and the first of equals is the background.
    label = np.argmax(np.stack(classes), axis=0) * inside
    return label.astype(np.uint8), image.astype(np.float16)
