"""How large the presets of recovery studies are."""

from typing import Any

from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings

_SMALL = (8, 16, 32, 64)
SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "cohort": "template-64",
        "segmenter": SegmenterSettings(widths=_SMALL, steps=1500, cooldown=0.3),
    },
    "standard": {"segmenter": SegmenterSettings(widths=_SMALL, steps=3000, cooldown=0.3)},
    # Patches of volumes of 3 mm: small ones, so that a hypergradient is of many contrasts.
    "quick-3d": {
        "segmenter": SegmenterSettings(widths=(8, 16, 32), batch_size=4, steps=1500, cooldown=0.3, patch_size=(32,)),
        "outer": OuterSettings(batch_size=8),
        "test_repeats": 1,
    },
    # The paper's sizes, network and loss.
    "paper": {
        "cohort": "template-192",
        "segmenter": SegmenterSettings(norm="none", loss="squared_dice", lr=1e-3, batch_size=64, steps=9000),
        "outer": OuterSettings(batch_size=64, warmup=500, every=2),
        "pace": Pace(checkpoint_every=500, workers=8),
    },
}
"""Preset -> the settings that all recovery studies have there."""
