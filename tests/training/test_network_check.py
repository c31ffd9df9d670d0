"""Whether a model to start from is for a cache's images, and of the settings' network."""

import hashlib
import shutil

import pytest
import torch
from support.tiny_model import describe
from support.tiny_noise import CLASSES, make_cache

from metasynth.data.cache import Cache
from metasynth.errors import DataError, UsageError
from metasynth.running.settings.config import apply_overrides
from metasynth.segment.model_file import load_model, save_model
from metasynth.segment.unet import UNet
from metasynth.training.network_check import START, check_start
from metasynth.training.segmenter_settings import SegmenterSettings

SMALL = ("widths=4,8", "norm=instance")


def saved(path, ndim=2, widths=(4, 8), norm="instance", in_channels=1, **changed):
    described = {"class_names": CLASSES, "spacing_mm": (3.0,) * ndim, **changed}
    network = UNet(len(described["class_names"]), ndim, in_channels, widths, norm, torch.Generator().manual_seed(0))
    save_model(path, network, describe(ndim, **described))
    return path


def settings(*overrides):
    return apply_overrides(SegmenterSettings(), overrides)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with Cache(make_cache(tmp_path_factory.mktemp("check") / "c.h5")) as cache:
        yield cache


def test_there_is_nothing_to_check_where_no_model_is_named(cache):
    assert check_start(settings(*SMALL), cache) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"axis": "coronal,axial,sagittal", "orientation": "IR,PR,IP"},  # it looks along other axes too
        {"axis": "axial", "orientation": "PR", "shape": (24, 8)},
        {"spacing_mm": (3.02, 2.98)},
    ],
)
def test_a_model_of_such_images_is_found_with_its_digest(changed, cache, tmp_path):
    path = saved(tmp_path / "m.pt", **changed)
    found = check_start(settings(f"start={path}"), cache)
    assert list(found) == [START] == ["segmenter.start"]
    assert (found[START].path, found[START].digest) == (path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_the_only_model_of_a_run_is_found(cache, tmp_path):
    path = saved(tmp_path / "run" / "models" / "learn.pt")
    assert check_start(settings(f"start={tmp_path / 'run'}"), cache)[START].path == path
    shutil.copy(path, path.with_name("naive.pt"))
    with pytest.raises(UsageError) as refused:
        check_start(SegmenterSettings(start=str(tmp_path / "run")), cache)
    assert str(refused.value) == (
        f"{tmp_path / 'run'}: holds 2 segmenters; give the file of one, in models/: learn, naive"
    )


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"class_names": ("background", "grey matter", "white matter")},
            "expected the classes of {cache}; class 1 is 'white matter' there, 'grey matter' here",
        ),
        (
            {"class_names": CLASSES[:2]},
            "expected the classes of {cache}; class 2 is 'grey matter' there, absent here",
        ),
        (
            {"ndim": 3, "axis": "volume", "orientation": "AIR"},
            "expected a model of images of 2 axes as in {cache}, got one of 3",
        ),
        (
            {"brain_only": False, "scaled_by": "head"},
            "expected a model of brains as in {cache}, got one of heads",
        ),
        ({"brain_only": False}, "expected a model of brains as in {cache}, got one of masked heads"),
        (
            {"spacing_mm": (2.0, 3.0)},
            "expected a model of voxels of 3 x 3 mm as in {cache}, got one of 2 x 3 mm; prepare the cache with "
            "--spacing",
        ),
    ],
)
def test_a_model_of_other_images_is_refused_in_one_line(changed, line, cache, tmp_path):
    path = saved(tmp_path / "m.pt", **changed)
    with pytest.raises(DataError) as refused:
        check_start(settings(f"start={path}"), cache)
    assert str(refused.value) == f"{path}: {line.format(cache=cache.path)}"


def test_a_model_of_brains_is_none_of_heads(tmp_path):
    path = saved(tmp_path / "m.pt")
    with Cache(make_cache(tmp_path / "heads.h5", shows="head")) as heads, pytest.raises(DataError) as refused:
        check_start(settings(f"start={path}"), heads)
    assert str(refused.value) == f"{path}: expected a model of heads as in {heads.path}, got one of brains"


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (("widths=4,8,16",), "segmenter.widths: expected 4,8, as in {path}, got 4,8,16"),
        (("norm=none",), "segmenter.norm: expected instance, as in {path}, got none"),
        (("network=nnunet", "widths=4,8"), "segmenter.network: expected unet, as in {path}, got nnunet"),
    ],
)
def test_settings_of_another_network_are_refused_by_name(own, line, cache, tmp_path):
    if "network=nnunet" in own:
        pytest.importorskip("dynamic_network_architectures")
    path = saved(tmp_path / "m.pt")
    with pytest.raises(UsageError) as refused:
        check_start(settings(f"start={path}", *own), cache)
    assert str(refused.value) == line.format(path=path)


def test_weights_of_other_shapes_are_refused(cache, tmp_path):
    path = saved(tmp_path / "m.pt", in_channels=2)
    with pytest.raises(DataError) as refused:
        check_start(settings(f"start={path}"), cache)
    assert str(refused.value).startswith(f"{path}: its weights do not fit images as in {cache.path}: Error(s) in ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_model_is_refused_before_anything(cache, tmp_path):
    (tmp_path / "m.pt").write_text("no model")
    with pytest.raises(DataError, match=r"m\.pt: the model is damaged or no metasynth-model file"):
        settings(f"start={tmp_path / 'm.pt'}")
    saved(tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").network.recipe["widths"] == [4, 8]
