"""Whether the images of a cache fit the networks that are to be given them, and the model to start from."""

import hashlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch

from metasynth.augment.residual import check_halvings
from metasynth.data.cache import Cache
from metasynth.errors import DataError, ShapeError, UsageError
from metasynth.files import first_line
from metasynth.running.prepared import PreparedData
from metasynth.running.settings.values import to_text
from metasynth.segment.model_description import ModelDescription
from metasynth.segment.model_file import BY_FILE, find_model, load_model
from metasynth.text import by
from metasynth.training.segmenter_settings import SegmenterSettings, network_of

START = "segmenter.start"
"""The setting that names a model to start from."""
SPACING_TOLERANCE = 0.01
"""Of a voxel, within which two spacings are the same."""


def check_network(cache: Cache, widths: Sequence[int], setting: str, patch: Sequence[int] = ()) -> None:
    """DataError, which names ``setting``, unless images of the cache fit an augmenting network of ``widths``.

    Of a ``patch`` that is not empty UsageError, unless that fits.
    """
    if patch:
        try:
            check_halvings(widths, patch)
        except ShapeError as error:
            raise UsageError(f"segmenter.patch_size: {error} ({setting})") from error
    try:
        check_halvings(widths, cache.shape)
    except ShapeError as error:
        raise DataError(f"{cache.path}: {error} ({setting})") from error


def check_segmenter(cache: Cache, segmenter: SegmenterSettings) -> None:
    """Require that the segmenter can be given images of the cache, or patches of them.

    Raises
    ------
    DataError
        If images of its shape cannot go through, or it is to be patches and it has slices, or smaller volumes.
    UsageError
        If patches cannot go through, or the network cannot be made.
    """
    window = segmenter.window
    if window and cache.info.axis != "volume":
        raise DataError(
            f"{cache.path}: holds {cache.info.axis} slices; segmenter.patch_size = {by(window)} is of volumes: prepare "
            "them with --3d, or leave patch_size empty"
        )
    if window and any(n > size for n, size in zip(window, cache.shape, strict=True)):
        raise DataError(
            f"{cache.path}: its volumes of {by(cache.shape)} are smaller than segmenter.patch_size = {by(window)}"
        )
    try:
        segmenter.check_images(cache.n_classes, window or cache.shape, cache.info.spacing_mm)
    except ShapeError as error:
        if window:
            raise UsageError(f"segmenter.patch_size: {error}") from error
        raise DataError(f"{cache.path}: {error}") from error


def require_cache(segmenter: SegmenterSettings, command: str) -> None:
    """UsageError, which names a ``command`` of `metasynth prep`, if the embedded cohorts do not serve."""
    if segmenter.window:
        raise UsageError(
            f"segmenter.patch_size = {by(segmenter.window)} needs --data, a cache of volumes, as what is embedded are "
            f"slices: metasynth prep {command} --3d --spacing 3 --out volumes.h5"
        )


def check_start(settings: SegmenterSettings, cache: Cache) -> dict[str, PreparedData]:
    """The model that training on images like those of a cache begins with, by the setting; empty where there is none.

    The slicing axis and the size of the images may differ.

    Raises
    ------
    UsageError
        There is no such model, or its network is not that of the settings.
    DataError
        It cannot be read, or is for other classes or images than the cache's.
    """
    if not settings.start:
        return {}
    path = find_model(settings.start, choose=BY_FILE)
    model = load_model(path)
    _check_images(path, model.description, cache)
    own = settings.build(cache.n_classes, len(cache.shape), torch.Generator(), cache.shape, cache.info.spacing_mm)
    given = network_of(own)
    for name, value in network_of(model.network).items():
        if given.get(name) != value:
            got = to_text(given[name]) if name in given else "another network"
            raise UsageError(f"segmenter.{name}: expected {to_text(value)}, as in {path}, got {got}")
    try:
        own.load_state_dict(model.network.state_dict())
    except RuntimeError as error:
        raise DataError(f"{path}: its weights do not fit images as in {cache.path}: {first_line(error)}") from error
    return {START: PreparedData(path, hashlib.sha256(path.read_bytes()).hexdigest())}


def _check_images(path: Path, model: ModelDescription, cache: Cache) -> None:
    """DataError unless a model tells the classes of a cache apart, in such images."""
    info = cache.info
    for k, (its, own) in enumerate(zip_longest(model.class_names, info.class_names)):
        if its != own:
            there, here = (repr(name) if name else "absent" for name in (own, its))
            raise DataError(f"{path}: expected the classes of {cache.path}; class {k} is {there} there, {here} here")
    if len(model.shape) != len(cache.shape):
        raise DataError(
            f"{path}: expected a model of images of {len(cache.shape)} axes as in {cache.path}, got one of "
            f"{len(model.shape)}"
        )
    shown = "head" if model.takes_heads else "brain" if model.brain_only else "masked head"
    if shown != info.shows:
        raise DataError(f"{path}: expected a model of {info.shows}s as in {cache.path}, got one of {shown}s")
    pairs = zip(model.spacing_mm, info.spacing_mm, strict=True)
    if any(abs(its - own) > SPACING_TOLERANCE * own for its, own in pairs):
        raise DataError(
            f"{path}: expected a model of voxels of {by(info.spacing_mm)} mm as in {cache.path}, got one of "
            f"{by(model.spacing_mm)} mm; prepare the cache with --spacing"
        )
