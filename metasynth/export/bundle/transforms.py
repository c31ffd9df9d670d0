"""Steps of the preprocessing that MONAI's own transforms have no word for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    CropForeground,
    CropForegroundd,
    InvertibleTransform,
    MapTransform,
    SpatialResample,
    generate_spatial_bounding_box,
)
from monai.utils import TraceKeys
from numpy.typing import NDArray
from scipy import ndimage

Data = dict[Hashable, Any]
BRAIN = "brain"
AIR = 0.1
SAME = 1e-3  # relative difference of spacings that needs no resampling


class ScaleHeadd(MapTransform):
    """Images (1, X, Y, Z) of whole heads to [0, 1]: from the level of air to the 99 % quantile of what is not air."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        """The data with scaled images."""
        found = dict(data)
        for key in self.key_iterator(found):
            values = _values(found[key])
            values = np.where(np.isfinite(values), values, min(0.0, values[np.isfinite(values)].min()))
            low, high = np.quantile(values, 0.01), np.quantile(values, 0.99)
            high = high if high > low else values.max()
            high = np.quantile(values[values > low + AIR * (high - low)], 0.99)
            found[key] = _like(found[key], np.clip((values - low) / (high - low), 0, 1))
        return found


class ScaleBraind(MapTransform):
    """Images (1, X, Y, Z) of brains to [0, 1], between two quantiles of what is not background.

    With ``strip`` what is background becomes 0, and the key "brain" (2, X, Y, Z) is where the image is above 0 then,
    and where it is not background, holes filled.
    """

    def __init__(self, keys: KeysCollection, low: float = 1.0, high: float = 99.0, strip: bool = True) -> None:
        super().__init__(keys)
        self.percentiles, self.strip = (low, high), strip

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        """The data with scaled images."""
        found = dict(data)
        for key in self.key_iterator(found):
            values = _values(found[key])
            brain = not_background(values[0])[None]
            low, high = np.percentile(values[brain], self.percentiles)
            scaled = np.clip((values - low) / (high - low), 0, 1)
            if self.strip:
                scaled[~brain] = 0
                found[BRAIN] = _like(found[key], np.stack([scaled[0] > 0, ndimage.binary_fill_holes(brain[0])]))
            found[key] = _like(found[key], scaled)
        return found


class ResampleToSpacingd(MapTransform, InvertibleTransform):
    """Images (C, X, Y, Z) with voxels of a spacing, on a grid that covers the field about its centre.

    Before they are resampled to coarser voxels they are smoothed, so that what lies between the samples counts. Along
    an axis whose spacing is to be 0 or less, and where they have the spacing already, they stay as they are.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float]) -> None:
        super().__init__(keys)
        self.pixdim = np.asarray(pixdim, dtype=float)
        self.resample = SpatialResample(mode="bilinear", padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        """The data with such images."""
        found = dict(data)
        for key in self.key_iterator(found):
            image = found[key]
            affine, shape = self._grid(np.asarray(image.affine, dtype=float), tuple(image.shape[1:]))
            image = self._smooth(image, affine, "constant")
            found[key] = self.resample(image, dst_affine=torch.from_numpy(affine), spatial_size=shape)
        return found

    def inverse(self, data: Mapping[Hashable, Any]) -> Data:
        """The data on the voxels that they had, smoothed likewise where these are coarser."""
        found = dict(data)
        for key in self.key_iterator(found):
            before = found[key].applied_operations[-1][TraceKeys.EXTRA_INFO]["src_affine"]
            found[key] = self.resample.inverse(self._smooth(found[key], np.asarray(before), "nearest"))
        return found

    def _grid(self, affine: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.float64], list[int]]:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        wanted = np.where(self.pixdim > 0, self.pixdim, own)
        if np.allclose(own, wanted, rtol=SAME, atol=0.0):
            return affine, list(shape)
        size = np.ceil(own * shape / wanted - 1e-6)
        made = np.eye(4)
        made[:3, :3] = affine[:3, :3] / own * wanted
        centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
        made[:3, 3] = centre - made[:3, :3] @ ((size - 1) / 2)
        return made, [int(n) for n in size]

    @staticmethod
    def _smooth(image: MetaTensor, affine: NDArray[np.float64], beyond: str) -> MetaTensor:
        """By a Gaussian whose full width at half maximum takes the image's spacing to that of the affine."""
        own, wanted = (np.linalg.norm(np.asarray(a)[:3, :3], axis=0) for a in (image.affine, affine))
        sigma = np.sqrt(np.maximum((wanted / own) ** 2 - 1.0, 0.0)) / 2.355
        if np.allclose(own, wanted, rtol=SAME, atol=0.0) or not sigma.any():
            return image
        smooth = [ndimage.gaussian_filter(c, sigma, mode=beyond, truncate=3.0) for c in _values(image)]
        return _like(image, np.stack(smooth))


