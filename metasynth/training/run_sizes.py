"""Whether a run fits the machine, told from its settings and its caches before its folder is made.

What is counted is what is certainly needed (see `metasynth.sizes`): the tensors that a step keeps for its backward
pass, told by a pass on torch's meta device, which computes nothing; the draws of the generator; the test images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metasynth.data.cache import Cache
from metasynth.errors import MetasynthError, PackageError, UsageError
from metasynth.segment.table import entry_of
from metasynth.sizes import available_memory, convolutions, require_disk, require_memory, require_processes
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.text import by
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings

FLOAT, LABEL = 4, 8  # bytes
_RECORD = 60  # bytes of a line with nothing but a stage, a step and a loss
_ADAM = 4  # of each weight: itself, its gradient and two moments
_SD_PER_FWHM = 1 / 2.355


class Settings(Protocol):
    """The part of a study's configuration that decides about sizes."""

    @property
    def segmenter(self) -> SegmenterSettings:
        """The inner problem."""

    @property
    def outer(self) -> OuterSettings:
        """The outer problem."""

    @property
    def pace(self) -> Pace:
        """Checkpoints and workers."""

    @property
    def synthesis(self) -> CornucopiaConfig:
        """The generator."""


@dataclass(frozen=True)
class Items:
    """What the items of a cache are, as far as sizes go; of ``n_generation`` labels those of its label maps."""

    n_classes: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    per_subject: tuple[int, ...]
    n_generation: int

    @classmethod
    def of(cls, path: Path, maps: Path | None = None) -> "Items":
        """Those of a cache that was checked before; ``maps``: another one that the label maps are of."""
        with Cache(path, check_values=False) as cache, Cache(maps or path, check_values=False) as labels:
            counts = np.bincount(cache.subject_index).tolist()
            return cls(cache.n_classes, cache.shape, cache.info.spacing_mm, tuple(counts), labels.n_generation)

    @property
    def voxels(self) -> int:
        """Of one item."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def by(self) -> str:
        """'64 x 64'."""
        return by(self.shape)

    def part(self, window: tuple[int, ...]) -> "Items":
        """Patches of them; the same where ``window`` is empty."""
        return replace(self, shape=window) if window else self

    def fewest(self, subjects: int) -> int:
        """Items that so many subjects have at least."""
        return sum(sorted(self.per_subject)[:subjects])


def require_run(settings: Settings, items: Items, out: Path, **others: CornucopiaConfig) -> None:
    """Refuse a run whose steps, records or processes the machine cannot hold.

    Parameters
    ----------
    settings : Settings
        Its configuration.
    items : Items
        Of its cache.
    out : Path
        Its folder, which need not be there.
    **others : CornucopiaConfig
        Further generators, by the names of their settings.

    Raises
    ------
    UsageError
        Which names the settings and the memory that they would take.
    """
    require_processes(settings.pace.workers, "pace.workers")
    segmenter, outer = settings.segmenter, settings.outer
    whole, items = items, items.part(segmenter.window)
    records = f"a record of each of {segmenter.steps} steps"
    require_disk(_RECORD * segmenter.steps, records, "segmenter.steps", out)
    cut = ", segmenter.patch_size" if len(items.shape) == 3 else ""
    named = f"segmenter.batch_size, segmenter.{segmenter.sized_by}{cut}"
    for batch, setting in ((segmenter.batch_size, named), (outer.batch_size, "outer.batch_size")):
        what = f"a step on {batch} images of {items.by}"
        require_memory(batch * whole.voxels * (FLOAT + LABEL), what, setting)  # they are read whole
        require_memory(step_bytes(segmenter, items, batch), what, setting, _largest_memory())
    for name, config in {"synthesis": settings.synthesis, **others}.items():
        require_synthesis(config, items, segmenter.batch_size, name)


def require_synthesis(config: CornucopiaConfig, items: Items, batch: int, name: str) -> None:
    """UsageError, which names the setting, if the draws of a generator cannot be held."""
    ndim = len(items.shape)
    reach = _SD_PER_FWHM * 4 * batch / min(items.spacing_mm)  # of a smoothing, in voxels
    for setting, size in (
        ("elastic_nodes", batch * ndim * config.elastic_nodes**ndim),
        ("bias", batch * int(config.bias) ** ndim),
        ("gmm_fwhm", int(reach * config.gmm_fwhm) * (items.n_generation - 1)),
        ("motion_fwhm", int(reach * config.motion_fwhm)),
    ):
        what = f"drawing {batch} images with {getattr(config, setting):g}"
        require_memory(FLOAT * size, what, f"{name}.{setting}")


def require_network(widths: Sequence[int], items: Items, batch: int, setting: str) -> None:
    """UsageError if a network that halves from width to width cannot be held with the features of a batch."""
    ndim = len(items.shape)
    size = convolutions(widths, ndim, items.shape, batch)
    require_memory(size, f"a step on {batch} images of {items.by}", setting, _largest_memory())


def require_horizon(
    outer: OuterSettings, items: Items, batch: int, step: int, setting: str, name: str = "outer"
) -> None:
    """Refuse a hypergradient of several inner steps whose batches and graphs cannot be held.

    Those of about the square root of its steps are there at a time, see `metasynth.bilevel.strategies.segments`.

    Parameters
    ----------
    outer : OuterSettings
        How many steps.
    items : Items
        Of the cache.
    batch : int
        Inner examples a step.
    step : int
        Bytes that one step certainly keeps: its features, and weights, gradient and moments after it.
    setting : str
        What decides about these besides.
    name : str
        Of the group of settings that ``outer`` is.

    Raises
    ------
    UsageError
        Which names the settings and the memory that they would take.
    """
    if outer.horizon == 1:
        return
    what = f"a hypergradient of {outer.horizon} steps on {batch} images of {items.by}"
    size = outer.horizon * batch * items.voxels * (FLOAT + LABEL) + math.ceil(math.sqrt(outer.horizon)) * step
    require_memory(size, what, f"{name}.horizon, {setting}", _largest_memory())


def require_nodes(nodes: Sequence[int], items: Items, batch: int, setting: str) -> None:
    """UsageError if the grids of random fields cannot be held."""
    size = FLOAT * batch * sum(n ** len(items.shape) for n in nodes)
    require_memory(size, f"drawing {batch} fields", setting)


def step_bytes(settings: SegmenterSettings, items: Items, batch: int) -> int:
    """Bytes of the segmenter with its optimiser and of what a training step on ``batch`` images keeps of its forward
    pass; 0 for a network whose shapes cannot be followed without computing.

    Raises
    ------
    UsageError
        (a ValueError) when torch cannot count so many.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    try:
        with torch.device("meta"):
            model = settings.build(items.n_classes, len(items.shape), None, items.shape, items.spacing_mm)
        images = torch.empty(batch, 1, *items.shape, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(images)
    except PackageError:
        raise
    except Exception as error:  # of a network of others any may come
        if not entry_of(settings.network).counted and "overflow" not in str(error):
            return 0
        if not isinstance(error, MetasynthError | RuntimeError | ValueError):
            raise
        sizes = f"segmenter.{settings.sized_by}, segmenter.batch_size"
        raise UsageError(f"{sizes}: more than torch can count: {error}") from error
    weights = sum(p.numel() for p in model.parameters()) * FLOAT
    features = sum(kept.values()) + logits.untyped_storage().nbytes()
    return _ADAM * weights + features // (2 if settings.autocast == "bfloat16" else 1)


def _largest_memory() -> int:
    """Bytes of the largest memory that a step can be taken in: the machine's, or that of a GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return max([available_memory(), *(torch.cuda.get_device_properties(i).total_memory for i in range(count))])
