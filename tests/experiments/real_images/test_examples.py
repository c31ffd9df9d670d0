"""What the report of a comparison shows of a learned augmenter."""

import torch
from matplotlib.figure import Figure
from metasynth.experiments.real_images.examples import shown_parts
from metasynth.experiments.real_images.figures import _augmentation

from metasynth.augment.noise import GaussianNoise


def test_an_augmenter_without_field_or_network_leaves_their_panel_empty() -> None:
    images = torch.full((1, 1, 4, 4), 0.5)
    shown = shown_parts(GaussianNoise(0.1), images, torch.Generator().manual_seed(0))
    assert list(shown) == ["synthetic", "noise", "augmented"]
    arrays = {name: image[0, 0].numpy() for name, image in shown.items()}
    line = Figure().subplots(1, 5)
    _augmentation(line, arrays, arrays["synthetic"])
    panels = [axes.images[0].get_array() for axes in line]
    assert [panel.count() for panel in panels] == [16, 0, 16, 16, 16]
