from types import SimpleNamespace

import cornucopia
import pytest
import torch
from torch import Tensor

from metasynth.synthesis.cornucopia import PAPER, CornucopiaConfig, CornucopiaGenerator

K = 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares() -> Tensor:
    """A square of label 2 in one of label 1 in background, (1, 32, 32)."""
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 6:26, 6:26] = 1
    labels[:, 10:20, 10:20] = 2
    return labels


@pytest.mark.parametrize("options", [{"bias": 7, "snr": 10}, {"resolution": 8}, {"gamma": 0, "motion_fwhm": 0}])
def test_other_configurations_make_other_images(options: dict[str, float]) -> None:
    images, _ = CornucopiaGenerator(K, CornucopiaConfig(**options))(squares(), seeded(0))
    paper, _ = CornucopiaGenerator(K)(squares(), seeded(0))
    assert torch.isfinite(images).all()
    assert not torch.equal(images, paper)


def test_without_geometry_labels_stay() -> None:
    still = CornucopiaConfig(translations=0, rotation=0, shears=0, zooms=0, elastic=0)
    labels = squares()
    assert torch.equal(CornucopiaGenerator(K, still)(labels, seeded(0))[1], labels)


def test_defaults_are_cornucopias_but_for_the_papers_four() -> None:
    defaults = cornucopia.SynthFromLabelTransform.__init__.__kwdefaults__
    changed = {name: value for name, value in PAPER.options().items() if value != defaults[name]}
    assert changed == {"order": 1, "resolution": False, "snr": False, "bias": False}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order", 0),
        ("order", 1.5),
        ("elastic", -0.1),
        ("rotation", float("nan")),
        ("gamma", float("inf")),
        ("elastic_nodes", 1),
        ("bias", 1),
        ("resolution", 0.5),
        ("zooms", 1.0),
    ],
)
def test_options_out_of_range_are_rejected_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: must be .*, got"):
        CornucopiaConfig(**{name: value})


def test_one_class_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^n_classes: must be at least 2"):
        CornucopiaGenerator(1)


@pytest.mark.parametrize(
    ("message", "labels"),
    [
        (r"^labels: must be in 0\.\.2, got 0\.\.5$", torch.tensor([[[0, 5]]])),
        (r"^labels: must be in 0\.\.2, got -1\.\.0$", torch.tensor([[[0, -1]]])),
        (r"^labels: must be of an integer dtype, got torch\.float32$", torch.zeros(1, 4, 4)),
        (r"^labels: must be of an integer dtype, got torch\.bool$", torch.zeros(1, 4, 4, dtype=torch.bool)),
        (r"^labels: must have shape \(B, \*S\) .* got shape \(4, 4\)$", torch.zeros(4, 4, dtype=torch.int64)),
    ],
)
def test_bad_labels_are_rejected(message: str, labels: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        CornucopiaGenerator(K)(labels, seeded(0))


def test_voxels_that_are_not_finite_stop_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    make = CornucopiaGenerator(K)
    stages = SimpleNamespace(deform=lambda x: x, gmm=lambda x: x, intensity=lambda x: x * float("nan"))
    monkeypatch.setattr(make, "_transform", stages)
    with pytest.raises(RuntimeError, match=r"not finite \(label map drawn with seed 7\)$"):
        make.synthesise(squares(), torch.tensor([7]))
