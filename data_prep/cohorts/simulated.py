"""SIMULATED MR images of the embedded cohort: one person under several contrasts, and older people.

Not scans: the anatomy is one template under seeded deformations (see `warped`), the contrast comes from signal
equations and published relaxation times (see `metasynth.synthesis.tissue`, `sequences`, `mri`). Everything says so: the
names of files and subjects and the attributes of the cache.

People are given by group and index. "young" is the template's own age (18 to 43 years); the same index is the same
person in the MPRAGE and the four FLASH sets, with the same anatomy, planes, relaxation times and coils, so a split by
subjects must be made by name, across sets. "older" are other people, aged as `ageing` describes. No person of either
group is one of the template's own cohorts.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from metasynth.data_prep.cohorts.ageing import Ageing, AgeingModel, load_ageing
from metasynth.data_prep.cohorts.anatomy import STRUCTURE_NAMES, TARGET, Anatomy, structure_fractions
from metasynth.data_prep.cohorts.template import CLASS_NAMES, SOURCE, load_template
from metasynth.data_prep.cohorts.tissue_maps import SHARPNESS, TISSUES, load_tissue_maps
from metasynth.data_prep.cohorts.warped import MAPPING, CohortSpec, draw_anatomy, pixel_axes
from numpy.typing import NDArray

from metasynth import __version__
from metasynth.data.cache import CacheInfo, write_cache
from metasynth.data.info import SIMULATED
from metasynth.errors import UsageError
from metasynth.synthesis.coils import draw_receive, draw_transmit, receive_field, transmit_field
from metasynth.synthesis.mri import scaled, simulate
from metasynth.synthesis.sequences import Flash, Mprage, PulseSequence
from metasynth.synthesis.tissue import TissueSpread, draw_person, tissue_table

FloatArray = NDArray[np.floating]

SIMULATION_RECIPE = 1  # raise it whenever the same specification would give other slices
FIELD_TESLA = 3.0
CONTRASTS: dict[str, PulseSequence] = {
    "mprage": Mprage(),
    "flash-3": Flash(3.0),
    "flash-5": Flash(5.0),
    "flash-20": Flash(20.0),
    "flash-30": Flash(30.0),
}
GROUP_SEEDS = {"young": 1, "older": 2}  # the template's own cohorts have 0
# Noise in each channel of a pixel, relative to fully relaxed water, and the standard deviation of its logarithm over
# people: white matter then has about 20 times the noise's standard deviation in MPRAGE and FLASH 3 and 40 in FLASH 20.
NOISE_SD, NOISE_SPREAD = 0.0015, 0.15
_LARGEST_PART_MM = 1.0
# Streams of random numbers of a person, beside the anatomy's own [seed, subject].
_AGEING, _PERSON, _NOISE = 1, 2, 3


@dataclass(frozen=True)
class SimulatedSpec:
    """A set of simulated images.

    Attributes
    ----------
    cohort : CohortSpec
        Name, size and seed; people of another seed are other people.
    contrast : str
        One of CONTRASTS.
    group : str
        One of GROUP_SEEDS: "young" or "older".
    structures : bool
        Whether the label maps have the generation labels of `anatomy`: the same images and classes.

    Raises
    ------
    UsageError
        A value is not allowed.
    """

    cohort: CohortSpec
    contrast: str
    group: str
    structures: bool = False

    def __post_init__(self) -> None:
        if self.contrast not in CONTRASTS:
            raise UsageError(f"contrast must be one of {', '.join(CONTRASTS)}, got {self.contrast!r}")
        if self.group not in GROUP_SEEDS:
            raise UsageError(f"group must be one of {', '.join(GROUP_SEEDS)}, got {self.group!r}")

    @classmethod
    def like(cls, cohort: CohortSpec, contrast: str, group: str) -> "SimulatedSpec":
        """A set as large as a cohort "template-64", of other people: "mprage-young-64", "flash-3-64"."""
        size = cohort.name.rpartition("-")[2]
        stem = f"mprage-{group}" if contrast == "mprage" else contrast
        return cls(replace(cohort, name=f"{stem}-{size}", seed=GROUP_SEEDS[group]), contrast, group)

    @property
    def name(self) -> str:
        """Name of the set."""
        return f"{self.cohort.name}-structures" if self.structures else self.cohort.name

    @property
    def sequence(self) -> PulseSequence:
        """The pulse sequence of the contrast."""
        return CONTRASTS[self.contrast]

    @property
    def file_name(self) -> str:
        """Name of the cache: "simulated", the set's name and a hash of all that it is made by."""
        described = {key: value for key, value in asdict(self).items() if key != "structures" or value}
        made_by = [described, SIMULATION_RECIPE, FIELD_TESLA, NOISE_SD, NOISE_SPREAD, SHARPNESS]
        made_by += [repr(part) for part in (self.sequence, TissueSpread(), AgeingModel())]
        key = json.dumps(made_by, sort_keys=True)
        return f"simulated-{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.h5"

    def build(self, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
        """Make the set's cache: see `build_simulated`."""
        return build_simulated(self, path, progress)


def build_simulated(spec: SimulatedSpec, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Simulate the images and write their cache to `path`; returns the digest.

    Images (N, H, W) float16: 0 outside the brain; the 1 % and 99 % quantiles over all pixels of a subject's slices are
    taken to 0 and 1. Labels (N, H, W): those of `Anatomy`. Rows and columns as those of the template's cohorts.

    Raises
    ------
    DataError
        The file cannot be written.
    RunError
        A deformation folds.
    """
    cohort = spec.cohort
    template = load_template()
    fine = f"; images are synthesised from {len(STRUCTURE_NAMES) - 1} structures" if spec.structures else ""
    labels, images, slice_index = [], [], []
    for subject in range(cohort.n_subjects):
        anatomy = draw_person_anatomy(spec, subject)
        labels.append(anatomy.labels())
        images.append(scan(spec, subject, anatomy).astype(np.float16))
        slice_index.append((anatomy.planes - template.file_y).astype(np.int32))
        if progress is not None:
            progress(subject + 1, cohort.n_subjects)
    return write_cache(
        path,
        labels=np.concatenate(labels),
        images=np.concatenate(images),
        subject=np.repeat(np.arange(cohort.n_subjects), cohort.slices_per_subject),
        subjects=[f"simulated-{spec.group}-{i:03d}" for i in range(cohort.n_subjects)],
        slice_index=np.concatenate(slice_index),
        info=CacheInfo(
            class_names=CLASS_NAMES,
            mapping=f"{SIMULATED}; {MAPPING}; the largest fraction of a pixel{fine}",
            spacing_mm=(cohort.spacing_mm, cohort.spacing_mm),
            axis="coronal",
            orientation="IR",
            source=f"{_described(spec)} {SOURCE}",
            created_by=f"metasynth {__version__} prep template",
            generation_names=STRUCTURE_NAMES if spec.structures else (),
            target=TARGET if spec.structures else (),
        ),
    )


def _described(spec: SimulatedSpec) -> str:
    aged = " with enlarged ventricles and a thinned cortex" if spec.group == "older" else ""
    return (
        f"{SIMULATED} MR images, not scans: {spec.group} group{aged}, {spec.sequence} at {FIELD_TESLA:g} T by signal "
        "equations from published relaxation times, with partial volume, coil fields and Rician noise."
    )


def draw_person_anatomy(spec: SimulatedSpec, subject: int) -> Anatomy:
    """Draw one person and find what every pixel of the slices holds, from parts of pixels of at most 1 mm.

    Raises
    ------
    RunError
        The deformation folds.
    """
    cohort = spec.cohort
    template, maps = load_template(), load_tissue_maps()
    warp, planes = draw_anatomy(cohort, subject, template)
    parts = max(2, int(np.ceil(cohort.spacing_mm / _LARGEST_PART_MM)))
    y, z, x = np.meshgrid(planes, *pixel_axes(cohort, parts), indexing="ij")
    points = warp(np.stack([x, y, z])).reshape(3, -1) - np.asarray(template.origin)[:, None]
    ageing = Ageing()
    if spec.group == "older":
        tables = load_ageing()
        ageing = tables.draw(np.random.default_rng([cohort.seed, subject, _AGEING]), AgeingModel())
        near = maps.brain.at(points) > 0  # a millimetre around the brain is in it: growth hardly reaches its surface
        points[:, near] = tables.younger(points[:, near], ageing.growth_mm)
    # The parts of a pixel side by side: (3, pixels, parts of one).
    split = points.reshape(3, len(planes), cohort.shape[0], parts, cohort.shape[1], parts)
    points = split.swapaxes(3, 4).reshape(3, -1, parts**2)
    # Pixels less than half of which is brain are stripped off; what the others have of it outside is fluid.
    brain = maps.brain.at(points.reshape(3, -1)).reshape(points.shape[1:]) >= 0.5
    inside = brain.mean(axis=1) >= 0.5
    sample = maps.sample(points[:, inside].reshape(3, -1), ageing.fluid_gain)
    found = [sample.tissues, sample.classes(), *([structure_fractions(sample)] if spec.structures else [])]
    kept = [np.zeros((len(values), len(inside)), dtype=np.float32) for values in found]
    for whole, values in zip(kept, found, strict=True):
        whole[:, inside] = values.reshape(len(values), -1, parts**2).mean(axis=2)
    kept[1][0, ~inside] = 1.0
    shape = (-1, len(planes), *cohort.shape)
    tissues, classes, *structures = (whole.reshape(shape).swapaxes(0, 1) for whole in kept)
    return Anatomy(tissues, classes, planes, *structures)


def scan(spec: SimulatedSpec, subject: int, anatomy: Anatomy) -> FloatArray:
    """Images (n, H, W) float32 in [0, 1] of one person's slices: the same person and coils under every contrast."""
    cohort = spec.cohort
    person = _generator(cohort.seed, subject, _PERSON)
    tissues = draw_person(tissue_table(TISSUES, FIELD_TESLA), TissueSpread(), person)
    transmit, receive = draw_transmit(person), draw_receive(person)
    spread = torch.randn(1, dtype=torch.float64, generator=person)
    y, z, x = np.meshgrid(anatomy.planes, *pixel_axes(cohort), indexing="ij")
    points = torch.from_numpy(np.stack([x, y, z], axis=-1))
    image = simulate(
        torch.from_numpy(anatomy.tissues).double(),
        tissues,
        spec.sequence,
        transmit_field(transmit, points),
        receive_field(receive, points),
        NOISE_SD * float(torch.exp(NOISE_SPREAD * spread)),
        _generator(cohort.seed, subject, _NOISE, list(CONTRASTS).index(spec.contrast)),
    )
    brain = torch.from_numpy(anatomy.tissues.sum(axis=1) > 0)
    return scaled(image[:, 0] * brain).float().numpy()


def _generator(*key: int) -> torch.Generator:
    """Random numbers of their own for every key."""
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))
