"""The table of methods: what each needs, interpolated weights, and methods that are no training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metasynth.experiments.comparison.fits import FITS, interpolate, without_training
from metasynth.experiments.comparison.methods import METHODS, TITLES, Method, check_methods
from metasynth.experiments.real_world import EXPERIMENT
from support.tiny_comparison import carry_out, real_cache, results

from metasynth.running.manifest import differing
from metasynth.segment.unet import UNet
from metasynth.training.selection import weights_of


def test_every_method_can_be_fitted_and_comes_after_what_it_needs():
    assert set(FITS) == set(METHODS)
    assert len(set(TITLES.values())) == len(METHODS) + 1
    names = list(METHODS)
    for name, method in METHODS.items():
        assert all(names.index(needed) < names.index(name) for needed in method.needs)
        assert all(not METHODS[needed].sized or method.sized for needed in method.needs)
    check_methods(names)


def weights(seed):
    """Of a U-Net with batch normalisation, whose buffers have seen images and count them."""
    network = UNet(3, widths=(2, 4), norm="batch", generator=torch.Generator().manual_seed(seed))
    for _ in range(seed + 1):
        network(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return weights_of(network)


ENDS = weights(0), weights(4)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_interpolation_at_0_and_1_equals_its_ends():
    begin, end = ENDS
    assert not same(begin, end)
    assert same(interpolate(begin, end, 0.0), begin)
    assert same(interpolate(begin, end, 1.0), end)


@settings(max_examples=20)
@given(st.floats(0, 1))
def test_interpolated_weights_lie_between(weight):
    begin, end = ENDS
    for name, found in interpolate(begin, end, weight).items():
        if found.is_floating_point():
            expected = (1 - weight) * begin[name].double() + weight * end[name].double()
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
        else:
            assert found in (begin[name], end[name])


class MostFrequent:
    """Gives every voxel the class that label maps have there most often."""

    def __init__(self, labels, cohorts):
        self.labels = labels.mode(0).values
        assert cohorts.maps.subjects

    def __call__(self, images):
        return self.labels.expand(len(images), *self.labels.shape)


def test_a_method_without_training_takes_its_place_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "frequent", Method("frequent", "Most frequent class", "none", sized=False))
    monkeypatch.setitem(FITS, "frequent", without_training(MostFrequent))
    cache = real_cache(tmp_path / "real.h5")
    carry_out(EXPERIMENT, tmp_path / "run", cache, methods="naive,frequent", segmenter__steps="4")
    rows = results(tmp_path / "run")
    assert [(row["method"], row["checkpoint"]) for row in rows] == [
        ("naive", "best"),
        ("naive", "last"),
        ("frequent", "only"),
    ]
    assert rows[2]["steps"] == 0
    assert rows[2]["dice"]["test"]["mean"] > 0.5
    assert "| frequent " in (tmp_path / "run" / "table.md").read_text()


def test_of_further_caches_the_digests_count_and_not_the_places():
    def manifest(path, digest, labels):
        other = {"path": path, "digest": digest}
        data = {"path": "c.h5", "digest": "d", "given": True, "others": {"labels": other, "tests.T2": other}}
        return {"config": {"labels": labels, "tests": [path], "steps": 3}, "data": data}

    assert differing(manifest("a.h5", "1", "a.h5"), manifest("b.h5", "1", "b.h5")) == []
    assert differing(manifest("a.h5", "1", "a.h5"), manifest("a.h5", "2", "a.h5")) == [
        "data.others.labels.digest: '1' -> '2'",
        "data.others.tests.T2.digest: '1' -> '2'",
    ]
    without = {"config": {"labels": "b.h5"}, "data": {"path": "c.h5", "digest": "d", "given": True}}
    assert differing(without, {**without, "config": {"labels": "c.h5"}}) == ["config.labels: 'b.h5' -> 'c.h5'"]


@pytest.mark.parametrize("names", [["interpolated"], ["naive", "interpolated"], ["optimised"], []])
def test_methods_that_lack_something(names):
    with pytest.raises(ValueError, match="methods: "):
        check_methods(names)
