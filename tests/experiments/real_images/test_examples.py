"""What the report of a comparison shows of a learned augmenter."""

import torch
from matplotlib.figure import Figure
from metasynth.experiments.real_images.examples import shown_parts
from metasynth.experiments.real_images.figures import _augmentation

from metasynth.augment.noise import GaussianNoise
from metasynth.training.sources import Example


def test_an_augmenter_without_field_or_network_leaves_their_panel_empty() -> None:
    images = torch.full((1, 1, 4, 4), 0.5)
    noise = GaussianNoise(0.1)
    draws = noise.draw(images, torch.Generator().manual_seed(0))
    shown = shown_parts(noise, Example(images, torch.zeros(1, 4, 4), draws))
    assert list(shown) == ["synthetic", "noise", "augmented"]
    arrays = {name: image[0, 0].numpy() for name, image in shown.items()}
    line = Figure().subplots(1, 5)
    _augmentation(line, arrays, arrays["synthetic"])
    panels = [axes.images[0].get_array() for axes in line]
    assert [panel.count() for panel in panels] == [16, 0, 16, 16, 16]