class StripAgaind(MapTransform):
    """Images that were resampled are 0 where less than half of a voxel is brain, so that it keeps its edge."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        """The data with such images."""
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = _like(found[key], _values(found[key]) * (_values(found[BRAIN])[:1] > 0.5))
        return found


class WindowAboutContent(CropForeground):
    """The part of an image (C, X, Y, Z) that has the middle of its content in its middle, 0 where it reaches beyond.

    Each length is the content's, at least one of ``least``, rounded up to a multiple of ``k_divisible``.
    """

    def __init__(self, least: Sequence[int], divisors: Sequence[int], threshold: float) -> None:
        super().__init__(select_fn=lambda values: values > threshold, k_divisible=divisors, allow_smaller=False)
        self.least, self.divisors = np.asarray(least), np.asarray(divisors)

    def compute_bounding_box(self, img: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last-plus-one index of the part, (3,) each."""
        found = generate_spatial_bounding_box(img, self.select_fn, None, 0, False)
        first, stop = (np.asarray([int(n) for n in ends]) for ends in found)
        size = -(-np.maximum(self.least, stop - first) // self.divisors) * self.divisors
        start = (first + stop) // 2 - size // 2
        return start, start + size


class WindowAboutContentd(CropForegroundd):
    """The same of several images, about the content of one: what is above ``threshold`` in it."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str,
        least: Sequence[int],
        divisors: Sequence[int],
        threshold: float = 0.0,
    ) -> None:
        super().__init__(keys, source_key)
        self.cropper = WindowAboutContent(least, divisors, threshold)

    def inverse(self, data: Mapping[Hashable, Any]) -> Data:
        """Posteriors (K, X, Y, Z) in their place; around them all is background."""
        found = dict(super().inverse(data))
        for key in self.key_iterator(found):
            values = _values(found[key])
            values[0, ~values.any(axis=0)] = 1
            found[key] = _like(found[key], values)
        return found


class BackgroundOutsided(MapTransform):
    """Posteriors (K, X, Y, Z) that are background wherever there is no brain."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        """The data with such posteriors."""
        found = dict(data)
        for key in self.key_iterator(found):
            values = _values(found[key])
            outside = _values(found[BRAIN])[1] <= 0.5
            values[:, outside] = 0
            values[0, outside] = 1
            found[key] = _like(found[key], values)
        return found


def not_background(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where an image (X, Y, Z) has not the value that half of its outermost voxels have; everywhere without one."""
    faces = np.concatenate([image.take(at, axis).ravel() for axis in range(3) for at in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    if 2 * counts.max() < faces.size:
        return np.ones(image.shape, dtype=bool)
    background = values[counts.argmax()]
    return ~np.isnan(image) if np.isnan(background) else image != background


def _values(image: Any) -> NDArray[np.float32]:
    return np.array(torch.as_tensor(image).cpu().numpy(), dtype=np.float32)


def _like(image: MetaTensor, values: NDArray[Any]) -> MetaTensor:
    """Values with the place and the history of an image."""
    made = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return MetaTensor(made, meta=image.meta, applied_operations=image.applied_operations)
