"""How large everything is that `gpu.py` measures: as on a GPU, or as in a test of it on a CPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from common.bilevel_steps import Size


@dataclass(frozen=True)
class Precision:
    """How floating-point numbers are multiplied: whether in TF32 (on a GPU), and to what losses are cast, if at all."""

    tf32: bool
    autocast: torch.dtype | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context in which torch multiplies so. Without it convolutions on a GPU are in TF32, products are not."""
        flags = torch.backends.cuda.matmul, torch.backends.cudnn
        before = [one.allow_tf32 for one in flags]
        try:
            for one in flags:
                one.allow_tf32 = self.tf32
            yield
        finally:
            for one, value in zip(flags, before, strict=True):
                one.allow_tf32 = value


PRECISIONS = {"float32": Precision(False), "TF32": Precision(True), "bf16": Precision(True, torch.bfloat16)}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    device : str
    images : mapping of str to Size
        Batches of slices and of volumes, by what they are called.
    repeats : int
        Timed calls of each row, at most.
    items : tuple of two int
        Slices, and volumes, of a cache that batches are read from.
    workers : tuple of int
        Processes that make data, in turn.
    measured : int
        Steps whose wait for data is measured, after those that were made ahead.
    paper : tuple of str
        Settings of every study that make its ``paper`` preset smaller; none where it is to be measured as it is.
    noise : tuple of str
        What `metasynth run noise` is told beside the device and the folder.
    cohort : bool
        Whether that run has the embedded cohort, which it makes; else it has nested balls.
    """

    device: str
    images: Mapping[str, Size]
    repeats: int
    items: tuple[int, int]
    workers: tuple[int, ...]
    measured: int
    paper: tuple[str, ...] = ()
    noise: tuple[str, ...] = ("--preset", "standard")
    cohort: bool = True

    def with_precision(self, name: str, precision: str) -> Size:
        """The images of that name, with losses cast so."""
        own = self.images[name]
        return Size(own.size, own.batch, own.widths, own.ndim, self.device, PRECISIONS[precision].autocast)


WIDTHS = (16, 32, 64, 128)
_SMALL = ("segmenter.widths=4,8", "segmenter.batch_size=2", "outer.batch_size=2", "pace.workers=1")
_SMALL_NOISE = {
    "sigma": "0.1",
    "test": "0.1",
    "test_repeats": "1",
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": "6",
    "outer.batch_size": "2",
    "outer.warmup": "2",
    "pace.workers": "0",
}


def settings_of(size: str, device: str) -> Settings:
    """Those of a size, 'full' or 'small'."""
    full = {"192x192, batch 64": Size(192, 64, WIDTHS), "96x96x96, batch 2": Size(96, 2, WIDTHS, 3)}
    small = {"16x16, batch 2": Size(16, 2, (4, 8)), "16x16x16, batch 2": Size(16, 2, (4, 8), 3)}
    if size == "full":
        return Settings(device, full, repeats=7, items=(320, 16), workers=(2, 8), measured=24)
    noise = [word for key, value in _SMALL_NOISE.items() for word in ("--set", f"{key}={value}")]
    return Settings(device, small, 1, (20, 10), (1,), 2, _SMALL, ("--preset", "quick", *noise), cohort=False)
